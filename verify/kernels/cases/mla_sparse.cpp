#include "verify/kernels/cases/all.hpp"
#include "verify/kernels/cases/mla.hpp"

namespace dsa::verify::kernels {
namespace {

struct Plan {
  std::string dtype;
  Index T, S, N, R, P, K;
  Inputs inputs = Inputs::gaussian;
  std::string tag = {};  // "holes", "nothing-chosen", "unchosen-nan", "any-scale", ...
  double size = 1;       // of the scores
};

/// Chosen keys of every query, in a row of K: ascending and -1 at the end, or with holes of -1 and
/// in any order.
std::vector<std::vector<Index>> draw_keys(Draw& draw, const Plan& plan) {
  std::vector<std::vector<Index>> keys;
  for (Index t = 0; t < plan.T; ++t) {
    Index k = std::min(plan.K, plan.S);
    if (plan.tag == "holes") k = t % 4 == 1 ? 0 : k - draw.below(k);
    if (plan.tag == "nothing-chosen") k = 0;
    if (plan.tag == "one-key") k = 1;
    if (plan.tag == "unchosen-nan") k /= 2;
    keys.push_back(draw.subset(k, plan.S));
  }
  return keys;
}

Array rows_of(Draw& draw, const std::vector<std::vector<Index>>& keys, Index K, bool holes) {
  std::vector<double> rows;
  for (const auto& row : keys) {
    std::vector<double> one(static_cast<std::size_t>(K), -1);
    const auto places =
        holes ? draw.subset(static_cast<Index>(row.size()), K) : std::vector<Index>();
    for (std::size_t i = 0; i < row.size(); ++i)
      one[holes ? static_cast<std::size_t>(places[row.size() - 1 - i]) : i] =
          static_cast<double>(row[i]);
    rows.insert(rows.end(), one.begin(), one.end());
  }
  return Array(Dtype::i32, {static_cast<Index>(keys.size()), K}, rows);
}

/// What each query of in["chosen"] attends to.
std::vector<std::vector<Index>> chosen_keys(const Case& c) {
  const auto chosen = c.in.at("chosen").as<std::int32_t, 2>();
  const Index S = c.sizes.at('S');
  std::vector<std::vector<Index>> keys(static_cast<std::size_t>(chosen.shape[0]));
  for (Index t = 0; t < chosen.shape[0]; ++t)
    for (const Index s : chosen[t]) {
      require(-1 <= s && s < S, "chosen holds key " + std::to_string(s) + " in row " +
                                    std::to_string(t) + ", expected -1 to " +
                                    std::to_string(S - 1));
      if (s >= 0) keys[static_cast<std::size_t>(t)].push_back(s);
    }
  return keys;
}

void set_answer(Case& c) { set_attention(c, latents_in(c, c.integer("R")), chosen_keys(c)); }

Case pose(const Plan& plan, std::uint64_t seed) {
  const auto& [dtype, T, S, N, R, P, K, inputs, tag, size] = plan;
  Case c = start_case("mla_sparse", dtype,
                      {{'T', T}, {'S', S}, {'N', N}, {'R', R}, {'P', P}, {'K', K}}, inputs, tag);
  Draw draw(c, seed);
  draw_latents(c, draw, {dtype, T, S, N, R, P, size, tag != "any-scale"});
  const auto keys = draw_keys(draw, plan);
  c.in["chosen"] = rows_of(draw, keys, K, tag == "holes");
  set_answer(c);
  const std::vector<bool> seen = seen_keys(keys, S);
  if (tag == "unchosen-nan") make_unseen_nan(c.in["kv"], seen);
  if (tag == "no-such-key") {
    c.in["chosen"].as<std::int32_t, 2>()(T - 1, K / 2) = static_cast<std::int32_t>(S);
    c.refusal = {std::to_string(S)};
  }
  const auto row_bytes = [](const Array& a) {
    return a.shape()[0] ? static_cast<double>(a.bytes().size()) / static_cast<double>(a.shape()[0])
                        : 0;
  };
  const auto read = static_cast<double>(std::count(seen.begin(), seen.end(), true));
  c.bytes = read * row_bytes(c.in["kv"]);
  for (const Array* a : {&c.in["q"], &c.in["chosen"], &c.out["out"], &c.out["lse"]})
    c.bytes += static_cast<double>(a->bytes().size());
  return finished(std::move(c));
}

std::vector<Plan> plans() {
  std::vector<Plan> all;
  const Inputs hard = Inputs::adversarial;
  for (const std::string dtype : {"fp32", "bf16", "fp8"}) {
    for (const Inputs inputs : {Inputs::dyadic, Inputs::gaussian})
      for (const auto& [T, S, N, R, P, K] :
           std::vector<std::array<Index, 6>>{{0, 5, 2, 8, 4, 3},
                                             {1, 1, 1, 1, 1, 1},
                                             {2, 7, 1, 5, 2, 3},
                                             {3, 9, 3, 16, 6, 12},
                                             {3, 40, 5, 130, 10, 17},
                                             {5, 100, 16, 64, 32, 64},
                                             {2, 300, 33, 100, 64, 129},
                                             {2, 400, 128, 512, 64, 256}})
        all.push_back({dtype, T, S, N, R, P, K, inputs});
    all.push_back({dtype, 1, 2048, 128, 512, 64, 1024});
    all.push_back({dtype, 4, 0, 3, 16, 4, 5, hard, "nothing-chosen"});
    all.push_back({dtype, 4, 6, 3, 16, 4, 5, hard, "nothing-chosen"});
    all.push_back({dtype, 9, 60, 5, 48, 16, 33, hard, "holes"});
    all.push_back({dtype, 9, 60, 5, 48, 16, 33, hard, "one-key"});
    all.push_back({dtype, 9, 60, 5, 48, 16, 33, hard, "unchosen-nan"});
    all.push_back({dtype, 9, 60, 5, 48, 16, 33, hard, "huge-scores", 1000});
    all.push_back({dtype, 9, 60, 5, 48, 16, 33, hard, "peaked", 30});
    all.push_back({dtype, 9, 60, 5, 48, 16, 33, hard, "no-such-key"});
  }
  all.push_back({"fp8", 9, 60, 5, 200, 16, 33, hard, "any-scale"});
  for (const std::string dtype : {"fp32", "bf16", "fp8"})  // top-k 7, and 2048 below and above S
    for (const Inputs inputs : {Inputs::dyadic, Inputs::gaussian})
      for (const auto& [T, S, N, R, P, K] : std::vector<std::array<Index, 6>>{
               {3, 30, 64, 32, 16, 7}, {2, 60, 3, 16, 8, 2048}, {2, 2300, 1, 16, 8, 2048}})
        all.push_back({dtype, T, S, N, R, P, K, inputs});
  // A page of 64 rows and some more, numbers of keys that are no multiple of 4, and scales for
  // every row.
  for (const Index more : {1, 2, 3, 63})
    for (const std::string dtype : {"bf16", "fp8"})
      all.push_back({dtype, 3, 128 + more, 5, 130, 10, 64 + more, Inputs::gaussian, "ragged-page"});
  // V3.2's rows, which some kernels take alone: several blocks of 64 heads and of 128 keys, more
  // queries than a device has multiprocessors, and what is hard.
  all.push_back({"bf16", 5, 140, 65, 512, 64, 130, Inputs::gaussian});
  for (const std::string dtype : {"bf16", "fp8"}) {
    for (const char* tag : {"nothing-chosen", "holes", "one-key", "unchosen-nan", "no-such-key"})
      all.push_back({dtype, 3, 6, 2, 512, 64, 5, hard, tag});
    for (const auto& [tag, size] : {std::pair{"huge-scores", 1000.0}, {"peaked", 30.0}})
      all.push_back({dtype, 3, 6, 2, 512, 64, 5, hard, tag, size});
  }
  all.push_back({"fp8", 1, 300, 65, 512, 64, 290, Inputs::gaussian, "any-scale"});
  return all;
}

Poses cases(std::uint64_t seed) {
  Poses poses;
  for (const Plan& plan : plans()) {
    const Index keys = std::min(plan.K, plan.S);
    poses.push_back({plan.dtype, twice(plan.T, keys, plan.N, 2 * plan.R + plan.P),
                     [=] { return pose(plan, seed); }});
  }
  return poses;
}

}  // namespace

Op sparse_attention_op() {
  return {"mla_sparse",
          "out[t,n,:] = sum_s softmax_s( scale q[t,n,:] . kv[s,:] ) kv[s,:R], s in chosen[t,:]",
          {"fp32", "bf16", "fp8"},
          cases,
          judge_elementwise,
          set_answer,
          {{"q", "TN?", InputRule::Kind::bf16_or_fp32},
           {"kv", "S?", InputRule::Kind::rows},
           {"chosen", "TK", InputRule::Kind::int32}},
          {{"scale"}, {"R", must_be_given, true}}};
}

}  // namespace dsa::verify::kernels
