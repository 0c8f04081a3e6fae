// Losses and the optimiser's step.
#include "core/recipe.hpp"
#include "python/bindings/arrays.hpp"
#include "reference/ops/adamw.hpp"
#include "reference/ops/losses.hpp"

namespace dsa::python {
namespace {

/// Error: not a target and a weight for each row.
void expect_rows(View<const double, 2> logits, const Integers& targets, const Numbers& weights) {
  expect_shape("targets", view<1>("targets", targets), {logits.shape[0]});
  expect_shape("weights", view<1>("weights", weights), {logits.shape[0]});
}

double cross_entropy(const Numbers& logits, const Integers& targets, const Numbers& weights) {
  const auto rows = view<2>("logits", logits);
  expect_rows(rows, targets, weights);
  return reference::cross_entropy<double>(rows, list("targets", targets), list("weights", weights));
}

nb::object cross_entropy_backward(const Numbers& logits, const Integers& targets,
                                  const Numbers& weights) {
  const auto rows = view<2>("logits", logits);
  expect_rows(rows, targets, weights);
  Tensor<double, 2> d_logits(rows.shape);
  reference::cross_entropy_backward<double>(d_logits, rows, list("targets", targets),
                                            list("weights", weights));
  return as_numpy(d_logits);
}

reference::BalanceInputs<double> balance_inputs(const Numbers& s, const Integers& experts,
                                                const Integers& documents) {
  const reference::BalanceInputs<double> in{view<2>("s", s), view<2>("experts", experts),
                                            list("documents", documents)};
  const Index T = in.s.shape[0];
  expect_shape("experts", in.experts, {T, in.experts.shape[1]});
  expect_shape("documents", view<1>("documents", documents), {T});
  expect_subscripts("experts", {in.experts.data, static_cast<std::size_t>(in.experts.size())}, 0,
                    in.s.shape[1]);
  return in;
}

double balance_loss(const Numbers& s, const Integers& experts, const Integers& documents,
                    double alpha) {
  return reference::balance_loss<double>(balance_inputs(s, experts, documents), alpha);
}

nb::object balance_loss_backward(const Numbers& s, const Integers& experts,
                                 const Integers& documents, double alpha) {
  const auto in = balance_inputs(s, experts, documents);
  Tensor<double, 2> d_s(in.s.shape);
  reference::balance_loss_backward<double>(d_s, in, alpha);
  return as_numpy(d_s);
}

nb::object update_router_bias(const Numbers& bias, const Integers& load, double gamma) {
  Tensor<double, 1> updated = copied(view<1>("bias", bias));
  reference::update_router_bias({updated.data(), static_cast<std::size_t>(updated.size())},
                                list("load", load), gamma);
  return as_numpy(updated);
}

nb::object adamw_step(const Numbers& p, const Numbers& m, const Numbers& v, const Numbers& gradient,
                      const nb::dict& options, double lr, double clip_factor, Index steps,
                      bool decayed) {
  Tensor<double, 1> parameter = copied(view<1>("p", p)), first = copied(view<1>("m", m)),
                    second = copied(view<1>("v", v));
  AdamW adamw;
  adamw.beta1 = nb::cast<double>(options["beta1"]);
  adamw.beta2 = nb::cast<double>(options["beta2"]);
  adamw.eps = nb::cast<double>(options["eps"]);
  adamw.eps_inside_root = nb::cast<bool>(options["eps_inside_root"]);
  adamw.bias_correction = nb::cast<bool>(options["bias_correction"]);
  adamw.weight_decay = nb::cast<double>(options["weight_decay"]);
  adamw.decoupled = nb::cast<bool>(options["decoupled"]);
  const auto all = [](Tensor<double, 1>& x) {
    return std::span<double>(x.data(), static_cast<std::size_t>(x.size()));
  };
  reference::adamw_step<double>({all(parameter), all(first), all(second), decayed},
                                list("gradient", gradient), adamw, lr, clip_factor, steps);
  return nb::make_tuple(as_numpy(parameter), as_numpy(first), as_numpy(second));
}

double clip_factor(double norm, double max_norm, double eps) {
  return reference::clip_factor<double>(norm, {max_norm, eps});
}

}  // namespace

void bind_training(nb::module_& m) {
  m.def("cross_entropy", &cross_entropy);
  m.def("cross_entropy_backward", &cross_entropy_backward);
  m.def("balance_loss", &balance_loss);
  m.def("balance_loss_backward", &balance_loss_backward);
  m.def("update_router_bias", &update_router_bias);
  m.def("adamw_step", &adamw_step);
  m.def("clip_factor", &clip_factor);
}

}  // namespace dsa::python
