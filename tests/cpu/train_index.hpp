// tests/cpu/train_index.hpp — an indexer in training and what it learns from, with the errors that
// rounding makes.
#pragma once

#include <limits>

#include "core/views.hpp"
#include "optimized/cpu/ops/index_scores.hpp"
#include "reference/ops/indexer_scores.hpp"
#include "tests/catch.hpp"
#include "tests/cpu/train_problem.hpp"

namespace dsa::test {

using ChosenKeys = Tensor<std::int32_t, 2>;

struct IndexSizes {
  Packed documents;
  Index H, D, N, C, K;
};

template <class T>
struct Gradient {
  Tensor<T, 3> d_q;
  Tensor<T, 2> d_k, d_w;
  Gradient(Index rows, const IndexSizes& z, T fill)
      : d_q({rows, z.H, z.D}, fill), d_k({rows, z.D}, fill), d_w({rows, z.H}, fill) {}
};

inline bool same(const Gradient<float>& a, const Gradient<float>& b) {
  return same_bits(a.d_q, b.d_q) && same_bits(a.d_k, b.d_k) && same_bits(a.d_w, b.d_w);
}

/// The indexer and what it learns from, with their errors.
struct IndexProblem {
  IndexSizes z;
  Index T;
  bool relu = true, uniform = false;
  Indexer indexer;
  Tensor<std::int32_t, 1> begin;
  Tensor<float, 3> q, teacher_q, teacher_k;
  Tensor<float, 2> k, w, lse_visible, lse_chosen;
  std::vector<Index> documents;
  ChosenKeys visible, chosen;
  Tensor<float, 1> weight;
  double teacher_scale = 0.3;

  explicit IndexProblem(IndexSizes sizes, bool with_relu = true, bool uniform_weights = false)
      : z(sizes),
        T(z.documents.rows()),
        relu(with_relu),
        uniform(uniform_weights),
        begin(z.documents.begin()),
        q(draw<3>({T, z.H, z.D}, 11)),
        teacher_q(draw<3>({T, z.N, z.C}, 12)),
        teacher_k(draw<3>({T, z.N, z.C}, 13)),
        k(draw<2>({T, z.D}, 14)),
        w(uniform ? Tensor<float, 2>({T, z.H}, 1.0f) : draw<2>({T, z.H}, 15)),
        documents(begin.begin(), begin.end()),
        visible(all_visible(begin)),
        chosen(draw_chosen(begin, z.K, 16)),
        weight({T}) {
    indexer.activation = relu ? Indexer::Activation::relu : Indexer::Activation::none;
    indexer.dot_scale = 1 / std::sqrt(static_cast<double>(z.D));
    indexer.weight_scale = 1 / std::sqrt(static_cast<double>(z.H));
    // Rows without weight, and weights that are no powers of two.
    for (Index t = 0; t < T; ++t) weight(t) = t % 7 == 3 ? 0 : 0.3f + 0.01f * static_cast<float>(t);
    lse_visible = lse_over(visible);
    lse_chosen = lse_over(chosen);
  }

  cpu::IndexIn in() const {
    return {q,
            k,
            uniform ? View<const float, 2>{} : w.view(),
            begin,
            indexer.dot_scale,
            indexer.weight_scale,
            relu};
  }
  /// Queries [from, to) and the keys up to there.
  cpu::IndexIn in(Index from, Index to) const {
    cpu::IndexIn part = in();
    part.q = rows(part.q, from, to);
    part.k = rows(part.k, 0, to);
    if (!uniform) part.w = rows(part.w, from, to);
    part.begin = rows(part.begin, 0, to);
    return part;
  }
  cpu::IndexGradient gradient(Gradient<float>& d) const {
    return {d.d_q, d.d_k, uniform ? View<float, 2>{} : d.d_w.view()};
  }

  double dot(Index t, Index h, Index s) const {
    return indexer.dot_scale * dot_of(&q(t, h, 0), &k(s, 0), z.D);
  }
  double dot_error(Index t, Index h, Index s) const {
    return verify::gamma(z.D + 2, verify::unit_roundoff_fp32) * indexer.dot_scale *
           size_of_dot(&q(t, h, 0), &k(s, 0), z.D);
  }
  double act(double a) const { return relu ? std::max(0.0, a) : a; }
  double score(Index t, Index s) const {
    double sum = 0;
    for (Index h = 0; h < z.H; ++h) sum += indexer.weight_scale * w(t, h) * act(dot(t, h, s));
    return sum;
  }
  double score_error(Index t, Index s) const {
    double sum = 0;
    for (Index h = 0; h < z.H; ++h)
      sum += std::abs(indexer.weight_scale * w(t, h)) *
             (dot_error(t, h, s) +
              verify::gamma(z.H + 4, verify::unit_roundoff_fp32) * std::abs(act(dot(t, h, s))));
    return sum;
  }
  double teacher_score(Index t, Index n, Index s) const {
    return teacher_scale * dot_of(&teacher_q(t, n, 0), &teacher_k(s, n, 0), z.C);
  }
  double teacher_error(Index t, Index n, Index s) const {
    return verify::gamma(z.C + 2, verify::unit_roundoff_fp32) * teacher_scale *
           size_of_dot(&teacher_q(t, n, 0), &teacher_k(s, n, 0), z.C);
  }

  Tensor<double, 2> scores() const {
    Tensor<double, 2> all({T, T}, -std::numeric_limits<double>::infinity());
    for (Index t = 0; t < T; ++t)
      for (Index s = begin(t); s <= t; ++s) all(t, s) = score(t, s);
    return all;
  }

  /// By the reference, from the gradient of the scores.
  Gradient<double> expected(const Tensor<double, 2>& d_scores) const {
    Gradient<double> d(T, z, 0.0);
    const auto q64 = as_numbers<double>(q);
    const auto k64 = as_numbers<double>(k), w64 = as_numbers<double>(w);
    reference::indexer_scores_backward<double>({d.d_q, d.d_k, d.d_w}, {q64, k64, w64}, d_scores,
                                               indexer, {0, documents});
    return d;
  }

  /// Of the gradients, where d_scores is wrong by up to `error`.
  Gradient<double> bounds(const Tensor<double, 2>& d_scores, const Tensor<double, 2>& error) const {
    Gradient<double> bound(T, z, 1e-30);
    const double b = indexer.weight_scale, c = indexer.dot_scale;
    for (Index t = 0; t < T; ++t)
      for (Index s = begin(t); s <= t; ++s)
        for (Index h = 0; h < z.H; ++h) {
          const double a = dot(t, h, s), a_error = dot_error(t, h, s);
          const bool flips = relu && std::abs(a) <= a_error;  // rounding decides whether a > 0
          if (relu && a < 0 && !flips) continue;
          const double d = std::abs(d_scores(t, s)), d_error = error(t, s) + (flips ? d : 0);
          bound.d_w(t, h) +=
              b * (std::abs(a) * (d_error + verify::gamma(T + 4, verify::unit_roundoff_fp32) * d) +
                   a_error * d);
          const double d_a = c * b * std::abs(w(t, h));
          for (Index i = 0; i < z.D; ++i) {
            bound.d_q(t, h, i) += d_a *
                                  (d_error + verify::gamma(T + 6, verify::unit_roundoff_fp32) * d) *
                                  std::abs(k(s, i));
            bound.d_k(s, i) +=
                d_a * (d_error + verify::gamma(T * z.H + 6, verify::unit_roundoff_fp32) * d) *
                std::abs(q(t, h, i));
          }
        }
    return bound;
  }

  void check(const Gradient<float>& got, const Tensor<double, 2>& d_scores,
             const Tensor<double, 2>& error) const {
    const Gradient<double> y = expected(d_scores), bound = bounds(d_scores, error);
    CHECK(wrong(got.d_q, y.d_q, bound.d_q) == 0);
    CHECK(wrong(got.d_k, y.d_k, bound.d_k) == 0);
    if (!uniform) CHECK(wrong(got.d_w, y.d_w, bound.d_w) == 0);
    if (T > 1) CHECK(is_tight(y.d_k, bound.d_k, 1e-2));
  }

 private:
  Tensor<float, 2> lse_over(const ChosenKeys& keys) const {
    Tensor<float, 2> lse({T, z.N});
    for (Index t = 0; t < T; ++t)
      for (Index n = 0; n < z.N; ++n) {
        double sum = 0;
        for (Index s : keys_of_row(keys, t)) sum += std::exp(teacher_score(t, n, s));
        lse(t, n) = static_cast<float>(std::log(sum));
      }
    return lse;
  }
};

inline const std::vector<IndexSizes> index_sizes = {
    {{{1}}, 1, 1, 1, 1, 1},
    {{{5, 1, 1, 9}}, 3, 5, 2, 3, 4},
    {{{30, 1, 71}}, 4, 32, 9, 16, 12},
};

}  // namespace dsa::test
