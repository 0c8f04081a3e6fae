// The lightning indexer: scores, selection and loss.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "python/bindings/arrays.hpp"
#include "reference/ops/index_kl.hpp"
#include "reference/ops/indexer_scores.hpp"
#include "reference/ops/topk_select.hpp"

namespace dsa::python {
namespace {

Indexer indexer_with(double dot_scale, double weight_scale, bool relu) {
  Indexer indexer;
  indexer.dot_scale = dot_scale, indexer.weight_scale = weight_scale;
  indexer.activation = relu ? Indexer::Activation::relu : Indexer::Activation::none;
  return indexer;
}

/// Error: fewer documents than queries and keys need.
reference::Visibility visibility(Index first, std::span<const Index> documents, Index T, Index S) {
  const auto n = static_cast<Index>(documents.size());
  require(0 <= first && first <= n - T && S <= n,
          "there are " + std::to_string(n) + " documents' entries and first is " +
              std::to_string(first) + ", expected an entry a key, and the " + std::to_string(T) +
              " queries to lie within them");
  return {first, documents};
}

nb::object indexer_scores(const Numbers& q, const Numbers& k, const Numbers& w, double dot_scale,
                          double weight_scale, bool relu, Index first, const Integers& documents) {
  const auto queries = view<3>("q", q);
  const auto keys = view<2>("k", k);
  const Index T = queries.shape[0], S = keys.shape[0];
  const auto visible = visibility(first, list("documents", documents), T, S);
  Tensor<double, 2> scores({T, S});
  reference::indexer_scores<double>(scores, queries, keys, view<2>("w", w),
                                    indexer_with(dot_scale, weight_scale, relu), visible);
  return as_numpy(scores);
}

nb::dict indexer_scores_backward(const Numbers& q, const Numbers& k, const Numbers& w,
                                 const Numbers& d_scores, double dot_scale, double weight_scale,
                                 bool relu, Index first, const Integers& documents) {
  const auto queries = view<3>("q", q);
  const auto keys = view<2>("k", k), weights = view<2>("w", w);
  const auto [T, H, D] = queries.shape;
  expect_shape("k", keys, {keys.shape[0], D});
  expect_shape("w", weights, {T, H});
  const auto visible = visibility(first, list("documents", documents), T, keys.shape[0]);
  Tensor<double, 3> d_q(queries.shape);
  Tensor<double, 2> d_k(keys.shape), d_w(weights.shape);
  reference::indexer_scores_backward<double>({d_q, d_k, d_w}, {queries, keys, weights},
                                             view<2>("d_scores", d_scores),
                                             indexer_with(dot_scale, weight_scale, relu), visible);
  nb::dict d;
  d["d_q"] = as_numpy(d_q), d["d_k"] = as_numpy(d_k), d["d_w"] = as_numpy(d_w);
  return d;
}

nb::object topk_select(const Numbers& scores, Index K) {
  const auto rows = view<2>("scores", scores);
  require(0 <= K && K <= Index{1} << 20,
          "k is " + std::to_string(K) + ", expected a number of keys, 2^20 at most");
  Tensor<Index, 2> chosen({rows.shape[0], K});
  reference::topk_select<double>(chosen, rows);
  return as_numpy(chosen);
}

/// The arguments of the loss and of its gradient. Error: their shapes contradict one another.
struct Kl {
  reference::KlInputs<double> in;
  std::span<const double> weights;
  KlSemantics semantics;

  Kl(const Numbers& scores, const Numbers& u, const Integers& keys, const Numbers& w,
     const std::string& name, bool warmup, double scale)
      : in{view<2>("scores", scores), view<2>("u", u), view<2>("keys", keys), scale},
        weights(list("weights", w)),
        semantics(warmup ? in_warmup(semantics_named(name)) : semantics_named(name)) {
    const auto [T, S] = in.scores.shape;
    expect_shape("u", in.u, {T, S});
    expect_shape("keys", in.keys, {T, in.keys.shape[1]});
    expect_shape("weights", view<1>("weights", w), {T});
    expect_subscripts("keys", {in.keys.data, static_cast<std::size_t>(in.keys.size())}, -1, S);
  }
};

double index_kl(const Numbers& scores, const Numbers& u, const Integers& keys, const Numbers& w,
                const std::string& name, bool warmup, double scale) {
  const Kl kl(scores, u, keys, w, name, warmup, scale);
  return reference::index_kl<double>(kl.in, kl.weights, kl.semantics);
}

nb::object index_kl_backward(const Numbers& scores, const Numbers& u, const Integers& keys,
                             const Numbers& w, const std::string& name, bool warmup, double scale) {
  const Kl kl(scores, u, keys, w, name, warmup, scale);
  Tensor<double, 2> d_scores(kl.in.scores.shape);
  reference::index_kl_backward<double>(d_scores, kl.in, kl.weights, kl.semantics);
  return as_numpy(d_scores);
}

}  // namespace

void bind_indexer(nb::module_& m) {
  m.def("indexer_scores", &indexer_scores);
  m.def("indexer_scores_backward", &indexer_scores_backward);
  m.def("topk_select", &topk_select);
  m.def("index_kl", &index_kl);
  m.def("index_kl_backward", &index_kl_backward);
}

}  // namespace dsa::python
