// The router: scores, groups, weights.
#include "reference/ops/router.hpp"

#include "python/bindings/arrays.hpp"

namespace dsa::python {
namespace {

Router::Scoring scoring_of(bool softmax) {
  return softmax ? Router::Scoring::softmax : Router::Scoring::sigmoid;
}

/// Error: E experts are not G groups of one size.
void expect_groups(Index E, Index G) {
  require(G > 0 && E % G == 0, "there are " + std::to_string(G) + " groups of " +
                                   std::to_string(E) + " experts, expected groups of one size");
}

nb::object router_scores(const Numbers& z, bool softmax) {
  Tensor<double, 2> s(view<2>("z", z).shape);
  reference::router_scores<double>(s, view<2>("z", z), scoring_of(softmax));
  return as_numpy(s);
}

nb::object router_scores_backward(const Numbers& s, const Numbers& d_s, bool softmax) {
  Tensor<double, 2> d_z(view<2>("s", s).shape);
  reference::router_scores_backward<double>(d_z, view<2>("s", s), view<2>("d_s", d_s),
                                            scoring_of(softmax));
  return as_numpy(d_z);
}

nb::object router_group_scores(const Numbers& choice, Index G, bool maximum) {
  const auto rows = view<2>("choice", choice);
  expect_groups(rows.shape[1], G);
  Tensor<double, 2> groups({rows.shape[0], G});
  reference::router_group_scores<double>(
      groups, rows, maximum ? Router::Groups::maximum : Router::Groups::sum_of_two);
  return as_numpy(groups);
}

nb::object router_drop_groups(const Numbers& choice, const Integers& kept, Index G,
                              double dropped) {
  Tensor<double, 2> left = copied(view<2>("choice", choice));
  const auto groups = view<2>("kept", kept);
  expect_groups(left.shape()[1], G);
  expect_shape("kept", groups, {left.shape()[0], groups.shape[1]});
  reference::router_drop_groups<double>(left, groups, G, dropped);
  return as_numpy(left);
}

/// experts (T, k) of the E that s (T, E) speaks of.
View<const Index, 2> experts_of(const Integers& experts, View<const double, 2> s) {
  const auto chosen = view<2>("experts", experts);
  expect_shape("experts", chosen, {s.shape[0], chosen.shape[1]});
  expect_subscripts("experts", {chosen.data, static_cast<std::size_t>(chosen.size())}, 0,
                    s.shape[1]);
  return chosen;
}

nb::object router_weights(const Numbers& s, const Integers& experts, bool normalise, double scale) {
  const auto scores = view<2>("s", s);
  const auto chosen = experts_of(experts, scores);
  Tensor<double, 2> weights(chosen.shape);
  reference::router_weights<double>(weights, scores, chosen, normalise, scale);
  return as_numpy(weights);
}

nb::object router_weights_backward(const Numbers& s, const Integers& experts,
                                   const Numbers& d_weights, bool normalise, double scale) {
  const auto scores = view<2>("s", s);
  const auto chosen = experts_of(experts, scores);
  Tensor<double, 2> d_s(scores.shape);
  reference::router_weights_backward<double>(d_s, scores, chosen, view<2>("d_weights", d_weights),
                                             normalise, scale);
  return as_numpy(d_s);
}

}  // namespace

void bind_router(nb::module_& m) {
  m.def("router_scores", &router_scores);
  m.def("router_scores_backward", &router_scores_backward);
  m.def("router_group_scores", &router_group_scores);
  m.def("router_drop_groups", &router_drop_groups);
  m.def("router_weights", &router_weights);
  m.def("router_weights_backward", &router_weights_backward);
}

}  // namespace dsa::python
