// Multi-head latent attention in both forms, and the mass that its heads give each key.
#include "python/bindings/arrays.hpp"
#include "reference/ops/index_kl.hpp"
#include "reference/ops/mla.hpp"

namespace dsa::python {
namespace {

reference::MlaExpandedInputs<double> expanded_inputs(const Numbers& q_nope, const Numbers& q_rope,
                                                     const Numbers& kv, const Numbers& k_rope,
                                                     const Integers& chosen, double scale) {
  const reference::MlaExpandedInputs<double> in{
      view<3>("q_nope", q_nope), view<3>("q_rope", q_rope), view<3>("kv", kv),
      view<2>("k_rope", k_rope), view<2>("chosen", chosen), scale};
  const auto [T, N, B] = in.q_nope.shape;
  const Index S = in.kv.shape[0], width = in.kv.shape[2], P = in.k_rope.shape[1];
  require(width >= B, "kv has " + std::to_string(width) + " channels, expected B + U with B " +
                          std::to_string(B));
  expect_shape("q_rope", in.q_rope, {T, N, P});
  expect_shape("kv", in.kv, {S, N, width});
  expect_shape("k_rope", in.k_rope, {S, P});
  return in;
}

nb::object mla_expanded(const Numbers& q_nope, const Numbers& q_rope, const Numbers& kv,
                        const Numbers& k_rope, const Integers& chosen, double scale) {
  const auto in = expanded_inputs(q_nope, q_rope, kv, k_rope, chosen, scale);
  const auto [T, N, B] = in.q_nope.shape;
  Tensor<double, 3> out({T, N, in.kv.shape[2] - B});
  reference::mla_expanded<double>(out, in.q_nope, in.q_rope, in.kv, in.k_rope, in.chosen, scale);
  return as_numpy(out);
}

nb::dict mla_expanded_backward(const Numbers& q_nope, const Numbers& q_rope, const Numbers& kv,
                               const Numbers& k_rope, const Integers& chosen, const Numbers& d_out,
                               double scale) {
  const auto in = expanded_inputs(q_nope, q_rope, kv, k_rope, chosen, scale);
  const auto [T, N, B] = in.q_nope.shape;
  expect_shape("d_out", view<3>("d_out", d_out), {T, N, in.kv.shape[2] - B});
  Tensor<double, 3> d_q_nope(in.q_nope.shape), d_q_rope(in.q_rope.shape), d_kv(in.kv.shape);
  Tensor<double, 2> d_k_rope(in.k_rope.shape);
  reference::mla_expanded_backward<double>({d_q_nope, d_q_rope, d_kv, d_k_rope}, in,
                                           view<3>("d_out", d_out));
  nb::dict d;
  d["d_q_nope"] = as_numpy(d_q_nope), d["d_q_rope"] = as_numpy(d_q_rope);
  d["d_kv"] = as_numpy(d_kv), d["d_k_rope"] = as_numpy(d_k_rope);
  return d;
}

reference::MlaAbsorbedInputs<double> absorbed_inputs(const Numbers& q_nope, const Numbers& q_rope,
                                                     const Numbers& c_kv, const Numbers& k_rope,
                                                     const Numbers& kv_b, const Integers& chosen,
                                                     double scale) {
  const reference::MlaAbsorbedInputs<double> in{view<3>("q_nope", q_nope),
                                                view<3>("q_rope", q_rope),
                                                view<2>("c_kv", c_kv),
                                                view<2>("k_rope", k_rope),
                                                view<3>("kv_b", kv_b),
                                                view<2>("chosen", chosen),
                                                scale};
  const auto [T, N, B] = in.q_nope.shape;
  const auto [S, R] = in.c_kv.shape;
  const Index width = in.kv_b.shape[1], P = in.k_rope.shape[1];
  require(width >= B, "kv_b has " + std::to_string(width) + " rows a head, expected B + U with B " +
                          std::to_string(B));
  expect_shape("q_rope", in.q_rope, {T, N, P});
  expect_shape("k_rope", in.k_rope, {S, P});
  expect_shape("kv_b", in.kv_b, {N, width, R});
  return in;
}

nb::object mla_absorbed(const Numbers& q_nope, const Numbers& q_rope, const Numbers& c_kv,
                        const Numbers& k_rope, const Numbers& kv_b, const Integers& chosen,
                        double scale) {
  const auto in = absorbed_inputs(q_nope, q_rope, c_kv, k_rope, kv_b, chosen, scale);
  const auto [T, N, B] = in.q_nope.shape;
  Tensor<double, 3> out({T, N, in.kv_b.shape[1] - B});
  reference::mla_absorbed<double>(out, in.q_nope, in.q_rope, in.c_kv, in.k_rope, in.kv_b, in.chosen,
                                  scale);
  return as_numpy(out);
}

nb::dict mla_absorbed_backward(const Numbers& q_nope, const Numbers& q_rope, const Numbers& c_kv,
                               const Numbers& k_rope, const Numbers& kv_b, const Integers& chosen,
                               const Numbers& d_out, double scale) {
  const auto in = absorbed_inputs(q_nope, q_rope, c_kv, k_rope, kv_b, chosen, scale);
  const auto [T, N, B] = in.q_nope.shape;
  expect_shape("d_out", view<3>("d_out", d_out), {T, N, in.kv_b.shape[1] - B});
  Tensor<double, 3> d_q_nope(in.q_nope.shape), d_q_rope(in.q_rope.shape), d_kv_b(in.kv_b.shape);
  Tensor<double, 2> d_c_kv(in.c_kv.shape), d_k_rope(in.k_rope.shape);
  reference::mla_absorbed_backward<double>({d_q_nope, d_q_rope, d_c_kv, d_k_rope, d_kv_b}, in,
                                           view<3>("d_out", d_out));
  nb::dict d;
  d["d_q_nope"] = as_numpy(d_q_nope), d["d_q_rope"] = as_numpy(d_q_rope);
  d["d_c_kv"] = as_numpy(d_c_kv), d["d_k_rope"] = as_numpy(d_k_rope);
  d["d_kv_b"] = as_numpy(d_kv_b);
  return d;
}

nb::object attention_mass(const Numbers& q_nope, const Numbers& q_rope, const Numbers& kv,
                          const Numbers& k_rope, const Integers& chosen, const Integers& kept,
                          double scale) {
  const auto in = expanded_inputs(q_nope, q_rope, kv, k_rope, chosen, scale);
  Tensor<double, 2> u({in.q_nope.shape[0], in.kv.shape[0]});
  reference::attention_mass<double>(u, in, view<2>("kept", kept));
  return as_numpy(u);
}

}  // namespace

void bind_attention(nb::module_& m) {
  m.def("mla_expanded", &mla_expanded);
  m.def("mla_expanded_backward", &mla_expanded_backward);
  m.def("mla_absorbed", &mla_absorbed);
  m.def("mla_absorbed_backward", &mla_absorbed_backward);
  m.def("attention_mass", &attention_mass);
}

}  // namespace dsa::python
