// Attention over latent rows: answers and bounds.
//
// A score: R + P products and sums, gamma(R + P) on magnitudes, and a product with the scale; q and
// kv are multiplied exactly, or rounded once, which the same gamma covers. A wrong score, the
// argument's roundings and exp's own make p_s wrong by a factor 1 + e_s; what all have in common
// cancels:
//   | out - exact | <= sum_s p_s e_s |v_s - out| (1 + max e)
// Then the roundings of sum p v and of sum p: K products and sums, twice; a block of keys holds at
// least sixteen, and where the maximum grows with one, what was summed is rescaled (two roundings
// each). In bf16 and fp8, p is rounded to bf16 for the product with v: u_bf16 p |v|, except where p
// is 1 to the bit: one key, or scores that are all exactly 0.
#include "verify/kernels/cases/mla.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "core/threads.hpp"
#include "reference/ops/dot.hpp"
#include "reference/ops/mla.hpp"
#include "verify/measure/bounds.hpp"

namespace dsa::verify::kernels {
namespace {

constexpr double u = unit_roundoff_fp32, inf = std::numeric_limits<double>::infinity();
constexpr Index run = 128;            // channels of an e4m3 row that share a scale
constexpr Index smallest_block = 16;  // keys between two looks at the maximum

/// Rows (S, R+P) as e4m3 rows of optimized/shared/rows.hpp; `numbers` become what they stand for.
Array e4m3_rows(Tensor<double, 2>& numbers, const LatentPlan& plan, Draw& draw) {
  const auto& [dtype, T, S, N, R, P, size, powers_of_two] = plan;
  const Index runs = (R + run - 1) / run, bytes = R + 4 * runs + 2 * P;
  const auto scales = widen<2>(draw.scales({S, runs}, powers_of_two));
  Array rows(Dtype::u8, {S, bytes});
  for (Index s = 0; s < S; ++s) {
    std::byte* const row = rows.bytes().data() + s * bytes;
    encode(Dtype::f8_e4m3, numbers.view()[s].data, R, row);
    encode(Dtype::f32, scales.view()[s].data, runs, row + R);
    encode(Dtype::bf16, numbers.view()[s].data + R, P, row + R + 4 * runs);
    decode(Dtype::f8_e4m3, row, R, numbers.view()[s].data);
    decode(Dtype::bf16, row + R + 4 * runs, P, numbers.view()[s].data + R);
    for (Index r = 0; r < R; ++r) numbers(s, r) *= scales(s, r / run);
  }
  return rows;
}

struct Problem {
  const Latents& x;
  Tensor<double, 3> q_size;
  Tensor<double, 2> kv_size, kv_error;
  double scale;
};

Weights weights_of(const Problem& problem, Index t, Index n, const std::vector<Index>& keys) {
  const Index width = problem.x.kv.shape()[1];
  const double *q = problem.x.q.view()[t][n].data, *q_size = problem.q_size.view()[t][n].data;
  std::vector<double> score, error;
  for (const Index s : keys) {
    const double dot = reference::dot(q, problem.x.kv.view()[s].data, width);
    const double size = reference::dot(q_size, problem.kv_size.view()[s].data, width);
    score.push_back(problem.scale * dot);
    error.push_back(problem.scale * ((gamma(width, u) + problem.x.dequantised) * size +
                                     2 * static_cast<double>(width) * smallest_normal_fp32));
  }
  return kernels::weights_of(score, error);
}

Index blocks_of(Index K) { return (K + smallest_block - 1) / smallest_block; }

}  // namespace

Weights weights_of(const std::vector<double>& score, const std::vector<double>& error) {
  const auto K = static_cast<Index>(score.size());
  Weights w;
  w.lse = -inf;
  if (K == 0) return w;
  const double largest = *std::max_element(score.begin(), score.end());
  const bool all_zero = std::all_of(score.begin(), score.end(), [](double s) { return s == 0; });
  w.p = score;
  reference::softmax(w.p.data(), K);
  w.p_is_one = K == 1 || all_zero;
  double sum = 0, mean_error = 0;
  for (std::size_t i = 0; i < score.size(); ++i) {
    sum += std::exp(score[i] - largest);
    w.e.push_back(w.p_is_one ? 0 : exp_error(std::abs(score[i]) + std::abs(largest), error[i]));
    w.e_max = std::max(w.e_max, w.e.back());
    mean_error += w.p[i] * w.e.back();
  }
  w.lse = largest + std::log(sum);
  const double sum_error =
      mean_error + gamma(K + (function_roundings + 2) * blocks_of(K), u) * (K == 1 ? 0 : 1);
  w.lse_error = sum_error + (K == 1 ? error[0] : 0) +
                gamma(function_roundings + 2, u) * (std::abs(std::log(sum)) + std::abs(largest));
  return w;
}

void sum_values(View<double, 1> out, View<double, 1> allowed, const Weights& w,
                const std::vector<Value>& values, bool rounds_p) {
  const Index n = out.shape[0], K = static_cast<Index>(values.size());
  std::vector<double> size(static_cast<std::size_t>(n)), moved(size);
  for (std::size_t i = 0; i < values.size(); ++i) {
    reference::add_scaled(out.data, w.p[i], values[i].v, n);
    reference::add_scaled(size.data(), w.p[i], values[i].size, n);
    reference::add_scaled(moved.data(), w.p[i] * (1 + w.e_max), values[i].error, n);
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double weight = w.p[i] * w.e[i] * (1 + w.e_max);
    if (weight == 0) continue;
    for (Index r = 0; r < n; ++r)
      moved[static_cast<std::size_t>(r)] += weight * std::abs(values[i].v[r] - out(r));
  }
  const Index blocks = blocks_of(K);
  const double p_rounding = rounds_p && !w.p_is_one ? unit_roundoff_bf16 : 0;
  for (Index r = 0; r < n; ++r) {
    const double all = size[static_cast<std::size_t>(r)];
    const double relative = p_rounding + gamma(K + 2 * blocks, u);
    allowed(r) = K == 0 ? 0
                        : moved[static_cast<std::size_t>(r)] + relative * all +
                              gamma(K + 2 * blocks + 2, u) * std::abs(out(r)) +
                              2 * static_cast<double>(K) * smallest_normal_fp32 * (1 + all);
  }
}

void cancel(Latents& x, Index q_rope, Index kv_rope) {
  const Index P = x.kv.shape()[1] - kv_rope;
  for (Index s = 0; s < x.kv.shape()[0]; ++s)
    for (Index i = 0; i + 1 < P; i += 2) x.kv(s, kv_rope + i + 1) = x.kv(s, kv_rope + i);
  for (Index t = 0; t < x.q.shape()[0]; ++t)
    for (Index n = 0; n < x.q.shape()[1]; ++n) {
      double* const q = &x.q(t, n, 0);
      std::fill_n(q, q_rope, 0.0);
      for (Index i = q_rope; i < q_rope + P; i += 2) {
        if (i + 1 < q_rope + P)
          q[i + 1] = -q[i];
        else
          q[i] = 0;
      }
    }
}

void store_rows(Case& c, Draw& draw, const LatentPlan& plan, Latents& x) {
  if (plan.dtype == "fp8") {
    c.in["kv"] = e4m3_rows(x.kv, plan, draw);
    x.dequantised = plan.powers_of_two ? 0 : unit_roundoff_bf16;
  } else {
    c.in["kv"] = Array(plan.dtype == "fp32" ? Dtype::f32 : Dtype::bf16, {plan.S, plan.R + plan.P},
                       list(x.kv));
  }
}

namespace {

/// Row s of x.kv. A scale that is no power of two costs a rounding.
void decode_row(const std::byte* row, Index R, Index P, Latents& x, Index s) {
  const Index runs = (R + run - 1) / run;
  std::vector<double> scales(static_cast<std::size_t>(runs));
  decode(Dtype::f8_e4m3, row, R, x.kv.view()[s].data);
  decode(Dtype::f32, row + R, runs, scales.data());
  decode(Dtype::bf16, row + R + 4 * runs, P, x.kv.view()[s].data + R);
  for (Index r = 0; r < R; ++r) x.kv(s, r) *= scales[static_cast<std::size_t>(r / run)];
  int exponent = 0;
  for (const double scale : scales)
    if (std::isfinite(scale) && std::frexp(scale, &exponent) != 0.5)
      x.dequantised = unit_roundoff_bf16;
}

}  // namespace

Latents latents_in(const Case& c, Index R) {
  const Array& kv = c.in.at("kv");
  const Index width = kv.shape()[1], runs = (R + run - 1) / run;
  const bool rows = c.dtype == "fp8";
  const Index P = rows ? (width - R - 4 * runs) / 2 : width - R;
  require(R > 0 && P >= 0 && (!rows || R + 4 * runs + 2 * P == width),
          "a row of kv has " + std::to_string(width) + " entries, expected R + P with R " +
              std::to_string(R) + ", in fp8 R + 4 ceil(R/128) + 2 P bytes");
  if (!rows) return {widen<3>(c.in.at("q")), widen<2>(kv)};
  Latents x{widen<3>(c.in.at("q")), Tensor<double, 2>({kv.shape()[0], R + P})};
  for (Index s = 0; s < kv.shape()[0]; ++s) decode_row(kv.bytes().data() + s * width, R, P, x, s);
  return x;
}

void draw_latents(Case& c, Draw& draw, const LatentPlan& plan) {
  const auto& [dtype, T, S, N, R, P, size, powers_of_two] = plan;
  const Dtype stored = dtype == "fp32" ? Dtype::f32 : Dtype::bf16;
  // Scores of about unit size, and not by the scale (R+P)^-1/2 that some kernels take for granted.
  c.scalars = {{"R", static_cast<double>(R)},
               {"scale", 0.8 * size / std::sqrt(static_cast<double>(R + P))}};
  Latents x{widen<3>(draw.numbers(stored, {T, N, R + P})),
            widen<2>(draw.numbers(stored, {S, R + P}))};
  if (c.inputs == Inputs::dyadic) cancel(x, R, R);
  c.in["q"] = Array(stored, {T, N, R + P}, list(x.q));
  store_rows(c, draw, plan, x);
}

std::vector<std::vector<Index>> visible_keys(const Case& c) {
  const auto begin = c.in.at("begin").as<std::int32_t, 1>(),
             end = c.in.at("end").as<std::int32_t, 1>();
  std::vector<std::vector<Index>> keys(static_cast<std::size_t>(begin.size()));
  for (Index t = 0; t < begin.size(); ++t)
    for (Index s = begin(t); s < end(t); ++s) keys[static_cast<std::size_t>(t)].push_back(s);
  return keys;
}

std::vector<bool> seen_keys(const std::vector<std::vector<Index>>& keys, Index S) {
  std::vector<bool> seen(static_cast<std::size_t>(S));
  for (const std::vector<Index>& row : keys)
    for (const Index s : row) seen[static_cast<std::size_t>(s)] = true;
  return seen;
}

void make_unseen_nan(Array& kv, const std::vector<bool>& seen) {
  const std::size_t row = seen.empty() ? 0 : kv.bytes().size() / seen.size();
  for (std::size_t s = 0; s < seen.size(); ++s)
    if (!seen[s]) std::memset(kv.bytes().data() + s * row, 0xff, row);
}

void set_attention(Case& c, const Latents& x, const std::vector<std::vector<Index>>& keys) {
  const Index T = x.q.shape()[0], N = x.q.shape()[1], width = x.q.shape()[2], R = c.integer("R");
  Problem problem{x, magnitude(x.q), magnitude(x.kv), magnitude(x.kv), c.scalar("scale")};
  for (double& error : problem.kv_error) error *= x.dequantised;
  Tensor<double, 3> out({T, N, R}), allowed({T, N, R});
  Tensor<double, 2> lse({T, N}), lse_allowed({T, N});
  parallel_for(T * N, shared_loop_ns, [&](Index at) {
    const Index t = at / N, n = at % N;
    std::vector<Value> values;
    for (const Index s : keys[static_cast<std::size_t>(t)])
      values.push_back(
          {x.kv.view()[s].data, problem.kv_size.view()[s].data, problem.kv_error.view()[s].data});
    const Weights w = weights_of(problem, t, n, keys[static_cast<std::size_t>(t)]);
    lse(t, n) = w.lse, lse_allowed(t, n) = w.lse_error;
    sum_values(out.view()[t][n], allowed.view()[t][n], w, values, c.dtype != "fp32");
  });
  c.out["out"] = Array(Dtype::f32, {T, N, R});
  c.out["lse"] = Array(Dtype::f32, {T, N});
  answer(c, "out", list(out), list(allowed), false);
  answer(c, "lse", list(lse), list(lse_allowed), false);
  double pairs = 0;
  for (const auto& row : keys) pairs += static_cast<double>(row.size());
  c.flops = 2 * pairs * static_cast<double>(N * (width + R));
}

}  // namespace dsa::verify::kernels
