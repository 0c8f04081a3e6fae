#include "optimized/train/model/head.hpp"

#include <algorithm>

#include "core/views.hpp"
#include "optimized/cpu/ops/cross_entropy.hpp"

namespace dsa::train {
namespace {

/// The first n rows of a buffer.
template <class T>
View<T, 2> first(View<T, 2> x, Index n) {
  return rows(x, 0, n);
}

/// Some of the rows that have a target.
struct Some {
  const std::int32_t *rows, *tokens;
  const float* weights;
  Index n;
};

void gather(View<float, 2> y, View<const float, 2> x, const Some& some) {
  const Index C = x.shape[1];
  for (Index i = 0; i < some.n; ++i) std::copy_n(x.data + some.rows[i] * C, C, y.data + i * C);
}

void scatter_add(View<float, 2> y, View<const float, 2> x, const Some& some) {
  const Index C = x.shape[1];
  for (Index i = 0; i < some.n; ++i)
    for (Index c = 0; c < C; ++c) y.data[some.rows[i] * C + c] += x.data[i * C + c];
}

double loss_of(const Pass& pass, const HeadBuffers& b, const Head& head, const Some& some,
               View<const float, 2> x, double factor, View<float, 2> d_x) {
  const double eps = pass.config.rms_norm_eps;
  const View<float, 2> mine = first(b.x, some.n), h = first(b.h, some.n),
                       z = first(b.logits, some.n);
  gather(mine, x, some);
  rmsnorm(pass, h, mine, head.norm, eps);
  linear(pass, z, h, head.matrix);
  const bool back = factor != 0;
  for (Index i = 0; i < some.n && back; ++i)
    b.factor.data[i] = static_cast<float>(factor * static_cast<double>(some.weights[i]));
  const View<float, 1> factors{back ? b.factor.data : nullptr, {some.n}};
  cpu::cross_entropy(pass.cpu, {b.loss.data, {some.n}}, z, {some.tokens, {some.n}}, factors);
  double loss = 0;
  for (Index i = 0; i < some.n; ++i) loss += static_cast<double>(some.weights[i]) * b.loss.data[i];
  if (!back) return loss;
  const bool wanted = d_x.data || head.norm.wanted;
  const View<float, 2> d_h = wanted ? first(b.d_h, some.n) : View<float, 2>{};
  linear_backward(pass, d_h, h, head.matrix, z);
  if (!wanted) return loss;
  const View<float, 2> d_mine = first(b.d_x, some.n);
  rmsnorm_backward(pass, d_mine, mine, head.norm, eps, d_h);
  if (d_x.data) scatter_add(d_x, d_mine, some);
  return loss;
}

}  // namespace

void Targets::clear() {
  rows.clear();
  tokens.clear();
  weights.clear();
}

void Targets::add(Index row, Token token, float weight) {
  rows.push_back(static_cast<std::int32_t>(row));
  tokens.push_back(static_cast<std::int32_t>(token));
  weights.push_back(weight);
}

double Targets::total_weight() const {
  double sum = 0;
  for (const float w : weights) sum += static_cast<double>(w);
  return sum;
}

double head_loss(const Pass& pass, const HeadBuffers& b, const Head& head, const Targets& targets,
                 View<const float, 2> x, double factor, View<float, 2> d_x) {
  double loss = 0;
  const auto all = static_cast<Index>(targets.rows.size());
  for (Index begin = 0; begin < all; begin += b.rows) {
    const Some some{targets.rows.data() + begin, targets.tokens.data() + begin,
                    targets.weights.data() + begin, std::min(b.rows, all - begin)};
    loss += loss_of(pass, b, head, some, x, factor, d_x);
  }
  return loss;
}

void head_logits(const Pass& pass, const HeadBuffers& b, const Head& head, View<float, 2> logits,
                 View<const float, 2> x) {
  const Index T = x.shape[0];
  for (Index begin = 0; begin < T; begin += b.rows) {
    const Index end = std::min(begin + b.rows, T);
    const View<float, 2> h = first(b.h, end - begin);
    rmsnorm(pass, h, rows(x, begin, end), head.norm, pass.config.rms_norm_eps);
    linear(pass, rows(logits, begin, end), h, head.matrix);
  }
}

}  // namespace dsa::train
