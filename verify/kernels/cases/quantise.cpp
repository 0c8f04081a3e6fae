// The two FP8 formats of optimized/shared/rows.hpp, as DeepSeek's serving code makes them.
//
// Rounding to e4m3 is a decision: of numbers within the error of what is rounded, any may have
// been. The rotated row lies within gamma(log2 D + 2) of the exact one, on magnitudes, before it is
// rounded to bf16 (its inputs are bf16, so that rounding them first changes nothing); amax and
// scale follow from it; x / scale rounds once in fp32, x times 1/scale twice. An element must be
// what some value between these ends rounds to under the scale that the kernel itself wrote:
// mostly, exactly one number.
#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "reference/ops/hadamard.hpp"
#include "verify/kernels/cases/all.hpp"
#include "verify/kernels/cases/pose.hpp"
#include "verify/measure/bounds.hpp"

namespace dsa::verify::kernels {
namespace {

constexpr double u = unit_roundoff_fp32;
constexpr double largest_e4m3 = 448, smallest_amax = 1e-4;
constexpr Index run = 128;  // channels of a latent that share a scale

struct Interval {
  double low = 0, high = 0;
  double smallest() const {
    return low <= 0 && 0 <= high ? 0 : std::min(std::abs(low), std::abs(high));
  }
  double largest() const { return std::max(std::abs(low), std::abs(high)); }
};

/// The interval of a row's scale: amax times 1/448, each rounded, and the product rounded.
Interval scale_of(const std::vector<Interval>& row, bool ue8m0) {
  Interval amax{smallest_amax, smallest_amax};
  for (const Interval& x : row) {
    amax.low = std::max(amax.low, x.smallest());
    amax.high = std::max(amax.high, x.largest());
  }
  const auto scale = [&](double a) {
    return ue8m0 ? std::exp2(std::ceil(std::log2(a / largest_e4m3))) : a / largest_e4m3;
  };
  return {scale(amax.low * (1 - gamma(3, u))), scale(amax.high * (1 + gamma(3, u)))};
}

/// The scale that a kernel wrote: within the interval, a power of two under ue8m0.
void judge_scale(std::vector<double>& want, std::vector<double>& allowed, double got, Interval s,
                 bool ue8m0) {
  if (ue8m0) {
    want.push_back(std::abs(got - s.low) < std::abs(got - s.high) ? s.low : s.high);
    allowed.push_back(0);
  } else {
    want.push_back((s.low + s.high) / 2);
    allowed.push_back((s.high - s.low) / 2);
  }
}

/// The e4m3 numbers that x / scale may become.
void judge_element(std::vector<double>& want, std::vector<double>& allowed, Interval x,
                   double scale) {
  const auto rounded = [&](double value, double side) {
    const double quotient = value / scale;
    return round_to(Dtype::f8_e4m3, std::clamp(quotient + side * gamma(2, u) * std::abs(quotient),
                                               -largest_e4m3, largest_e4m3));
  };
  const double nominal = rounded((x.low + x.high) / 2, 0);
  const double low = rounded(x.low, -1), high = rounded(x.high, 1);
  want.push_back(nominal);
  allowed.push_back(std::max(high - nominal, nominal - low));
}

/// The answers of the definition for a run of numbers. The codes are judged by a kernel's own scale
/// where there is one.
struct Said {
  std::vector<double> y, y_allowed, scale, scale_allowed;

  void add(const std::vector<Interval>& row, bool ue8m0, const double* got_scale) {
    const Interval s = scale_of(row, ue8m0);
    const double nominal = ue8m0 ? s.low : (s.low + s.high) / 2;
    judge_scale(scale, scale_allowed, got_scale ? *got_scale : nominal, s, ue8m0);
    for (const Interval& x : row) judge_element(y, y_allowed, x, got_scale ? *got_scale : nominal);
  }
};

/// The rotated row, in bf16.
std::vector<Interval> rotated(const Case& c, const Tensor<double, 2>& x, Index t) {
  const Index D = x.shape()[1];
  Tensor<double, 2> row({1, D});
  std::copy_n(x.view()[t].data, D, row.data());
  double size = 0;
  for (const double value : row) size += std::abs(value) / std::sqrt(static_cast<double>(D));
  reference::hadamard<double>(row);
  const int log2 = std::countr_zero(static_cast<std::uint64_t>(D));
  const bool exact = c.inputs == Inputs::dyadic && log2 % 2 == 0;  // then 1/sqrt(D) is one of two
  const double error = exact ? 0 : gamma(log2 + 2, u) * size;
  std::vector<Interval> intervals;
  for (const double value : row)
    intervals.push_back(
        {round_to(Dtype::bf16, value - error), round_to(Dtype::bf16, value + error)});
  return intervals;
}

/// Numbers of a type, of which each row is half as large as the one before; some rows of zeros.
Array inputs(Draw& draw, Dtype dtype, Index T, Index D) {
  std::vector<double> x = draw.numbers(dtype, {T, D}).values();
  for (Index t = 0; t < T; ++t)
    for (Index d = 0; d < D; ++d)
      x[static_cast<std::size_t>(t * D + d)] *= t % 7 == 2 ? 0 : std::exp2(-(t % 30));
  return Array(Dtype::f32, {T, D}, x);
}

Said hadamard_said(const Case& c, const std::vector<double>* got_scale) {
  const auto x = widen<2>(c.in.at("x"));
  Said said;
  for (Index t = 0; t < x.shape()[0]; ++t)
    said.add(rotated(c, x, t), c.flag("ue8m0"),
             got_scale ? &(*got_scale)[static_cast<std::size_t>(t)] : nullptr);
  return said;
}

void answer_hadamard(Case& c) {
  for (const double x : c.in.at("x").values())
    require(round_to(Dtype::bf16, x) == x || std::isnan(x),
            "x holds " + std::to_string(x) + ", expected bf16 numbers: what the op reads");
  const auto D = static_cast<std::uint64_t>(c.sizes.at('D'));
  require(std::has_single_bit(D), "x has " + std::to_string(D) +
                                      " channels, expected a power of two: the Hadamard "
                                      "matrices here are Sylvester's");
  c.out["y"] = Array(Dtype::f8_e4m3, c.in.at("x").shape());
  c.out["scale"] = Array(Dtype::f32, {c.sizes.at('T')});
  Said said = hadamard_said(c, nullptr);
  c.want["y"] = std::move(said.y), c.allowed["y"] = std::move(said.y_allowed);
  c.want["scale"] = std::move(said.scale);
  c.allowed["scale"] = std::move(said.scale_allowed);
}

Case pose_hadamard(Index T, Index D, bool ue8m0, Inputs kind, std::uint64_t seed) {
  Case c = start_case("hadamard_e4m3", "fp8", {{'T', T}, {'D', D}}, kind, ue8m0 ? "ue8m0" : "");
  Draw draw(c, seed);
  c.scalars["ue8m0"] = ue8m0;
  c.in["x"] = inputs(draw, Dtype::bf16, T, D);
  answer_hadamard(c);
  return finished(std::move(c));
}

std::vector<OutputVerdict> judge_hadamard(const Case& c, const Arrays& out) {
  const std::vector<double> y = values_of(c, out, "y"), scale = values_of(c, out, "scale");
  const Said said = hadamard_said(c, &scale);
  return {{"y", c.out.at("y").shape(), compare(y, said.y, said.y_allowed)},
          {"scale", c.out.at("scale").shape(), compare(scale, said.scale, said.scale_allowed)}};
}

struct LatentRows {
  Index R, P, runs;
  explicit LatentRows(const Case& c)
      : R(c.integer("R")), P(c.in.at("x").shape()[1] - R), runs((R + run - 1) / run) {}
  Index bytes() const { return R + 4 * runs + 2 * P; }
};

Said latent_said(const Case& c, const std::vector<double>* got_scale) {
  const auto x = widen<2>(c.in.at("x"));
  const LatentRows rows(c);
  Said said;
  for (Index t = 0; t < x.shape()[0]; ++t)
    for (Index r = 0; r < rows.runs; ++r) {
      std::vector<Interval> row;
      for (Index i = r * run; i < std::min(rows.R, (r + 1) * run); ++i)
        row.push_back({x(t, i), x(t, i)});
      said.add(row, c.flag("ue8m0"),
               got_scale ? &(*got_scale)[static_cast<std::size_t>(t * rows.runs + r)] : nullptr);
    }
  return said;
}

std::vector<double> rope_of(const Case& c) {
  const auto x = widen<2>(c.in.at("x"));
  std::vector<double> rope;
  for (Index t = 0; t < x.shape()[0]; ++t)
    for (Index i = LatentRows(c).R; i < x.shape()[1]; ++i)
      rope.push_back(round_to(Dtype::bf16, x(t, i)));
  return rope;
}

void answer_latent(Case& c) {
  const LatentRows rows(c);
  require(rows.R > 0 && rows.P >= 0,
          "R is " + std::to_string(rows.R) + " of " + std::to_string(c.in.at("x").shape()[1]) +
              " channels, expected 1 or more, and no more than there are");
  c.out["y"] = Array(Dtype::u8, {c.sizes.at('T'), rows.bytes()});
  Said said = latent_said(c, nullptr);
  c.want["latent"] = std::move(said.y), c.allowed["latent"] = std::move(said.y_allowed);
  c.want["scale"] = std::move(said.scale);
  c.allowed["scale"] = std::move(said.scale_allowed);
  c.want["rope"] = rope_of(c);
  c.allowed["rope"].assign(c.want["rope"].size(), 0);
}

Case pose_latent(Index T, Index R, Index P, bool ue8m0, std::uint64_t seed) {
  Case c = start_case("latent_e4m3", "fp8", {{'T', T}, {'R', R}, {'P', P}}, Inputs::gaussian,
                      ue8m0 ? "ue8m0" : "");
  Draw draw(c, seed);
  c.scalars = {{"R", static_cast<double>(R)}, {"ue8m0", ue8m0}};
  c.in["x"] = inputs(draw, Dtype::f32, T, R + P);
  answer_latent(c);
  return finished(std::move(c));
}

std::vector<OutputVerdict> judge_latent(const Case& c, const Arrays& out) {
  values_of(c, out, "y");  // the shape is checked there
  const LatentRows rows(c);
  const Index T = c.in.at("x").shape()[0];
  std::vector<double> latent(static_cast<std::size_t>(T * rows.R)),
      scale(static_cast<std::size_t>(T * rows.runs)), rope(static_cast<std::size_t>(T * rows.P));
  for (Index t = 0; t < T; ++t) {
    const std::byte* const row = out.at("y").bytes().data() + t * rows.bytes();
    decode(Dtype::f8_e4m3, row, rows.R, latent.data() + t * rows.R);
    decode(Dtype::f32, row + rows.R, rows.runs, scale.data() + t * rows.runs);
    decode(Dtype::bf16, row + rows.R + 4 * rows.runs, rows.P, rope.data() + t * rows.P);
  }
  const Said said = latent_said(c, &scale);
  const std::vector<double> exact(rope.size());
  return {{"y.latent", {T, rows.R}, compare(latent, said.y, said.y_allowed)},
          {"y.scale", {T, rows.runs}, compare(scale, said.scale, said.scale_allowed)},
          {"y.rope", {T, rows.P}, compare(rope, rope_of(c), exact)}};
}

}  // namespace

Op hadamard_op() {
  return {
      "hadamard_e4m3",
      "y scale = bf16( H_D x / sqrt(D) ), scale = amax/448 of a row, up to 2^n under ue8m0",
      {"fp8"},
      [](std::uint64_t seed) {
        Poses poses;
        for (const Inputs kind : {Inputs::dyadic, Inputs::gaussian})
          for (const bool ue8m0 : {false, true})
            for (const auto& [T, D] : std::vector<std::pair<Index, Index>>{
                     {0, 8}, {1, 1}, {3, 2}, {5, 4}, {5, 16}, {33, 64}, {100, 128}, {9, 256}})
              poses.push_back({"fp8", 0, [=] { return pose_hadamard(T, D, ue8m0, kind, seed); }});
        return poses;
      },
      judge_hadamard,
      answer_hadamard,
      {{"x", "TD", InputRule::Kind::fp32}},
      {{"ue8m0", 0, true}}};
}

Op latent_op() {
  return {"latent_e4m3",
          "[x[:R] / scale as e4m3 | scale = amax/448 of 128 channels | x[R:] as bf16]",
          {"fp8"},
          [](std::uint64_t seed) {
            Poses poses;
            for (const bool ue8m0 : {false, true})
              for (const auto& [T, R, P] : std::vector<std::array<Index, 3>>{{0, 8, 2},
                                                                             {1, 1, 1},
                                                                             {3, 5, 2},
                                                                             {5, 128, 6},
                                                                             {33, 200, 10},
                                                                             {0, 8, 4},
                                                                             {6, 132, 12},
                                                                             {100, 512, 64}})
                poses.push_back({"fp8", 0, [=] { return pose_latent(T, R, P, ue8m0, seed); }});
            return poses;
          },
          judge_latent,
          answer_latent,
          {{"x", "T?", InputRule::Kind::fp32}},
          {{"R", must_be_given, true}, {"ue8m0", 0, true}}};
}

}  // namespace dsa::verify::kernels
