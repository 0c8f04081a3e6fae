// Attention over keys and values that are made from latent rows: answers and bounds.
//
// k_nope and v are R products and sums and, where a kernel multiplies in runs, one more sum for 512
// of them; in bf16 and fp8 they are then rounded to bf16. Their error moves a score by |q_nope|
// times the error, and the sum of values by p times the error. The rest is as in mla.cpp. Dyadic:
// q_nope is 0 and every row of W_UV takes one channel, or its negative: scores and v are exact.
#include "core/threads.hpp"
#include "reference/ops/dot.hpp"
#include "verify/kernels/cases/all.hpp"
#include "verify/kernels/cases/indexer.hpp"
#include "verify/kernels/cases/mla.hpp"
#include "verify/measure/bounds.hpp"

namespace dsa::verify::kernels {
namespace {

constexpr double u = unit_roundoff_fp32;

struct Plan {
  std::string dtype;
  Index T, S, N, R, P, B, U;
  Inputs inputs = Inputs::gaussian;
  std::string tag = {};
  Sees sees = Sees::causal;
  double size = 1;  // of the scores
};

/// k_nope and v of one head, (S, B+U), their magnitudes, and what they may be wrong by.
struct Expanded {
  Tensor<double, 2> x, size, error;
};

Expanded expanded(const Latents& latents, const double* w, const Plan& plan) {
  const Index width = plan.B + plan.U, R = plan.R;
  Expanded y{Tensor<double, 2>({plan.S, width}), Tensor<double, 2>({plan.S, width}),
             Tensor<double, 2>({plan.S, width})};
  std::vector<double> w_size(w, w + width * R), c_size(static_cast<std::size_t>(R));
  for (double& value : w_size) value = std::abs(value);
  for (Index s = 0; s < plan.S; ++s) {
    const double* c = latents.kv.view()[s].data;
    std::transform(c, c + R, c_size.begin(), [](double value) { return std::abs(value); });
    for (Index i = 0; i < width; ++i) {
      const double size = reference::dot(w_size.data() + i * R, c_size.data(), R);
      double& error = y.error(s, i);
      y.x(s, i) = reference::dot(w + i * R, c, R);
      error = (gamma(R + R / 512 + 1, u) + latents.dequantised) * size +
              2 * static_cast<double>(R) * smallest_normal_fp32;
      if (plan.inputs == Inputs::dyadic) error = 0;
      y.size(s, i) = std::abs(y.x(s, i)) + error;
      if (error == 0 || plan.dtype == "fp32") continue;
      error += unit_roundoff_bf16 * y.size(s, i);
      y.size(s, i) += unit_roundoff_bf16 * y.size(s, i);
    }
  }
  return y;
}

/// The score of a key, and what it may be wrong by. q (B+P).
std::pair<double, double> score_of(const double* q, const Expanded& k, const double* k_rope,
                                   Index s, const Plan& plan, double scale) {
  double dot = 0, size = 0, moved = 0;
  for (Index b = 0; b < plan.B; ++b) {
    dot += q[b] * k.x(s, b);
    size += std::abs(q[b]) * k.size(s, b);
    moved += std::abs(q[b]) * k.error(s, b);
  }
  for (Index p = 0; p < plan.P; ++p) {
    dot += q[plan.B + p] * k_rope[p];
    size += std::abs(q[plan.B + p] * k_rope[p]);
  }
  const Index n = plan.B + plan.P;
  return {scale * dot, scale * (gamma(n + 1, u) * size + moved +
                                2 * static_cast<double>(n) * smallest_normal_fp32)};
}

/// The extents of a case, most of which its shapes tell.
Plan plan_of(const Case& c, const Latents& x) {
  const Index R = c.sizes.at('R'), P = x.kv.shape()[1] - R, B = x.q.shape()[2] - P;
  const Index U = c.in.at("kv_b").shape()[1] - B;
  require(B > 0 && U > 0, "q, kv and kv_b have B " + std::to_string(B) + " and U " +
                              std::to_string(U) +
                              ", expected shapes (T,N,B+P), (S,R+P) and (N,B+U,R)");
  return {c.dtype, c.sizes.at('T'), c.sizes.at('S'), c.sizes.at('N'), R, P, B, U, c.inputs};
}

void set_answer(Case& c) {
  expect_ranges(c);
  const Latents x = latents_in(c, c.sizes.at('R'));
  const auto kv_b = widen<3>(c.in.at("kv_b"));
  const auto keys = visible_keys(c);
  const Plan plan = plan_of(c, x);
  const auto& [dtype, T, S, N, R, P, B, U, inputs, tag, sees, size] = plan;
  Tensor<double, 3> out({T, N, U}), allowed({T, N, U});
  Tensor<double, 2> lse({T, N}), lse_allowed({T, N});
  parallel_for(plan.N, shared_loop_ns, [&](Index n) {
    const Expanded kv = expanded(x, kv_b.view()[n].data, plan);
    for (Index t = 0; t < plan.T; ++t) {
      std::vector<double> scores, errors;
      std::vector<Value> values;
      for (const Index s : keys[static_cast<std::size_t>(t)]) {
        const auto [score, error] = score_of(
            x.q.view()[t][n].data, kv, x.kv.view()[s].data + plan.R, s, plan, c.scalar("scale"));
        scores.push_back(score), errors.push_back(error);
        values.push_back({&kv.x(s, plan.B), &kv.size(s, plan.B), &kv.error(s, plan.B)});
      }
      const Weights w = weights_of(scores, errors);
      lse(t, n) = w.lse, lse_allowed(t, n) = w.lse_error;
      sum_values(out.view()[t][n], allowed.view()[t][n], w, values, plan.dtype != "fp32");
    }
  });
  c.out["out"] = Array(Dtype::f32, {T, N, U});
  c.out["lse"] = Array(Dtype::f32, {T, N});
  answer(c, "out", list(out), list(allowed), false);
  answer(c, "lse", list(lse), list(lse_allowed), false);
}

/// Every row of W_UV becomes that of one channel, or its negative.
void take_channels(Tensor<double, 3>& kv_b, Index B, Draw& draw) {
  const auto [N, rows, R] = kv_b.shape();
  for (Index n = 0; n < N; ++n)
    for (Index i = B; i < rows; ++i) {
      std::fill_n(&kv_b(n, i, 0), R, 0.0);
      kv_b(n, i, draw.below(R)) = draw.bits() % 2 ? 1 : -1;
    }
}

Case pose(const Plan& plan, std::uint64_t seed) {
  const auto& [dtype, T, S, N, R, P, B, U, inputs, tag, sees, size] = plan;
  Case c = start_case("mla_expanded", dtype,
                      {{'T', T}, {'S', S}, {'N', N}, {'R', R}, {'P', P}, {'B', B}, {'U', U}},
                      inputs, tag);
  Draw draw(c, seed);
  const Dtype stored = dtype == "fp32" ? Dtype::f32 : Dtype::bf16;
  c.scalars["scale"] = 0.8 * size / std::sqrt(static_cast<double>(B + P));
  Latents x{widen<3>(draw.numbers(stored, {T, N, B + P})),
            widen<2>(draw.numbers(stored, {S, R + P}))};
  const bool exact = inputs == Inputs::dyadic;
  auto kv_b = widen<3>(
      draw.numbers(stored, {N, B + U, R}, exact ? 1 : 1 / std::sqrt(static_cast<double>(R))));
  if (exact) {
    cancel(x, B, R);
    take_channels(kv_b, B, draw);
  }
  c.in["q"] = Array(stored, {T, N, B + P}, list(x.q));
  c.in["kv_b"] = Array(stored, {N, B + U, R}, list(kv_b));
  store_rows(c, draw, {dtype, T, S, N, R, P, size, tag != "any-scale"}, x);
  std::tie(c.in["begin"], c.in["end"]) = ranges(sees, T, S);
  const auto keys = visible_keys(c);
  const std::vector<bool> seen = seen_keys(keys, S);
  set_answer(c);
  double pairs = 0;
  for (const auto& row : keys) pairs += static_cast<double>(row.size());
  c.flops = 2 * static_cast<double>(N) *
            (pairs * static_cast<double>(B + P + U) +
             static_cast<double>(std::count(seen.begin(), seen.end(), true) * R * (B + U)));
  if (tag == "unseen-nan") make_unseen_nan(c.in["kv"], seen);
  return finished(std::move(c));
}

std::vector<Plan> plans() {
  std::vector<Plan> all;
  const Inputs gaussian = Inputs::gaussian, hard = Inputs::adversarial;
  for (const std::string dtype : {"fp32", "bf16", "fp8"}) {
    for (const auto& [T, S, N, R, P, B, U] :
         std::vector<std::array<Index, 7>>{{0, 5, 2, 8, 4, 6, 5},
                                           {1, 1, 1, 1, 1, 1, 1},
                                           {2, 7, 1, 5, 2, 3, 4},
                                           {5, 5, 3, 16, 6, 10, 7},
                                           {7, 40, 5, 130, 10, 20, 24},
                                           {70, 300, 17, 100, 64, 33, 31},
                                           {3, 700, 5, 64, 16, 24, 40},
                                           {20, 150, 4, 512, 64, 128, 128}})
      for (const Inputs inputs : {Inputs::dyadic, gaussian})
        all.push_back({dtype, T, S, N, R, P, B, U, inputs});
    for (const Inputs inputs : {Inputs::dyadic, gaussian}) {
      all.push_back({dtype, 17, 100, 3, 32, 16, 20, 24, inputs, "packed", Sees::packed});
      all.push_back(
          {dtype, 16, 64, 3, 32, 16, 20, 24, inputs, "empty-rows", Sees::nothing_in_some});
    }
    all.push_back({dtype, 12, 70, 5, 48, 16, 20, 24, hard, "unseen-nan", Sees::from_the_start});
    all.push_back({dtype, 9, 60, 5, 48, 16, 20, 24, hard, "huge-scores", Sees::causal, 1000});
    all.push_back({dtype, 9, 60, 5, 48, 16, 20, 24, hard, "peaked", Sees::causal, 30});
  }
  all.push_back({"fp8", 9, 60, 5, 200, 16, 20, 24, hard, "any-scale"});
  return all;
}

Poses cases(std::uint64_t seed) {
  Poses poses;
  for (const Plan& plan : plans()) {
    const auto& [dtype, T, S, N, R, P, B, U, inputs, tag, sees, size] = plan;
    poses.push_back({dtype, twice(T, S, N, B + P + U) + twice(S, N, R, B + U),
                     [=] { return pose(plan, seed); }});
  }
  return poses;
}

}  // namespace

Op expanded_attention_op() {
  return {
      "mla_expanded",
      "out[t,n,:] = sum_s softmax_s( scale q[t,n,:] . [W_UK[n] c[s] | k_rope[s]] ) W_UV[n] c[s]",
      {"fp32", "bf16", "fp8"},
      cases,
      judge_elementwise,
      set_answer,
      {{"q", "TN?", InputRule::Kind::bf16_or_fp32},
       {"kv", "S?", InputRule::Kind::rows},
       {"kv_b", "N?R", InputRule::Kind::bf16_or_fp32},
       {"begin", "T", InputRule::Kind::int32},
       {"end", "T", InputRule::Kind::int32}},
      {{"scale"}}};
}

}  // namespace dsa::verify::kernels
