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
};

/// Of an op and of the turn of its gradient.
template <bool back>
constexpr const char* op_name = back ? "rope_backward" : "rope";
template <bool back>
constexpr const char* in_name = back ? "d_y" : "x";
template <bool back>
constexpr const char* out_name = back ? "d_x" : "y";

/// Pairs i of a head: channels (2i, 2i+1), or (i, i + P/2), behind `first`.
std::pair<Index, Index> channels(bool interleaved, Index first, Index P, Index i) {
  return interleaved ? std::pair{first + 2 * i, first + 2 * i + 1}
                     : std::pair{first + i, first + i + P / 2};
}

template <bool back>
void set_answer(Case& c) {
  const auto x = widen<3>(c.in.at(in_name<back>));
  const auto cos = widen<2>(c.in.at("cos")), sin = widen<2>(c.in.at("sin"));
  const auto [T, H, D] = x.shape();
  const Index P = 2 * cos.shape()[1], first = c.integer("first");
  const bool interleaved = c.flag("interleaved");
  require(cos.shape() == sin.shape() && first >= 0 && first + P <= D,
          "cos and sin turn channels " + std::to_string(first) + " to " +
              std::to_string(first + P) + " of " + std::to_string(D) +
              "; expected two tables of one shape, and channels that x has");
  c.out[out_name<back>] = Array(Dtype::f32, {T, H, D});

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
        const auto [a, b] = channels(interleaved, first, P, i);
        const double xa = std::abs(x(t, h, a)), xb = std::abs(x(t, h, b));
        const double co = std::abs(cos(t, i)), si = std::abs(sin(t, i));
        const double bound = gamma(2, unit_roundoff_fp32);
        allowed(t, h, a) = bound * (xa * co + xb * si) + 2 * smallest_normal_fp32;
        allowed(t, h, b) = bound * (xb * co + xa * si) + 2 * smallest_normal_fp32;
      }
    }
  answer(c, out_name<back>, list(want), list(allowed), true);
}

template <bool back>
Case pose(const Plan& plan, std::uint64_t seed) {
  const auto& [T, H, D, P, first, interleaved, inputs] = plan;
  Case c = start_case(op_name<back>, "fp32", {{'T', T}, {'H', H}, {'D', D}, {'P', P}}, inputs,
                      "first" + std::to_string(first) + (interleaved ? "-interleaved" : "-half"));
  Draw draw(c, seed);
  c.scalars = {{"first", static_cast<double>(first)}, {"interleaved", interleaved ? 1 : 0}};
  c.in[in_name<back>] = draw.numbers(Dtype::f32, {T, H, D});
  c.in["cos"] = draw.numbers(Dtype::f32, {T, P / 2});
  c.in["sin"] = draw.numbers(Dtype::f32, {T, P / 2});
  set_answer<back>(c);
  return finished(std::move(c));
}

template <bool back>
Poses cases(std::uint64_t seed) {
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
                           return pose<back>({T, H, D, P, first, interleaved, inputs}, seed);
                         }});
  return poses;
}

}  // namespace

Op rope_op() {
  return {"rope",
          "pair i of [first, first+P): (a, b) -> (a cos - b sin, b cos + a sin)",
          {"fp32"},
          cases<false>,
          judge_elementwise,
          set_answer<false>,
          {{"x", "THD", InputRule::Kind::fp32},
           {"cos", "T?", InputRule::Kind::fp32},
           {"sin", "T?", InputRule::Kind::fp32}},
          {{"first", 0, true}, {"interleaved", must_be_given, true}}};
}

Op rope_backward_op() {
  return {"rope_backward",
          "pair i of [first, first+P): (a, b) -> (a cos + b sin, b cos - a sin)",
          {"fp32"},
          cases<true>,
          judge_elementwise,
          set_answer<true>,
          {{"d_y", "THD", InputRule::Kind::fp32},
           {"cos", "T?", InputRule::Kind::fp32},
           {"sin", "T?", InputRule::Kind::fp32}},
          {{"first", 0, true}, {"interleaved", must_be_given, true}}};
}

}  // namespace dsa::verify::kernels
