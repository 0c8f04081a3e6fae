#include "verify/kernels/cases/swiglu.hpp"

#include "reference/ops/swiglu.hpp"
#include "verify/kernels/cases/all.hpp"
#include "verify/kernels/cases/pose.hpp"

namespace dsa::verify::kernels {
namespace {

void set_answer(Case& c) {
  const auto gate_up = widen<2>(c.in.at("gate_up"));
  const Index T = gate_up.shape()[0], F = gate_up.shape()[1] / 2;
  require(gate_up.shape()[1] == 2 * F,
          "gate_up has " + std::to_string(gate_up.shape()[1]) +
              " columns, expected an even number: the gates, then as many ups");
  c.out["h"] = Array(storage_of(c.dtype), {T, F});
  Tensor<double, 2> gate({T, F}), up({T, F}), want({T, F});
  std::vector<double> allowed;
  for (Index t = 0; t < T; ++t)
    for (Index f = 0; f < F; ++f) {
      gate(t, f) = gate_up(t, f);
      up(t, f) = gate_up(t, F + f);
      allowed.push_back(swiglu_error(gate(t, f), up(t, f)));
    }
  reference::swiglu<double>(want, gate, up);
  answer(c, "h", list(want), std::move(allowed), false);
}

Case pose(const std::string& dtype, Index T, Index F, double size, std::uint64_t seed) {
  Case c = start_case("swiglu", dtype, {{'T', T}, {'F', F}},
                      size == 1 ? Inputs::gaussian : Inputs::adversarial,
                      size == 1 ? "" : "times" + std::to_string(static_cast<Index>(size)));
  Draw draw(c, seed);
  c.in["gate_up"] = draw.numbers(Dtype::f32, {T, 2 * F}, size);
  set_answer(c);
  return finished(std::move(c));
}

Poses cases(std::uint64_t seed) {
  Poses poses;
  for (const std::string dtype : {"fp32", "bf16"}) {
    const auto add = [&](Index T, Index F, double size) {
      poses.push_back({dtype, 2 * twice(T, F), [=] { return pose(dtype, T, F, size, seed); }});
    };
    for (const auto& [T, F] : std::vector<std::pair<Index, Index>>{
             {0, 3}, {1, 1}, {3, 5}, {5, 17}, {7, 100}, {33, 129}, {64, 2048}})
      add(T, F, 1);
    add(9, 33, 50);  // e^-g overflows in fp32
    add(9, 33, 10000);
  }
  return poses;
}

}  // namespace

Op swiglu_op() {
  return {"swiglu",
          "h[t,f] = silu(gate_up[t,f]) gate_up[t,F+f]",
          {"fp32", "bf16"},
          cases,
          judge_elementwise,
          set_answer,
          {{"gate_up", "T?", InputRule::Kind::fp32}}};
}

}  // namespace dsa::verify::kernels
