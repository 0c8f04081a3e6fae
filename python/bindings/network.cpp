// The ops between attention and router: rows, norms, products, rotations.
#include <nanobind/stl/optional.h>

#include "python/bindings/arrays.hpp"
#include "reference/ops/accumulate.hpp"
#include "reference/ops/embed.hpp"
#include "reference/ops/hadamard.hpp"
#include "reference/ops/linear.hpp"
#include "reference/ops/norms.hpp"
#include "reference/ops/rope.hpp"
#include "reference/ops/swiglu.hpp"

namespace dsa::python {
namespace {

/// A matrix or a vector as the reference takes weights; it must outlive the result.
template <int Rank>
Parameter parameter(const char* name, View<const double, Rank> x) {
  Parameter p;
  p.name = name, p.dtype = Dtype::f64, p.shape = {x.shape.begin(), x.shape.end()};
  p.data = reinterpret_cast<const std::byte*>(x.data);
  return p;
}

RopeLayout layout_of(bool interleaved) {
  return interleaved ? RopeLayout::interleaved : RopeLayout::half;
}

nb::object embed(const Integers& tokens, const Numbers& table) {
  const auto rows = view<2>("table", table);
  const auto wanted = list("tokens", tokens);
  Tensor<double, 2> x({static_cast<Index>(wanted.size()), rows.shape[1]});
  reference::embed<double>(x, wanted, parameter("table", rows));
  return as_numpy(x);
}

nb::object embed_backward(const Integers& tokens, const Numbers& d_x, Index vocabulary) {
  const auto given = view<2>("d_x", d_x);
  require(0 <= vocabulary && vocabulary <= Index{1} << 24,
          "vocab_size is " + std::to_string(vocabulary) + ", expected 0 to 2^24");
  Tensor<double, 2> d_table({vocabulary, given.shape[1]});
  reference::embed_backward<double>(d_table, list("tokens", tokens), given);
  return as_numpy(d_table);
}

nb::object linear(const Numbers& x, const Numbers& w, const std::optional<Numbers>& bias) {
  const auto rows = view<2>("x", x), weight = view<2>("w", w);
  Linear layer{parameter("w", weight), {}};
  if (bias) {
    const auto b = view<1>("bias", *bias);
    expect_shape("bias", b, {weight.shape[0]});
    layer.bias = parameter("bias", b);
  }
  expect_shape("w", weight, {weight.shape[0], rows.shape[1]});
  Tensor<double, 2> y({rows.shape[0], weight.shape[0]});
  reference::linear<double>(y, rows, layer);
  return as_numpy(y);
}

nb::dict linear_backward(const Numbers& x, const Numbers& w, const Numbers& d_y) {
  const auto rows = view<2>("x", x), weight = view<2>("w", w);
  expect_shape("w", weight, {weight.shape[0], rows.shape[1]});
  Tensor<double, 2> d_x(rows.shape), d_w(weight.shape);
  Tensor<double, 1> d_bias({weight.shape[0]});
  reference::linear_backward<double>(d_x, {d_w, d_bias}, rows, {parameter("w", weight), {}},
                                     view<2>("d_y", d_y));
  nb::dict d;
  d["d_x"] = as_numpy(d_x), d["d_w"] = as_numpy(d_w), d["d_bias"] = as_numpy(d_bias);
  return d;
}

nb::object rmsnorm(const Numbers& x, const Numbers& g, double eps) {
  Tensor<double, 2> y(view<2>("x", x).shape);
  reference::rmsnorm<double>(y, view<2>("x", x), view<1>("g", g), eps);
  return as_numpy(y);
}

nb::dict rmsnorm_backward(const Numbers& x, const Numbers& g, const Numbers& d_y, double eps) {
  Tensor<double, 2> d_x(view<2>("x", x).shape);
  Tensor<double, 1> d_g(view<1>("g", g).shape);
  reference::rmsnorm_backward<double>(d_x, d_g, view<2>("x", x), view<1>("g", g),
                                      view<2>("d_y", d_y), eps);
  nb::dict d;
  d["d_x"] = as_numpy(d_x), d["d_g"] = as_numpy(d_g);
  return d;
}

nb::object layernorm(const Numbers& x, const Numbers& g, const Numbers& b, double eps) {
  Tensor<double, 2> y(view<2>("x", x).shape);
  reference::layernorm<double>(y, view<2>("x", x), view<1>("g", g), view<1>("b", b), eps);
  return as_numpy(y);
}

nb::dict layernorm_backward(const Numbers& x, const Numbers& g, const Numbers& d_y, double eps) {
  Tensor<double, 2> d_x(view<2>("x", x).shape);
  Tensor<double, 1> d_g(view<1>("g", g).shape), d_b(d_g);
  reference::layernorm_backward<double>(d_x, {d_g, d_b}, view<2>("x", x), view<1>("g", g),
                                        view<2>("d_y", d_y), eps);
  nb::dict d;
  d["d_x"] = as_numpy(d_x), d["d_g"] = as_numpy(d_g), d["d_b"] = as_numpy(d_b);
  return d;
}

nb::object hadamard(const Numbers& x) {
  Tensor<double, 2> y = copied(view<2>("x", x));
  reference::hadamard<double>(y);
  return as_numpy(y);
}

nb::object hadamard_backward(const Numbers& d_y) {
  Tensor<double, 2> d_x = copied(view<2>("d_y", d_y));
  reference::hadamard_backward<double>(d_x);
  return as_numpy(d_x);
}

/// The pairs of x by their angles, or back.
nb::object turned(const Numbers& x, const Numbers& cos, const Numbers& sin, bool interleaved,
                  bool backward) {
  Tensor<double, 3> y = copied(view<3>("x", x));
  (backward ? reference::rope_backward<double> : reference::rope<double>)(y, view<2>("cos", cos),
                                                                          view<2>("sin", sin),
                                                                          layout_of(interleaved));
  return as_numpy(y);
}

nb::object rope_table(const Integers& positions, Index P, const nb::dict& parameters) {
  require(0 <= P && P <= 1 << 16 && P % 2 == 0,
          "P is " + std::to_string(P) + ", expected an even number up to 65536");
  Rope rope;
  const auto number = [&](const char* name, double& value) {
    if (parameters.contains(name)) value = nb::cast<double>(parameters[name]);
  };
  number("theta", rope.theta), number("factor", rope.factor);
  number("original_max_position_embeddings", rope.original_max_position_embeddings);
  number("beta_fast", rope.beta_fast), number("beta_slow", rope.beta_slow);
  number("mscale", rope.mscale), number("mscale_all_dim", rope.mscale_all_dim);
  rope.yarn = nb::cast<bool>(parameters["yarn"]);
  const auto at = list("positions", positions);
  Tensor<double, 2> cos({static_cast<Index>(at.size()), P / 2}), sin(cos.shape());
  reference::rope_table<double>(cos, sin, at, rope);
  return nb::make_tuple(as_numpy(cos), as_numpy(sin));
}

nb::object swiglu(const Numbers& gate, const Numbers& up) {
  const auto g = view<2>("gate", gate);
  expect_shape("up", view<2>("up", up), g.shape);
  Tensor<double, 2> h(g.shape);
  reference::swiglu<double>(h, g, view<2>("up", up));
  return as_numpy(h);
}

nb::dict swiglu_backward(const Numbers& gate, const Numbers& up, const Numbers& d_h) {
  Tensor<double, 2> d_gate(view<2>("gate", gate).shape), d_up(d_gate);
  reference::swiglu_backward<double>(d_gate, d_up, view<2>("gate", gate), view<2>("up", up),
                                     view<2>("d_h", d_h));
  nb::dict d;
  d["d_gate"] = as_numpy(d_gate), d["d_up"] = as_numpy(d_up);
  return d;
}

nb::object accumulate(const Numbers& y, const Numbers& x, const Integers& rows,
                      const Numbers& weights) {
  Tensor<double, 2> sum = copied(view<2>("y", y));
  const auto at = list("rows", rows);
  const auto w = list("weights", weights);
  const auto n = static_cast<Index>(at.size());
  expect_subscripts("rows", at, 0, sum.shape()[0]);
  expect_shape("x", view<2>("x", x), {n, sum.shape()[1]});
  expect_shape("weights", view<1>("weights", weights), {n});
  reference::accumulate<double>(sum, view<2>("x", x), at, w);
  return as_numpy(sum);
}

nb::dict accumulate_backward(const Numbers& x, const Integers& rows, const Numbers& weights,
                             const Numbers& d_y) {
  const auto given = view<2>("d_y", d_y);
  const auto at = list("rows", rows);
  const auto n = static_cast<Index>(at.size());
  expect_subscripts("rows", at, 0, given.shape[0]);
  expect_shape("weights", view<1>("weights", weights), {n});
  Tensor<double, 2> d_x(view<2>("x", x).shape);
  std::vector<double> d_weights(at.size());
  reference::accumulate_backward<double>({d_x, d_weights}, view<2>("x", x), at,
                                         list("weights", weights), given);
  nb::dict d;
  d["d_x"] = as_numpy(d_x), d["d_weights"] = as_numpy(std::move(d_weights), {n});
  return d;
}

}  // namespace

void bind_network(nb::module_& m) {
  m.def("embed", &embed);
  m.def("embed_backward", &embed_backward);
  m.def("linear", &linear, nb::arg("x"), nb::arg("w"), nb::arg("bias").none());
  m.def("linear_backward", &linear_backward);
  m.def("rmsnorm", &rmsnorm);
  m.def("rmsnorm_backward", &rmsnorm_backward);
  m.def("layernorm", &layernorm);
  m.def("layernorm_backward", &layernorm_backward);
  m.def("hadamard", &hadamard);
  m.def("hadamard_backward", &hadamard_backward);
  m.def("rope", &turned);
  m.def("rope_table", &rope_table);
  m.def("swiglu", &swiglu);
  m.def("swiglu_backward", &swiglu_backward);
  m.def("accumulate", &accumulate);
  m.def("accumulate_backward", &accumulate_backward);
}

}  // namespace dsa::python
