#include <algorithm>

#include "core/threads.hpp"
#include "optimized/cpu/ops/norms.hpp"
#include "optimized/cpu/ops/norms_backward.hpp"
#include "optimized/cpu/ops/swiglu.hpp"
#include "optimized/train/model/pass.hpp"

namespace dsa::train {
namespace {

using cpu::LinearRows;
using cpu::Strided;

LinearRows rows_of(const Linear& w, Index begin, Index end) {
  return {.begin = begin,
          .end = end,
          .w = &w.weight.by_output,
          .w_by_input = &w.weight.by_input,
          .bias = w.bias.vector(),
          .d_weight = w.weight.wanted_gradient(),
          .d_bias = w.bias.wanted_vector()};
}

bool learns(const Linear& w) { return w.weight.wanted || w.bias.wanted; }

std::vector<LinearRows> rows_of(const Networks& networks, Linear Mlp::*module) {
  std::vector<LinearRows> all;
  all.reserve(networks.of.size());
  for (std::size_t e = 0; e < networks.of.size(); ++e)
    all.push_back(rows_of(networks.of[e].*module, networks.begin[e], networks.begin[e + 1]));
  return all;
}

bool learns(const Networks& networks, Linear Mlp::*module) {
  return std::any_of(networks.of.begin(), networks.of.end(),
                     [&](const Mlp& network) { return learns(network.*module); });
}

/// The first numbers of a buffer as a matrix.
View<float, 2> as_matrix(View<float, 1> buffer, Index rows, Index columns) {
  return {buffer.data, {rows, columns}};
}

template <class T>
Strided<T> columns(View<T, 2> x, Index first, Index n) {
  return {x.data + first, x.shape[0], n, x.shape[1]};
}

/// gate_up (rows, 2F) and hidden (rows, F).
void make_hidden(const Pass& pass, View<float, 2> gate_up, View<float, 2> hidden,
                 View<const float, 2> x, const Networks& networks) {
  const Index F = networks.width();
  cpu::linear_rows(pass.cpu, columns(gate_up, 0, F), x, rows_of(networks, &Mlp::gate_proj), false,
                   pass.memory);
  cpu::linear_rows(pass.cpu, columns(gate_up, F, F), x, rows_of(networks, &Mlp::up_proj), false,
                   pass.memory);
  cpu::swiglu<float>(pass.cpu, hidden, gate_up);
}

}  // namespace

bool Pass::needs_selection() const {
  using Keys = KlSemantics::Keys;
  const KlSemantics& s = objective.semantics;
  const bool kl_selects = s.teacher_softmax == Keys::chosen || s.teacher_keys == Keys::chosen ||
                          s.student_keys == Keys::chosen;
  return sparse() || (has_kl() && kl_selects);
}

void linear(const Pass& pass, Strided<float> y, View<const float, 2> x, const Linear& w, bool add) {
  const LinearRows all = rows_of(w, 0, x.shape[0]);
  cpu::linear_rows(pass.cpu, y, x, {&all, 1}, add, pass.memory);
}

void linear_backward(const Pass& pass, View<float, 2> d_x, View<const float, 2> x, const Linear& w,
                     Strided<const float> d_y, bool add) {
  const LinearRows all = rows_of(w, 0, x.shape[0]);
  if (learns(w)) cpu::linear_rows_backward_weight(pass.cpu, x, d_y, {&all, 1}, pass.memory);
  if (d_x.data) cpu::linear_rows_backward_input(pass.cpu, d_x, d_y, {&all, 1}, add, pass.memory);
}

void rmsnorm(const Pass& pass, View<float, 2> y, View<const float, 2> x, const Slot& gain,
             double eps) {
  cpu::rmsnorm<float>(pass.cpu, y, x, gain.vector(), eps);
}

void rmsnorm_backward(const Pass& pass, View<float, 2> d_x, View<const float, 2> x,
                      const Slot& gain, double eps, View<const float, 2> d_y, bool add) {
  cpu::rmsnorm_backward(pass.cpu, d_x, gain.wanted_vector(), {x, gain.vector(), d_y, eps}, add,
                        pass.memory);
}

void copy_columns(View<float, 2> y, Index to, View<const float, 2> x, Index from, Index n) {
  parallel_for(x.shape[0], n / 8 + 1, [&](Index t) {
    std::copy_n(x.data + t * x.shape[1] + from, n, y.data + t * y.shape[1] + to);
  });
}

void add(View<float, 2> y, View<const float, 2> x) {
  const Index rows = x.shape[0], C = x.shape[1];
  parallel_for(rows, C / 8 + 1, [&](Index t) {
    for (Index i = t * C; i < (t + 1) * C; ++i) y.data[i] += x.data[i];
  });
}

void copy(View<float, 2> y, View<const float, 2> x) {
  copy_columns({y.data, x.shape}, 0, x, 0, x.shape[1]);
}

void fill_zero(View<float, 2> y) { std::fill(y.begin(), y.end(), 0.0f); }

void join_run(View<float, 2> d, View<const float, 2> of_run, const Run& run, bool is_last) {
  if (is_last)
    fill_zero(rows(d, run.end, d.shape[0]));
  else
    add(seen(d, run), seen(of_run, run));
}

void feed_forward(const Pass& pass, const Activations& a, View<float, 2> y, View<const float, 2> x,
                  const Networks& networks, bool add) {
  const Index M = networks.rows(), F = networks.width();
  const View<float, 2> gate_up = as_matrix(a.gate_up, M, 2 * F), hidden = as_matrix(a.hidden, M, F);
  make_hidden(pass, gate_up, hidden, x, networks);
  cpu::linear_rows(pass.cpu, y, hidden, rows_of(networks, &Mlp::down_proj), add, pass.memory);
}

void feed_forward_backward(const Pass& pass, const Activations& a, View<float, 2> d_x,
                           View<const float, 2> x, const Networks& networks,
                           View<const float, 2> d_y, bool add, const Mixing& mixing) {
  const Index M = networks.rows(), F = networks.width();
  const View<float, 2> gate_up = as_matrix(a.gate_up, M, 2 * F), hidden = as_matrix(a.hidden, M, F),
                       d_hidden = as_matrix(a.d_hidden, M, F),
                       d_gate_up = as_matrix(a.d_gate_up, M, 2 * F);
  make_hidden(pass, gate_up, hidden, x, networks);
  const auto down = rows_of(networks, &Mlp::down_proj);
  cpu::linear_rows_backward_input(pass.cpu, d_hidden, d_y, down, false, pass.memory);
  if (mixing) mixing(hidden, d_hidden);
  if (learns(networks, &Mlp::down_proj))
    cpu::linear_rows_backward_weight(pass.cpu, hidden, d_y, down, pass.memory);
  cpu::swiglu_backward(pass.cpu, d_gate_up, gate_up, d_hidden);
  for (const auto& [module, first] :
       {std::pair{&Mlp::gate_proj, Index{0}}, std::pair{&Mlp::up_proj, F}}) {
    const auto all = rows_of(networks, module);
    const Strided<const float> d = columns<const float>(d_gate_up, first, F);
    if (learns(networks, module))
      cpu::linear_rows_backward_weight(pass.cpu, x, d, all, pass.memory);
    cpu::linear_rows_backward_input(pass.cpu, d_x, d, all, add || first > 0, pass.memory);
  }
}

}  // namespace dsa::train
