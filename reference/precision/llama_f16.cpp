#include "reference/precision/llama_f16.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "reference/ops/hadamard.hpp"
#include "reference/ops/rope.hpp"

namespace dsa::reference {
namespace {

using In = View<const double, 2>;
using Out = View<double, 2>;
using Name = const std::string&;

bool has_hadamard_matrix(Index size) { return std::has_single_bit(static_cast<std::size_t>(size)); }

void cache(const Rounded& run, Name name, Out x) {
  const bool rotates = name.ends_with("indexer.k") && has_hadamard_matrix(x.shape[1]);
  if (rotates) hadamard(x);
  run.round_all(name, x, Dtype::f16, 0);
  if (rotates) hadamard(x);  // its own inverse, so that the query need not be rotated
}

/// A query beside an f16 row.
Tensor<double, 3> in_f16(const Rounded& run, Name name, View<const double, 3> q) {
  Tensor<double, 3> rounded(q.shape);
  std::copy(q.begin(), q.end(), rounded.begin());
  run.round_all(name, {rounded.data(), {q.size(), 1}}, Dtype::f16, 0);
  return rounded;
}

void rope_table(const Rounded& run, Name name, Out cos, Out sin, std::span<const Index> positions,
                const Rope& rope) {
  const Index T = cos.shape[0], half = cos.shape[1];
  const Dtype f32 = run.formats.wide;
  const Stream base(run.rounding, name, 0), turn(run.rounding, name, 1), c(run.rounding, name, 2),
      s(run.rounding, name, 3);
  const std::vector<double> frequencies = rope_frequencies<double>(rope, 2 * half);
  const double ratio = std::pow(rope.theta, -1.0 / static_cast<double>(half));
  const double drift = base.round(f32, ratio, 0) / ratio;
  const double factor = rope_attention_factor(rope);
  for (Index t = 0; t < T; ++t)
    for (Index i = 0; i < half; ++i) {
      const Index at = t * half + i;
      double angle = static_cast<double>(positions[static_cast<std::size_t>(t)]) *
                     frequencies[static_cast<std::size_t>(i)] *
                     std::pow(drift, static_cast<double>(i));
      for (Index step = 0; step <= i; ++step) angle = turn.round(f32, angle, at * half + step);
      cos(t, i) = c.round(f32, std::cos(angle) * factor, at);
      sin(t, i) = s.round(f32, std::sin(angle) * factor, at);
    }
}

}  // namespace

Ops<double> llama_f16_ops(const Rounded& run) {
  Rounded narrow = run;
  narrow.formats.values = Dtype::f16;
  Ops<double> ops = narrow.ops();
  ops.cache = [=](Name name, Out x) { cache(run, name, x); };
  ops.rope_table = [=](Name name, auto&&... a) { rope_table(run, name, a...); };
  ops.indexer_scores = [=](Name name, Out scores, View<const double, 3> q, auto&&... a) {
    run.indexer_scores(name, scores, in_f16(run, name + ".q", q), a...);
  };
  ops.mla_expanded = [=](Name name, View<double, 3> out, View<const double, 3> q_nope,
                         View<const double, 3> q_rope, auto&&... a) {
    narrow.mla(name, out, in_f16(run, name + ".q_nope", q_nope),
               in_f16(run, name + ".q_rope", q_rope), a...);
  };
  return ops;
}

}  // namespace dsa::reference
