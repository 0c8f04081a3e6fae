// From h = z a up, z = gate, a = sigmoid(z): the formula with its roundings.
#include "reference/ops/swiglu.hpp"
#include "verify/kernels/cases/all.hpp"
#include "verify/kernels/cases/pose.hpp"
#include "verify/kernels/cases/rounded.hpp"

namespace dsa::verify::kernels {
namespace {

void set_answer(Case& c) {
  const auto gate_up = widen<2>(c.in.at("gate_up")), d_h = widen<2>(c.in.at("d_h"));
  const auto [T, F] = d_h.shape();
  require(gate_up.shape()[1] == 2 * F, "gate_up has rows of " + std::to_string(gate_up.shape()[1]) +
                                           ", expected " + std::to_string(2 * F) +
                                           ": the gate and up of d_h's " + std::to_string(F));
  c.out["d_gate_up"] = Array(Dtype::f32, {T, 2 * F});
  Tensor<double, 2> gate({T, F}), up({T, F}), d_gate({T, F}), d_up({T, F}), want({T, 2 * F}),
      allowed({T, 2 * F});
  for (Index t = 0; t < T; ++t)
    for (Index f = 0; f < F; ++f) gate(t, f) = gate_up(t, f), up(t, f) = gate_up(t, F + f);
  reference::swiglu_backward<double>(d_gate, d_up, gate, up, d_h);
  for (Index t = 0; t < T; ++t)
    for (Index f = 0; f < F; ++f) {
      const Rounded z = gate(t, f), a = sigmoid_of(gate(t, f)), d = d_h(t, f);
      want(t, f) = d_gate(t, f);
      want(t, F + f) = d_up(t, f);
      allowed(t, f) = (d * Rounded(up(t, f)) * a * (1 + z * (1 - a))).error;
      allowed(t, F + f) = (d * z * a).error;
    }
  answer(c, "d_gate_up", list(want), list(allowed), false);
}

Case pose(Index T, Index F, double size, const std::string& tag, std::uint64_t seed) {
  Case c = start_case("swiglu_backward", "fp32", {{'T', T}, {'F', F}},
                      tag.empty() ? Inputs::gaussian : Inputs::adversarial, tag);
  Draw draw(c, seed);
  c.in["gate_up"] = draw.numbers(Dtype::f32, {T, 2 * F}, size);
  c.in["d_h"] = draw.numbers(Dtype::f32, {T, F});
  set_answer(c);
  return finished(std::move(c));
}

Poses cases(std::uint64_t seed) {
  Poses poses;
  const auto add = [&](Index T, Index F, double size, const std::string& tag) {
    poses.push_back({"fp32", 5 * twice(T, F), [=] { return pose(T, F, size, tag, seed); }});
  };
  for (const auto& [T, F] : std::vector<std::pair<Index, Index>>{
           {0, 3}, {1, 1}, {3, 5}, {5, 17}, {2, 31}, {7, 100}, {9, 129}, {16, 2048}})
    add(T, F, 1, "");
  add(9, 33, 0.001, "small");  // the slope is 1/2
  add(9, 33, 50, "large");     // e^-g overflows in fp32
  add(9, 33, 10000, "huge");
  return poses;
}

}  // namespace

Op swiglu_backward_op() {
  return {"swiglu_backward",
          "a = sigmoid(gate): d_up = d_h gate a, d_gate = d_h up a (1 + gate (1 - a))",
          {"fp32"},
          cases,
          judge_elementwise,
          set_answer,
          {{"gate_up", "T?", InputRule::Kind::fp32}, {"d_h", "TF", InputRule::Kind::fp32}}};
}

}  // namespace dsa::verify::kernels
