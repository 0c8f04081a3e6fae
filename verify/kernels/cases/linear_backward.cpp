// The gradients of y = x W^T + b, of rows that belong to several matrices of one shape, as tokens
// sorted by expert do. Matrix e has rows [begin[e], begin[e+1]), and may have none.
//
// d_x: F products and sums; d_w and d_b: as many as the matrix has rows, on top of what was there.
// gamma on magnitudes, in whatever order; products of two bf16 numbers are exact in fp32.
#include "reference/ops/linear.hpp"
#include "verify/kernels/cases/all.hpp"
#include "verify/kernels/cases/pose.hpp"
#include "verify/measure/bounds.hpp"

namespace dsa::verify::kernels {
namespace {

constexpr double u = unit_roundoff_fp32;

struct Plan {
  std::string dtype;
  std::vector<Index> rows;  // of every matrix
  Index C, F;
  Inputs inputs;
  bool add = false;  // d_x, too, is added to

  Index T() const {
    Index n = 0;
    for (const Index r : rows) n += r;
    return n;
  }
};

Array magnitudes(const Array& x) {
  std::vector<double> values = x.values();
  for (double& value : values) value = std::abs(value);
  return Array(x.dtype(), x.shape(), values);
}

struct Gradients {
  Tensor<double, 2> d_x, d_b;
  Tensor<double, 3> d_w;
};

/// On these inputs; what was there before is in `d`.
void differentiate(Gradients& d, const Array& x, const Array& w, const Array& d_y,
                   View<const std::int32_t, 1> begin) {
  const Index E = w.shape()[0], F = w.shape()[1], C = w.shape()[2];
  auto wide_x = widen<2>(x), wide_d_y = widen<2>(d_y);
  for (Index e = 0; e < E; ++e) {
    const Index first = begin(e), n = begin(e + 1) - first;
    Parameter matrix = parameter("w", w);
    matrix.shape = {F, C};
    matrix.data = w.bytes().data() + e * F * C * bits_of(w.dtype()) / 8;
    reference::linear_backward<double>(
        {d.d_x.data() + first * C, {n, C}}, {d.d_w.view()[e], d.d_b.view()[e]},
        {wide_x.data() + first * C, {n, C}}, {matrix, {}}, {wide_d_y.data() + first * F, {n, F}});
  }
}

/// The gradient that is added to: 0 where none was given.
template <int Rank>
Tensor<double, Rank> before(const Case& c, const char* name, Shape<Rank> shape) {
  const auto found = c.in.find(name);
  return found == c.in.end() ? Tensor<double, Rank>(shape) : widen<Rank>(found->second);
}

void require_ranges(View<const std::int32_t, 1> begin, Index E, Index T) {
  bool rises = begin.size() == E + 1 && begin(0) == 0 && begin(E) == T;
  for (Index e = 0; rises && e < E; ++e) rises = begin(e) <= begin(e + 1);
  require(rises, "begin is no list of the first row of each matrix: expected " +
                     std::to_string(E + 1) + " numbers from 0 to " + std::to_string(T) +
                     ", none below the one before it");
}

void set_answer(Case& c) {
  const Array &x = c.in.at("x"), &w = c.in.at("w");
  const Index T = x.shape()[0], E = w.shape()[0], F = w.shape()[1], C = w.shape()[2];
  const auto begin = std::as_const(c.in.at("begin")).as<std::int32_t, 1>();
  require_ranges(begin, E, T);
  Gradients want{c.flag("add") ? before<2>(c, "d_x", {T, C}) : Tensor<double, 2>({T, C}),
                 before<2>(c, "d_b", {E, F}), before<3>(c, "d_w", {E, F, C})};
  Gradients size{magnitude(want.d_x), magnitude(want.d_b), magnitude(want.d_w)};
  differentiate(want, x, w, c.in.at("d_y"), begin);
  differentiate(size, magnitudes(x), magnitudes(w), magnitudes(c.in.at("d_y")), begin);
  const auto bound = [](double& size_of, Index roundings) {
    size_of =
        size_of * gamma(roundings, u) + 2 * static_cast<double>(roundings) * smallest_normal_fp32;
  };
  for (double& d : size.d_x) bound(d, F + 1);
  for (Index e = 0; e < E; ++e) {
    const Index n = begin(e + 1) - begin(e);
    for (double& d : size.d_w.view()[e]) bound(d, n + 1);
    for (double& d : size.d_b.view()[e]) bound(d, n + 1);
  }
  c.out["d_x"] = Array(Dtype::f32, {T, C});
  c.out["d_w"] = Array(Dtype::f32, {E, F, C});
  c.out["d_b"] = Array(Dtype::f32, {E, F});
  answer(c, "d_x", list(want.d_x), list(size.d_x), true);
  answer(c, "d_w", list(want.d_w), list(size.d_w), true);
  answer(c, "d_b", list(want.d_b), list(size.d_b), true);
}

Case pose(const Plan& plan, std::uint64_t seed) {
  const Index T = plan.T(), E = static_cast<Index>(plan.rows.size()), C = plan.C, F = plan.F;
  Case c = start_case("linear_backward", plan.dtype, {{'T', T}, {'C', C}, {'F', F}, {'E', E}},
                      plan.inputs, plan.add ? "added" : "");
  Draw draw(c, seed);
  const Dtype stored = storage_of(plan.dtype);
  c.scalars["add"] = plan.add;
  c.in["x"] = draw.numbers(stored, {T, C});
  c.in["w"] = draw.numbers(stored, {E, F, C});
  c.in["d_y"] = draw.numbers(stored, {T, F});
  c.in["d_x"] = draw.numbers(Dtype::f32, {T, C}, plan.add ? 1 : 0);
  c.in["d_w"] = draw.numbers(Dtype::f32, {E, F, C});
  c.in["d_b"] = draw.numbers(Dtype::f32, {E, F});
  std::vector<double> begin = {0};
  for (const Index n : plan.rows) begin.push_back(begin.back() + static_cast<double>(n));
  c.in["begin"] = Array(Dtype::i32, {E + 1}, begin);
  set_answer(c);
  return finished(std::move(c));
}

Poses cases(std::uint64_t seed) {
  struct Shape {
    std::vector<Index> rows;
    Index C, F;
  };
  const std::vector<Shape> shapes = {{{0}, 3, 2},         {{1}, 1, 1},
                                     {{3}, 5, 2},         {{13}, 16, 16},
                                     {{17}, 33, 65},      {{5, 0, 1, 7}, 19, 21},
                                     {{0, 31, 0}, 8, 48}, {{129}, 7, 3},
                                     {{2}, 300, 33},      {{64, 1, 40, 23}, 72, 96},
                                     {{150}, 257, 130}};
  Poses poses;
  for (const std::string dtype : {"fp32", "bf16"})
    for (const Inputs inputs : {Inputs::dyadic, Inputs::gaussian}) {
      bool add = false;
      for (const Shape& shape : shapes) {
        const Plan plan{dtype, shape.rows, shape.C, shape.F, inputs, add};
        poses.push_back(
            {dtype, 2 * twice(plan.T(), shape.C, shape.F), [=] { return pose(plan, seed); }});
        add = !add;
      }
    }
  return poses;
}

}  // namespace

Op linear_backward_op() {
  return {"linear_backward",
          "d_x[t,c] = sum_f w[f,c] d_y[t,f], d_w[f,c] += sum_t d_y[t,f] x[t,c], "
          "d_b[f] += sum_t d_y[t,f]",
          {"fp32", "bf16"},
          cases,
          judge_elementwise,
          set_answer,
          {{"x", "TC"},
           {"w", "EFC"},
           {"d_y", "TF"},
           {"begin", "?", InputRule::Kind::int32},
           {"d_x", "TC", InputRule::Kind::fp32, true},
           {"d_w", "EFC", InputRule::Kind::fp32, true},
           {"d_b", "EF", InputRule::Kind::fp32, true}},
          {{"add", 0, true}}};
}

}  // namespace dsa::verify::kernels
