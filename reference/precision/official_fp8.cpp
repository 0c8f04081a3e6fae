#include "reference/precision/official_fp8.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/threads.hpp"
#include "reference/ops/dot.hpp"
#include "reference/ops/hadamard.hpp"

namespace dsa::reference {
namespace {

constexpr Index block = 128;

using In = View<const double, 2>;
using Out = View<double, 2>;
using Name = const std::string&;

Tensor<double, 2> copy_of(In x) {
  Tensor<double, 2> y(x.shape);
  std::copy(x.begin(), x.end(), y.begin());
  return y;
}

Tensor<double, 2> scales_for(In x) {
  return Tensor<double, 2>({x.shape[0], (x.shape[1] + block - 1) / block});
}

/// x through e4m3 and back.
void round_trip(Out x, bool ue8m0) {
  Tensor<double, 2> scales = scales_for(x);
  quantise_e4m3(x, scales, block, ue8m0);
  for (Index r = 0; r < x.shape[0]; ++r)
    for (Index c = 0; c < x.shape[1]; ++c) x(r, c) *= scales(r, c / block);
}

/// rotate_activation (bf16 out), then act_quant: rows of x become e4m3 numbers; a scale a row.
Tensor<double, 2> rotated_and_quantised(Out x, bool ue8m0) {
  hadamard(x);
  for (double& value : x) value = round_to(Dtype::bf16, value);
  Tensor<double, 2> scales({x.shape[0], 1});
  quantise_e4m3(x, scales, x.shape[1], ue8m0);
  return scales;
}

void rmsnorm(const Rounded& run, Name name, Out y, In x, const Parameter& g, double eps) {
  const Stream root(run.rounding, name, 0), product(run.rounding, name, 1),
      stored(run.rounding, name, 2);
  const std::vector<double> gain = read_all<double>(g);
  const Index C = x.shape[1];
  for (Index t = 0; t < x.shape[0]; ++t) {
    const double x2 = dot(x[t].data, x[t].data, C) / static_cast<double>(C);
    const double r = root.round(Dtype::f32, 1 / std::sqrt(x2 + eps), t);
    for (Index c = 0; c < C; ++c) {
      const Index i = t * C + c;
      const double n = product.round(Dtype::f32, x(t, c) * r, i);
      y(t, c) = stored.round(Dtype::bf16, gain[static_cast<std::size_t>(c)] * n, i);
    }
  }
}

void indexer_scores(const Rounded& run, bool ue8m0, Name name, Out scores, View<const double, 3> q,
                    In k, In w, const Indexer& indexer, const Visibility& visible) {
  const Index T = q.shape[0], H = q.shape[1], D = q.shape[2], S = k.shape[0];
  Tensor<double, 2> q8 = copy_of({q.data, {T * H, D}}), k8 = copy_of(k);
  const Tensor<double, 2> q_scale = rotated_and_quantised(q8, ue8m0);
  const Tensor<double, 2> k_scale = rotated_and_quantised(k8, ue8m0);
  const bool relu = indexer.activation == Indexer::Activation::relu;
  const Stream weighted(run.rounding, name, 0), sum(run.rounding, name, 1),
      scaled(run.rounding, name, 2);
  parallel_for(T, S * H * (20 + D / 4), [&](Index t) {
    for (Index s = 0; s < S; ++s) {
      if (!visible.sees(t, s)) {
        scores(t, s) = -std::numeric_limits<double>::infinity();
        continue;
      }
      double y = 0, squares = 0;
      for (Index h = 0; h < H; ++h) {
        const double weight = weighted.round(
            Dtype::f32, w(t, h) * indexer.weight_scale * q_scale(t * H + h, 0) * indexer.dot_scale,
            t * H + h);
        const double a = dot(q8.view()[t * H + h].data, k8.view()[s].data, D);
        const double term = weight * (relu ? std::max(a, 0.0) : a);
        y += term;
        squares += term * term;
      }
      const Index i = t * S + s;
      y = sum.round(Dtype::f32, y + sum.accumulation(Dtype::f32, H, squares, y, i), i);
      scores(t, s) = scaled.round(Dtype::f32, y * k_scale(s, 0), i);
    }
  });
}

}  // namespace

void quantise_e4m3(View<double, 2> x, View<double, 2> scales, Index width, bool ue8m0) {
  const Index rows = x.shape[0], C = x.shape[1];
  expect_shape("scales", scales, {rows, (C + width - 1) / width});
  for (Index r = 0; r < rows; ++r)
    for (Index b = 0; b < scales.shape[1]; ++b) {
      const Index begin = b * width, end = std::min(C, begin + width);
      double amax = 1e-4;
      for (Index c = begin; c < end; ++c) amax = std::max(amax, std::abs(x(r, c)));
      double scale = round_to(Dtype::f32, amax * round_to(Dtype::f32, 1 / 448.0));
      if (ue8m0) scale = std::exp2(std::ceil(std::log2(scale)));
      scales(r, b) = scale;
      for (Index c = begin; c < end; ++c)
        x(r, c) = round_to(Dtype::f8_e4m3,
                           std::clamp(round_to(Dtype::f32, x(r, c) / scale), -448.0, 448.0));
    }
}

Ops<double> official_fp8_ops(const Rounded& run, const Config& config) {
  const bool ue8m0 = config.fp8_scale_ue8m0;
  Ops<double> ops = run.ops();
  ops.linear = [=](Name name, Out y, In x, const Linear& w) {
    if (name == "lm_head" || name.ends_with("shared_head.head"))
      return run.linear(name, y, x, w, Dtype::f32);
    if (!w.weight.quantised()) return run.linear(name, y, x, w, Dtype::bf16);
    Tensor<double, 2> x8 = copy_of(x);
    round_trip(x8, ue8m0);
    run.linear(name, y, x8, w, Dtype::bf16);
  };
  ops.rmsnorm = [=](Name name, auto&&... a) { rmsnorm(run, name, a...); };
  ops.indexer_scores = [=](Name name, auto&&... a) { indexer_scores(run, ue8m0, name, a...); };
  ops.cache = [=](Name name, Out x) {
    if (!name.ends_with("kv_a_layernorm")) return;
    round_trip(x, ue8m0);
    for (double& value : x) value = round_to(Dtype::bf16, value);
  };
  ops.accumulate = [=](Name name, Out y, In x, std::span<const Index> rows,
                       std::span<const double> weights) {
    Rounded wide = run;
    wide.formats.model = Dtype::f32;
    wide.accumulate(name, y, x, rows, weights);
  };
  return ops;
}

}  // namespace dsa::reference
