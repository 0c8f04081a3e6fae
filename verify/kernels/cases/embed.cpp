// y[t,:] = table[tokens[t],:], a copy.
#include "verify/kernels/cases/all.hpp"
#include "verify/kernels/cases/pose.hpp"

namespace dsa::verify::kernels {
namespace {

void set_answer(Case& c) {
  const Array& table = c.in.at("table");
  const auto tokens = c.in.at("tokens").as<std::int32_t, 1>();
  const Index T = tokens.size(), V = table.shape()[0], C = table.shape()[1];
  const Parameter rows = parameter("table", table);
  std::vector<double> want(static_cast<std::size_t>(T * C));
  for (Index t = 0; t < T; ++t) {
    const Index token = tokens(t);
    require(token >= 0 && token < V,
            "tokens holds " + std::to_string(token) + ", expected 0 to " + std::to_string(V - 1));
    read_rows(rows, token, token + 1, want.data() + t * C);
  }
  c.out["y"] = Array(storage_of(c.dtype), {T, C});
  c.allowed["y"].assign(want.size(), 0);
  c.want["y"] = std::move(want);
}

Case pose(const std::string& dtype, Index T, Index V, Index C, std::uint64_t seed) {
  Case c = start_case("embed", dtype, {{'T', T}, {'V', V}, {'C', C}}, Inputs::gaussian);
  Draw draw(c, seed);
  const Dtype stored = storage_of(dtype);
  c.in["table"] = draw.numbers(stored, {V, C});
  std::vector<double> tokens;
  for (Index t = 0; t < T; ++t) tokens.push_back(static_cast<double>(draw.below(V)));
  if (T > 1) {
    tokens.front() = 0;
    tokens.back() = static_cast<double>(V - 1);
  }
  c.in["tokens"] = Array(Dtype::i32, {T}, tokens);
  set_answer(c);
  c.bytes = 2.0 * static_cast<double>(T * C * bits_of(stored) / 8) + 4.0 * static_cast<double>(T);
  return finished(std::move(c));
}

/// A token that is not in the vocabulary.
Case pose_stranger(const std::string& dtype, Index token, std::uint64_t seed) {
  const Index T = 5, V = 700, C = 8;
  Case c = start_case("embed", dtype, {{'T', T}, {'V', V}, {'C', C}}, Inputs::adversarial,
                      "token" + std::to_string(token));
  Draw draw(c, seed);
  c.in["table"] = draw.numbers(storage_of(dtype), {V, C});
  c.in["tokens"] =
      Array(Dtype::i32, {T}, std::vector<double>{0, 1, 2, static_cast<double>(token), 3});
  c.out["y"] = Array(storage_of(dtype), {T, C});
  c.refusal = {std::to_string(token)};
  return finished(std::move(c));
}

Poses cases(std::uint64_t seed) {
  Poses poses;
  for (const std::string dtype : {"fp32", "bf16"}) {
    for (const auto& [T, V, C] : std::vector<std::array<Index, 3>>{
             {0, 3, 4}, {1, 1, 1}, {3, 2, 5}, {7, 11, 33}, {65, 129, 100}, {64, 1000, 7168}})
      poses.push_back({dtype, 0, [=] { return pose(dtype, T, V, C, seed); }});
    for (const Index token : {-1, 700})
      poses.push_back({dtype, 0, [=] { return pose_stranger(dtype, token, seed); }});
  }
  return poses;
}

}  // namespace

Op embed_op() {
  return {"embed",
          "y[t,:] = table[tokens[t],:]",
          {"fp32", "bf16"},
          cases,
          judge_elementwise,
          set_answer,
          {{"table", "VC"}, {"tokens", "T", InputRule::Kind::int32}}};
}

}  // namespace dsa::verify::kernels
