// y = x W^T + b, in fp32.
//
// C products and sums and a bias: gamma(C + 1) on magnitudes, in whatever order. Products of two
// bf16 or e4m3 numbers are exact in fp32; those of two fp32 numbers round once, before or inside
// the sum. fp8: the partial sums of a block of 128 channels are multiplied by two scales and
// summed. On Hopper's tensor cores, each partial sum may be wrong by hopper_fp8_error besides.
#include "reference/ops/linear.hpp"

#include "verify/kernels/cases/all.hpp"
#include "verify/kernels/cases/hopper_fp8.hpp"
#include "verify/kernels/cases/pose.hpp"
#include "verify/measure/bounds.hpp"

namespace dsa::verify::kernels {
namespace {

constexpr Index block = 128;

struct Plan {
  std::string dtype;
  Index T, C, F;
  bool bias;
  Inputs inputs;
};

Index blocks(Index n) { return (n + block - 1) / block; }

/// x times its scale, a scale for every 128 channels of a row.
Tensor<double, 2> scaled(Tensor<double, 2> x, const Array& scales) {
  const auto scale = widen<2>(scales);
  for (Index t = 0; t < x.shape()[0]; ++t)
    for (Index i = 0; i < x.shape()[1]; ++i) x(t, i) *= scale(t, i / block);
  return x;
}

Tensor<double, 2> decoded(const Parameter& w) {
  Tensor<double, 2> wide({w.rows(), w.columns()});
  read_rows(w, 0, w.rows(), wide.data());
  return wide;
}

/// The weights of a case, whose bytes they borrow.
Linear linear_in(const Case& c) {
  Linear w{parameter("w", c.in.at("w")), {}};
  if (c.dtype == "fp8") w.weight.scale_inv = c.in.at("w_scale").as<float, 2>().data;
  if (c.in.contains("bias")) w.bias = parameter("bias", c.in.at("bias"));
  return w;
}

Tensor<double, 2> x_in(const Case& c) {
  Tensor<double, 2> x = widen<2>(c.in.at("x"));
  return c.dtype == "fp8" ? scaled(std::move(x), c.in.at("x_scale")) : x;
}

/// The allowed errors of the sums of products, and the sums of magnitudes.
struct Errors {
  Tensor<double, 2> products, size;  // (T, F)
};

Tensor<double, 2> allowed_errors(const Case& c, const Errors& e) {
  const Index C = c.sizes.at('C');
  const Index roundings = C + 1 + (c.dtype == "fp8" ? 2 + blocks(C) : 0);
  Tensor<double, 2> allowed(e.size.shape());
  for (Index t = 0; t < allowed.shape()[0]; ++t)
    for (Index f = 0; f < allowed.shape()[1]; ++f) {
      const bool exact = c.inputs == Inputs::dyadic && e.products(t, f) == 0;
      const double bias = c.in.contains("bias") ? std::abs(c.in.at("bias").as<float, 1>()(f)) : 0;
      allowed(t, f) = exact ? 0
                            : e.products(t, f) +
                                  (e.size(t, f) + e.products(t, f) + bias) *
                                      gamma(roundings, unit_roundoff_fp32) +
                                  2 * static_cast<double>(roundings) * smallest_normal_fp32;
    }
  return allowed;
}

Tensor<double, 2> sizes_of(const Case& c) {
  Tensor<double, 2> size({c.sizes.at('T'), c.sizes.at('F')});
  reference::multiply<double>(size, magnitude(x_in(c)), magnitude(decoded(linear_in(c).weight)));
  return size;
}

Answers on_hopper(const Case& c) {
  const auto x = widen<2>(c.in.at("x")), w = widen<2>(c.in.at("w"));
  const auto x_scale = widen<2>(c.in.at("x_scale")), w_scale = widen<2>(c.in.at("w_scale"));
  const Index T = x.shape()[0], C = x.shape()[1], F = w.shape()[0];
  Errors e{Tensor<double, 2>({T, F}), sizes_of(c)};
  for (Index t = 0; t < T; ++t)
    for (Index f = 0; f < F; ++f)
      for (Index i = 0; i < C; i += block)
        e.products(t, f) +=
            x_scale(t, i / block) * w_scale(f / block, i / block) *
            hopper_fp8_error(x.data() + t * C + i, w.data() + f * C + i, std::min(block, C - i));
  return {{"y", list(allowed_errors(c, e))}};
}

void set_answer(Case& c) {
  const Index T = c.sizes.at('T'), C = c.sizes.at('C'), F = c.sizes.at('F');
  const bool fp8 = c.dtype == "fp8";
  for (const auto& [name, rows] : {std::pair{"x_scale", T}, {"w_scale", blocks(F)}}) {
    const auto scale = c.in.find(name);
    require((scale != c.in.end()) == fp8, std::string("linear takes ") + name +
                                              " in fp8, where it must be given, and nowhere else");
    if (fp8) expect_shape(name, scale->second.as<float, 2>(), {rows, blocks(C)});
  }
  c.out["y"] = Array(Dtype::f32, {T, F});
  Tensor<double, 2> want({T, F});
  reference::linear<double>(want, x_in(c), linear_in(c));
  answer(c, "y", list(want), list(allowed_errors(c, {Tensor<double, 2>({T, F}), sizes_of(c)})),
         true);
  if (fp8) c.allowed_on_hopper = on_hopper;
}

Case pose(const Plan& plan, std::uint64_t seed) {
  const auto& [dtype, T, C, F, bias, inputs] = plan;
  Case c = start_case("linear", dtype, {{'T', T}, {'C', C}, {'F', F}}, inputs, bias ? "bias" : "");
  Draw draw(c, seed);
  const Dtype stored = storage_of(dtype);
  const bool fp8 = dtype == "fp8";
  c.in["x"] = draw.numbers(stored, {T, C});
  c.in["w"] = draw.numbers(stored, {F, C});
  if (bias) c.in["bias"] = draw.numbers(Dtype::f32, {F});
  if (fp8) {
    c.in["x_scale"] = draw.scales({T, blocks(C)}, inputs == Inputs::dyadic);
    c.in["w_scale"] = draw.scales({blocks(F), blocks(C)}, inputs == Inputs::dyadic);
  }
  set_answer(c);
  return finished(std::move(c));
}

Poses cases(std::uint64_t seed) {
  using Shapes = std::vector<std::array<Index, 3>>;
  const Shapes any = {{0, 3, 2},     {0, 16, 5},      {1, 1, 1},     {3, 5, 2},
                      {13, 16, 16},  {5, 7, 3},       {1, 64, 33},   {17, 33, 65},
                      {33, 129, 63}, {2, 300, 130},   {16, 128, 64}, {7, 1000, 257},
                      {1, 7168, 32}, {64, 512, 1024}, {5, 24, 12},   {33, 72, 20}};
  const Shapes in_blocks = {{0, 128, 3},  {1, 128, 1},    {3, 128, 5},    {5, 256, 130},
                            {33, 384, 7}, {17, 128, 257}, {64, 512, 1024}};
  Poses poses;
  for (const std::string dtype : {"fp32", "bf16", "fp8"})
    for (const Inputs inputs : {Inputs::dyadic, Inputs::gaussian}) {
      bool bias = false;
      for (const auto& [T, C, F] : dtype == "fp8" ? in_blocks : any) {
        poses.push_back({dtype, twice(T, C, F), [=] {
                           return pose({dtype, T, C, F, bias, inputs}, seed);
                         }});
        bias = !bias;
      }
    }
  return poses;
}

}  // namespace

Op linear_op() {
  return {"linear",
          "y[t,f] = sum_c w[f,c] x[t,c] + bias[f]",
          {"fp32", "bf16", "fp8"},
          cases,
          judge_elementwise,
          set_answer,
          {{"x", "TC"},
           {"w", "FC"},
           {"bias", "F", InputRule::Kind::fp32, true},
           {"x_scale", "T?", InputRule::Kind::fp32, true},
           {"w_scale", "??", InputRule::Kind::fp32, true}}};
}

}  // namespace dsa::verify::kernels
