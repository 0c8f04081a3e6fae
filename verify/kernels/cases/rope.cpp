// Two products and a sum an element, or one product and a fused one: gamma(2) on magnitudes.
// Channels outside [first, first + P) are left as they are, to the bit.
#include "reference/ops/rope.hpp"

#include "verify/kernels/cases/all.hpp"
#include "verify/kernels/cases/pose.hpp"
#include "verify/measure/bounds.hpp"

namespace dsa::verify::kernels {
namespace {

struct Plan {
  Index T, H, D, P, first;
  bool interleaved;
  Inputs inputs;
  bool back;  // the turn of the gradient
};

/// Pairs i of a head: channels (2i, 2i+1), or (i, i + P/2), behind `first`.
std::pair<Index, Index> channels(const Plan& plan, Index i) {
  return plan.interleaved ? std::pair{plan.first + 2 * i, plan.first + 2 * i + 1}
                          : std::pair{plan.first + i, plan.first + i + plan.P / 2};
}

Case pose(const Plan& plan, std::uint64_t seed) {
  const auto [T, H, D, P, first, interleaved, inputs, back] = plan;
  Case c = start_case(back ? "rope_backward" : "rope", "fp32",
                      {{'T', T}, {'H', H}, {'D', D}, {'P', P}}, inputs,
                      "first" + std::to_string(first) + (interleaved ? "-interleaved" : "-half"));
  const std::string from = back ? "d_y" : "x", to = back ? "d_x" : "y";
  Draw draw(c, seed);
  c.scalars = {{"first", static_cast<double>(first)}, {"interleaved", interleaved ? 1 : 0}};
  c.in[from] = draw.numbers(Dtype::f32, {T, H, D});
  c.in["cos"] = draw.numbers(Dtype::f32, {T, P / 2});
  c.in["sin"] = draw.numbers(Dtype::f32, {T, P / 2});
  c.out[to] = Array(Dtype::f32, {T, H, D});
  const auto x = widen<3>(c.in[from]);
  const auto cos = widen<2>(c.in["cos"]), sin = widen<2>(c.in["sin"]);

  Tensor<double, 3> turned({T, H, P}), want = x, allowed({T, H, D});
  for (Index t = 0; t < T; ++t)
    for (Index h = 0; h < H; ++h)
      for (Index i = 0; i < P; ++i) turned(t, h, i) = x(t, h, first + i);
  const RopeLayout layout = interleaved ? RopeLayout::interleaved : RopeLayout::half;
  if (back)
    reference::rope_backward<double>(turned, cos, sin, layout);
  else
    reference::rope<double>(turned, cos, sin, layout);
  for (Index t = 0; t < T; ++t)
    for (Index h = 0; h < H; ++h) {
      for (Index i = 0; i < P; ++i) want(t, h, first + i) = turned(t, h, i);
      for (Index i = 0; i < P / 2; ++i) {
        const auto [a, b] = channels(plan, i);
        const double xa = std::abs(x(t, h, a)), xb = std::abs(x(t, h, b));
        const double co = std::abs(cos(t, i)), si = std::abs(sin(t, i));
        const double bound = gamma(2, unit_roundoff_fp32);
        allowed(t, h, a) = bound * (xa * co + xb * si) + 2 * smallest_normal_fp32;
        allowed(t, h, b) = bound * (xb * co + xa * si) + 2 * smallest_normal_fp32;
      }
    }
  answer(c, to, list(want), list(allowed), true);
  return finished(std::move(c));
}

Poses cases(std::uint64_t seed, bool back) {
  std::vector<std::array<Index, 5>> shapes = {{0, 2, 4, 4, 0},     {1, 1, 2, 2, 0},
                                              {3, 2, 7, 4, 3},  // the last channels, as in MLA's q
                                              {5, 1, 9, 6, 0},  // the first, as in the indexer
                                              {7, 3, 40, 34, 5},   {9, 16, 192, 64, 128},
                                              {17, 64, 128, 64, 0}};
  if (back) shapes.pop_back();  // finds nothing that the one before does not
  Poses poses;
  for (const Inputs inputs : {Inputs::dyadic, Inputs::gaussian})
    for (const bool interleaved : {true, false})
      for (const auto& [T, H, D, P, first] : shapes)
        poses.push_back({"fp32", 1.5 * twice(T, H, P), [=] {
                           return pose({T, H, D, P, first, interleaved, inputs, back}, seed);
                         }});
  return poses;
}

}  // namespace

Op rope_op() {
  return {"rope",
          "pair i of [first, first+P): (a, b) -> (a cos - b sin, b cos + a sin)",
          {"fp32"},
          [](std::uint64_t seed) { return cases(seed, false); },
          judge_elementwise};
}

Op rope_backward_op() {
  return {"rope_backward",
          "pair i of [first, first+P): (a, b) -> (a cos + b sin, b cos - a sin)",
          {"fp32"},
          [](std::uint64_t seed) { return cases(seed, true); },
          judge_elementwise};
}

}  // namespace dsa::verify::kernels
