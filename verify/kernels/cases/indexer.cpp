// The lightning indexer: bounds of its scores.
//
// A head's dot product: D products and sums, gamma(D) on magnitudes. Where relu is certain to
// cut it off, the head adds an exact zero. The sum over heads: a product with w and H sums, and an
// e4m3 key's own scale: gamma(H + 2) on magnitudes. On Hopper's tensor cores, the dot product of
// e4m3 numbers may be wrong by hopper_fp8_error besides.
#include "verify/kernels/cases/indexer.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "core/threads.hpp"
#include "reference/ops/dot.hpp"
#include "reference/ops/indexer_scores.hpp"
#include "verify/kernels/cases/hopper_fp8.hpp"
#include "verify/measure/bounds.hpp"

namespace dsa::verify::kernels {
namespace {

constexpr double u = unit_roundoff_fp32;
constexpr double inf = std::numeric_limits<double>::infinity();

/// Keys as a kernel reads them: numbers (S, D); of e4m3, rows of D + 4 bytes with a scale at the
/// end.
Array draw_keys(Draw& draw, const IndexPlan& plan) {
  const Index S = plan.S, D = plan.D;
  Array numbers = draw.numbers(storage_of(plan.dtype), {S, D});
  if (plan.dtype != "fp8") return numbers;
  const Array scales = draw.scales({S}, plan.inputs == Inputs::dyadic);
  Array rows(Dtype::u8, {S, D + 4});
  for (Index s = 0; s < S; ++s) {
    std::byte* const row = rows.bytes().data() + s * (D + 4);
    std::memcpy(row, numbers.bytes().data() + s * D, static_cast<std::size_t>(D));
    std::memcpy(row + D, scales.bytes().data() + s * 4, 4);
  }
  return rows;
}

struct Keys {
  Tensor<double, 2> numbers;  // (S, D), without the scale
  Tensor<double, 1> scale;    // (S)
};

Keys keys_in(const Case& c) {
  const Array& stored = c.in.at("k");
  const Index S = c.sizes.at('S'), D = c.sizes.at('D');
  if (c.dtype != "fp8") return {widen<2>(stored), Tensor<double, 1>({S}, 1)};
  Array numbers(Dtype::f8_e4m3, {S, D}), scales(Dtype::f32, {S});
  for (Index s = 0; s < S; ++s) {
    const std::byte* const row = stored.bytes().data() + s * (D + 4);
    std::memcpy(numbers.bytes().data() + s * D, row, static_cast<std::size_t>(D));
    std::memcpy(scales.bytes().data() + s * 4, row + D, 4);
  }
  return {widen<2>(numbers), widen<1>(scales)};
}

/// Rows of which every byte is 0xff: NaN in every format.
void make_nan(Array& x, Index row) {
  const Index bytes = static_cast<Index>(x.bytes().size()) / x.shape()[0];
  std::memset(x.bytes().data() + row * bytes, 0xff, static_cast<std::size_t>(bytes));
}

/// Negates what is positive in q and negative in k: every dot product is below zero.
void oppose(Array& q, Array& k) {
  const auto with_sign = [](const Array& x, double sign) {
    std::vector<double> values = x.values();
    for (double& v : values) v = sign * std::abs(v);
    return Array(x.dtype(), x.shape(), values);
  };
  q = with_sign(q, -1);
  k = with_sign(k, 1);
}

/// The definition, a query at a time. The range [begin, end) of a query is given as a document.
void reference_scores(Tensor<double, 2>& scores, const Case& c) {
  const Index T = scores.shape()[0], S = scores.shape()[1];
  const auto q = widen<3>(c.in.at("q"));
  const auto w = widen<2>(c.in.at("w"));
  const Keys keys = keys_in(c);
  const auto begin = c.in.at("begin").as<std::int32_t, 1>(),
             end = c.in.at("end").as<std::int32_t, 1>();
  Indexer indexer;
  indexer.activation = c.flag("relu") ? Indexer::Activation::relu : Indexer::Activation::none;
  for (Index t = 0; t < T; ++t) {
    const Index b = begin(t), e = end(t);
    std::vector<Index> documents(static_cast<std::size_t>(std::max<Index>(S, 1)), -1);
    std::fill(documents.begin() + b, documents.begin() + std::max(b, e), 0);
    const View<double, 2> row{scores.data() + t * S, {1, S}};
    reference::indexer_scores<double>(row, {q.view()[t].data, {1, q.shape()[1], q.shape()[2]}},
                                      keys.numbers, {w.view()[t].data, {1, w.shape()[1]}}, indexer,
                                      {std::max<Index>(e, 1) - 1, documents});
    for (Index s = 0; s < S; ++s) scores(t, s) *= keys.scale(s);
  }
}

struct Rules {
  bool relu, exact;  // exact: every sum is, in fp32
  Sums sums;
};

double allowed_error(View<const double, 2> q, const double* key, View<const double, 2> q_size,
                     const double* key_size, const double* w, const Rules& rules) {
  const auto& [relu, exact, sums] = rules;
  const Index H = q.shape[0], D = q.shape[1];
  const double underflow = 2 * static_cast<double>(D) * smallest_normal_fp32;
  double from_dots = 0, size = 0;
  for (Index h = 0; h < H; ++h) {
    const double dot = reference::dot(q[h].data, key, D);
    double error = sums == Sums::hopper_fp8 ? hopper_fp8_error(q[h].data, key, D) : 0;
    if (!exact) error += gamma(D, u) * reference::dot(q_size[h].data, key_size, D) + underflow;
    if (relu && dot < -error) continue;
    from_dots += std::abs(w[h]) * error;
    size += std::abs(w[h]) * ((relu ? std::max(dot, 0.0) : std::abs(dot)) + error);
  }
  return from_dots == 0 ? 0 : from_dots + gamma(H + 2, u) * size + smallest_normal_fp32;
}

/// The allowed error of every score that a query sees; 0 for the others.
Tensor<double, 2> allowed_errors(const Case& c, Sums sums) {
  const Keys keys = keys_in(c);
  const auto q = widen<3>(c.in.at("q")), q_size = magnitude(q);
  const auto k_size = magnitude(keys.numbers);
  const auto w = widen<2>(c.in.at("w"));
  const auto begin = c.in.at("begin").as<std::int32_t, 1>(),
             end = c.in.at("end").as<std::int32_t, 1>();
  const Rules rules{c.flag("relu"), c.inputs == Inputs::dyadic, sums};
  Tensor<double, 2> allowed({c.sizes.at('T'), c.sizes.at('S')});
  if (rules.exact && sums == Sums::fp32) return allowed;
  parallel_for(c.sizes.at('T'), c.sizes.at('S') * 1000, [&](Index t) {
    for (Index s = begin(t); s < end(t); ++s)
      allowed(t, s) =
          keys.scale(s) * allowed_error(q.view()[t], keys.numbers.view()[s].data, q_size.view()[t],
                                        k_size.view()[s].data, w.view()[t].data, rules);
  });
  return allowed;
}

Answers on_hopper(const Case& c) {
  Answers allowed = c.allowed;
  allowed["scores"] = list(allowed_errors(c, Sums::hopper_fp8));
  return allowed;
}

}  // namespace

std::pair<Array, Array> ranges(Sees sees, Index T, Index S) {
  std::vector<double> begin, end;
  for (Index t = 0; t < T; ++t) {
    const Index before = sees == Sees::from_the_start ? 0 : S - T;
    Index b = 0, e = std::clamp<Index>(before + t + 1, 0, S);
    if (sees == Sees::packed) b = std::min(e, t * 3 / std::max<Index>(T, 1) * S / 3);
    if (sees == Sees::nothing_in_some && t % 2 == 0) e = b;
    begin.push_back(static_cast<double>(b));
    end.push_back(static_cast<double>(e));
  }
  return {Array(Dtype::i32, {T}, begin), Array(Dtype::i32, {T}, end)};
}

void expect_ranges(const Case& c) {
  const auto begin = c.in.at("begin").as<std::int32_t, 1>(),
             end = c.in.at("end").as<std::int32_t, 1>();
  const Index S = c.sizes.at('S');
  for (Index t = 0; t < begin.size(); ++t)
    require(0 <= begin(t) && begin(t) <= S && 0 <= end(t) && end(t) <= S,
            "query " + std::to_string(t) + " sees keys " + std::to_string(begin(t)) + " to " +
                std::to_string(end(t)) + ", expected a range within the " + std::to_string(S) +
                " keys");
}

const std::vector<InputRule>& index_inputs() {
  using Kind = InputRule::Kind;
  static const std::vector<InputRule> rules = {{"q", "THD"},
                                               {"k", "S?", Kind::rows},
                                               {"w", "TH", Kind::fp32},
                                               {"begin", "T", Kind::int32},
                                               {"end", "T", Kind::int32}};
  return rules;
}

IndexScores index_scores(Case& c) {
  const Index S = c.sizes.at('S'), D = c.sizes.at('D');
  const Index width = c.dtype == "fp8" ? D + 4 : D;
  require(c.in.at("k").shape()[1] == width,
          "a row of k has " + std::to_string(c.in.at("k").shape()[1]) + " entries, expected " +
              std::to_string(width) + ": q has " + std::to_string(D) +
              " channels, and an fp8 row its fp32 scale behind them");
  expect_ranges(c);
  IndexScores answer{Tensor<double, 2>({c.sizes.at('T'), S}), {}};
  reference_scores(answer.scores, c);
  answer.allowed = allowed_errors(c, Sums::fp32);
  if (c.dtype == "fp8") c.allowed_on_hopper = on_hopper;
  return answer;
}

IndexProblem index_problem(std::string_view op, const IndexPlan& plan, std::uint64_t seed) {
  const auto& [dtype, T, S, H, D, K, inputs, tag, sees] = plan;
  const bool relu = tag != "no-relu", exact = inputs == Inputs::dyadic;
  // Products of three dyadics are multiples of 2^-9, and of 2^-10 with a scale of 1/2.
  require(!exact || H * D * 1024 <= Index{1} << 24, "too large for exact inputs");
  Extents extents = {{'T', T}, {'S', S}, {'H', H}, {'D', D}};
  if (op == "indexer_topk") extents.push_back({'K', K});
  IndexProblem p{start_case(op, dtype, extents, inputs, tag), {}, {}};
  Case& c = p.c;
  Draw draw(c, seed);
  c.scalars["relu"] = relu;
  c.in["q"] = draw.numbers(storage_of(dtype), {T, H, D});
  c.in["k"] = draw_keys(draw, plan);
  c.in["w"] = draw.numbers(Dtype::f32, {T, H});
  std::tie(c.in["begin"], c.in["end"]) = ranges(sees, T, S);
  if (tag == "zeros") {
    require(dtype != "fp8", "the keys of fp8 have their signs inside rows");
    oppose(c.in["q"], c.in["k"]);
  }
  const auto begin = c.in["begin"].as<std::int32_t, 1>(), end = c.in["end"].as<std::int32_t, 1>();
  IndexScores answer = index_scores(c);
  p.scores = std::move(answer.scores), p.allowed = std::move(answer.allowed);
  std::vector<bool> seen(static_cast<std::size_t>(S));
  double pairs = 0;
  for (Index t = 0; t < T; ++t)
    for (Index s = begin(t); s < end(t); ++s) {
      seen[static_cast<std::size_t>(s)] = true;
      ++pairs;
    }
  if (tag == "unseen-nan")
    for (Index s = 0; s < S; ++s)
      if (!seen[static_cast<std::size_t>(s)]) make_nan(c.in["k"], s);
  if (tag == "nan-weight") {
    make_nan(c.in["w"], T - 3);
    c.refusal = {"NaN", std::to_string(T - 3)};
  }
  if (tag == "nan-key") {  // relu must not make a zero of it
    make_nan(c.in["k"], end(T - 3) - 1);
    c.refusal = {"NaN"};
  }
  if (tag == "nan-first-key") {  // and nowhere else, of several tiles
    make_nan(c.in["k"], 0);
    c.refusal = {"NaN", "0"};
  }
  c.flops = 2 * pairs * static_cast<double>(H * D);
  return p;
}

std::vector<IndexPlan> index_plans() {
  std::vector<IndexPlan> plans;
  using Extents5 = std::array<Index, 5>;  // T, S, H, D, K
  const std::vector<Extents5> small = {
      {0, 4, 2, 8, 2},    {1, 1, 1, 1, 1},      {3, 2, 2, 5, 1},       {2, 0, 1, 4, 3},
      {5, 9, 3, 16, 4},   {7, 33, 5, 31, 33},   {9, 40, 4, 32, 50},    {33, 65, 4, 64, 16},
      {3, 10, 40, 16, 4}, {60, 500, 1, 8, 120}, {17, 130, 33, 96, 64}, {2, 2100, 4, 32, 100}};
  for (const std::string dtype : {"fp32", "bf16", "fp8"}) {
    for (const Inputs inputs : {Inputs::dyadic, Inputs::gaussian}) {
      for (const auto& [T, S, H, D, K] : small) plans.push_back({dtype, T, S, H, D, K, inputs});
      plans.push_back({dtype, 17, 100, 3, 32, 16, inputs, "packed", Sees::packed});
      plans.push_back({dtype, 16, 64, 3, 32, 8, inputs, "empty-rows", Sees::nothing_in_some});
      plans.push_back({dtype, 6, 50, 3, 32, 8, inputs, "no-relu"});
      plans.push_back({dtype, 12, 300, 128, 128, 64, inputs});
    }
    plans.push_back({dtype, 32, 2048, 64, 128, 512, Inputs::gaussian});
    const Inputs hard = Inputs::adversarial;
    if (dtype != "fp8") plans.push_back({dtype, 6, 90, 4, 32, 16, hard, "zeros"});
    plans.push_back({dtype, 12, 70, 4, 32, 8, hard, "unseen-nan", Sees::from_the_start});
    plans.push_back({dtype, 40, 45, 2, 32, 8, hard, "nan-weight"});
    plans.push_back({dtype, 40, 45, 2, 32, 8, hard, "nan-key"});
    plans.push_back({dtype, 3, 210, 2, 32, 8, hard, "nan-first-key"});
  }
  for (const std::string dtype : {"fp32", "bf16", "fp8"})  // top-k 7, and 2048 below and above S
    for (const Inputs inputs : {Inputs::dyadic, Inputs::gaussian})
      for (const auto& [T, S, H, D, K] :
           std::vector<Extents5>{{4, 50, 16, 32, 7}, {3, 70, 3, 32, 2048}, {2, 2300, 1, 16, 2048}})
        plans.push_back({dtype, T, S, H, D, K, inputs});
  // Heads of the width that rungs for Hopper take.
  for (const std::string dtype : {"bf16", "fp8"}) {
    const Inputs hard = Inputs::adversarial;
    for (const Inputs inputs : {Inputs::dyadic, Inputs::gaussian})
      plans.push_back({dtype, 2, 12, 16, 128, 5, inputs});
    plans.push_back({dtype, 3, 9, 16, 128, 2, hard, "unseen-nan", Sees::from_the_start});
    for (const Inputs inputs : {Inputs::dyadic, Inputs::gaussian}) {
      plans.push_back({dtype, 3, 140, 64, 128, 60, inputs});
      plans.push_back({dtype, 7, 130, 32, 128, 40, inputs, "packed", Sees::packed});
      plans.push_back({dtype, 9, 100, 16, 128, 32, inputs, "empty-rows", Sees::nothing_in_some});
    }
    plans.push_back({dtype, 9, 70, 16, 128, 8, hard, "nan-key"});
  }
  // A page of 64 keys and some more, lengths that are no multiple of 4, and a scale for every key.
  for (const Inputs inputs : {Inputs::dyadic, Inputs::gaussian})
    for (const Index S : {129, 130, 131, 191})
      plans.push_back({"fp8", 5, S, 4, 32, 21, inputs, "ragged-page"});
  return plans;
}

}  // namespace dsa::verify::kernels
