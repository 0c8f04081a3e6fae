// rmsnorm and layernorm backwards: the formulas with their roundings.
//
// 1/r is wrong as in norms.cpp: half of gamma(C + 3) is left by the root, and gamma(6) is for root,
// division and what a reciprocal root that is refined takes. layernorm: the mean is wrong by delta
// = gamma(C) mean|x|, which moves every difference from it, and the variance by delta^2. d_g and
// d_b are sums over rows, in any order, on top of what was there.
#include "reference/ops/norms.hpp"
#include "verify/kernels/cases/all.hpp"
#include "verify/kernels/cases/pose.hpp"
#include "verify/kernels/cases/rounded.hpp"

namespace dsa::verify::kernels {
namespace {

constexpr double u = unit_roundoff_fp32;
constexpr double usual_eps = 1e-6;
constexpr Index after_the_root = 6;

struct Plan {
  Index T, C;
  Inputs inputs = Inputs::gaussian;
  std::string tag = {};
  double mean = 0, size = 1;  // x = mean + size * normal
  bool add = false;           // d_x, too, is added to

  double flops() const { return 8 * twice(T, C); }
};

/// What the two have in common. The gradients hold what is added to: 0 where nothing was given.
struct Problem {
  bool centred, add;  // layernorm; d_x is added to
  double eps;
  Tensor<double, 2> x, d_y, d_x;
  Tensor<double, 1> g, d_g, d_b;

  Problem(bool layernorm, const Case& c)
      : centred(layernorm),
        add(c.flag("add")),
        eps(c.scalar("eps")),
        x(widen<2>(c.in.at("x"))),
        d_y(widen<2>(c.in.at("d_y"))),
        d_x(add ? before<2>(c, "d_x", x.shape()) : Tensor<double, 2>(x.shape())),
        g(widen<1>(c.in.at("g"))),
        d_g(before<1>(c, "d_g", g.shape())),
        d_b(before<1>(c, "d_b", g.shape())) {}

 private:
  template <int Rank>
  static Tensor<double, Rank> before(const Case& c, const char* name, Shape<Rank> shape) {
    const auto found = c.in.find(name);
    return found == c.in.end() ? Tensor<double, Rank>(shape) : widen<Rank>(found->second);
  }
};

/// x - mean and 1/r of one row.
struct Row {
  std::vector<Rounded> d;
  Rounded over_r;

  Row(const Problem& p, Index t) {
    const Index C = p.x.shape()[1];
    const auto n = static_cast<double>(C);
    double mean = 0, size = 0, squares = 0;
    for (Index i = 0; i < C; ++i) {
      mean += p.centred ? p.x(t, i) / n : 0;
      size += std::abs(p.x(t, i)) / n;
    }
    const double delta = p.centred ? gamma(C, u) * size : 0;
    for (Index i = 0; i < C; ++i) {
      const double difference = p.x(t, i) - mean;
      squares += difference * difference / n;
      d.push_back(p.centred ? rounded({difference, delta}) : Rounded(difference));
    }
    const double over = 1 / std::sqrt(squares + p.eps);
    over_r = {over, over * (gamma(C + 4, u) / 2 + delta * delta * over * over / 2 +
                            gamma(after_the_root, u))};
  }
};

/// The errors of d_x of a row, and its terms of d_g and d_b.
void bound_row(const Problem& p, Index t, View<double, 1> d_x, std::vector<Sum>& d_g,
               std::vector<Sum>& d_b) {
  const Index C = p.x.shape()[1];
  const Row row(p, t);
  const Rounded share = 1 / static_cast<double>(C);
  Sum all, along;
  for (Index i = 0; i < C; ++i) {
    const Rounded d_n = Rounded(p.g(i)) * p.d_y(t, i);
    all.add(d_n);
    along.add(d_n, row.d[static_cast<std::size_t>(i)]);
  }
  const Rounded mean_d = p.centred ? rounded(times(all.total(), share)) : Rounded();
  const Rounded mean_dn = rounded(times(times(along.total(), row.over_r), share), 2);
  for (Index i = 0; i < C; ++i) {
    const auto c = static_cast<std::size_t>(i);
    const Rounded n = row.d[c] * row.over_r;
    const Rounded d = row.over_r * (Rounded(p.g(i)) * p.d_y(t, i) - mean_d - n * mean_dn);
    d_x(i) = p.add ? (d + p.d_x(t, i)).error : d.error;
    d_g[c].add(p.d_y(t, i), n);
    if (p.centred) d_b[c].add(p.d_y(t, i));
  }
}

std::vector<double> errors_of(const std::vector<Sum>& sums) {
  std::vector<double> errors;
  for (const Sum& sum : sums) errors.push_back(sum.error());
  return errors;
}

template <bool layernorm>
void set_answer(Case& c) {
  Problem p(layernorm, c);
  const auto [T, C] = p.x.shape();
  Tensor<double, 2> allowed({T, C});
  std::vector<Sum> d_g(p.d_g.begin(), p.d_g.end()), d_b(p.d_b.begin(), p.d_b.end());
  for (Index t = 0; t < T; ++t) bound_row(p, t, allowed.view()[t], d_g, d_b);
  if (layernorm)
    reference::layernorm_backward<double>(p.d_x, {p.d_g, p.d_b}, p.x, p.g, p.d_y, p.eps);
  else
    reference::rmsnorm_backward<double>(p.d_x, p.d_g, p.x, p.g, p.d_y, p.eps);
  c.out["d_x"] = Array(Dtype::f32, {T, C});
  c.out["d_g"] = Array(Dtype::f32, {C});
  answer(c, "d_x", list(p.d_x), list(allowed), false);
  answer(c, "d_g", list(p.d_g), errors_of(d_g), false);
  if (layernorm) {
    c.out["d_b"] = Array(Dtype::f32, {C});
    answer(c, "d_b", list(p.d_b), errors_of(d_b), false);
  }
}

template <bool layernorm>
Case pose(const Plan& plan, std::uint64_t seed) {
  Case c = start_case(layernorm ? "layernorm_backward" : "rmsnorm_backward", "fp32",
                      {{'T', plan.T}, {'C', plan.C}}, plan.inputs, plan.tag);
  Draw draw(c, seed);
  c.scalars = {{"eps", usual_eps}, {"add", plan.add}};
  std::vector<double> values = draw.numbers(Dtype::f32, {plan.T, plan.C}, plan.size).values();
  for (double& value : values) value += plan.mean;
  c.in["x"] = Array(Dtype::f32, {plan.T, plan.C}, values);
  c.in["g"] = draw.numbers(Dtype::f32, {plan.C});
  c.in["d_y"] = draw.numbers(Dtype::f32, {plan.T, plan.C});
  c.in["d_x"] = draw.numbers(Dtype::f32, {plan.T, plan.C}, plan.add ? 1 : 0);
  c.in["d_g"] = draw.numbers(Dtype::f32, {plan.C});
  if (layernorm) c.in["d_b"] = draw.numbers(Dtype::f32, {plan.C});
  set_answer<layernorm>(c);
  return finished(std::move(c));
}

template <bool layernorm>
Poses cases(std::uint64_t seed) {
  std::vector<Plan> plans;
  for (const auto& [T, C] : std::vector<std::pair<Index, Index>>{
           {0, 4}, {1, 1}, {3, 2}, {5, 17}, {7, 100}, {4, 129}, {64, 5}, {130, 33}, {2, 1030}})
    plans.push_back({T, C});
  const Inputs hard = Inputs::adversarial;
  plans.push_back({5, 19, Inputs::gaussian, "added", 0, 1, true});
  plans.push_back({3, 127, hard, "far-from-zero", 100});
  plans.push_back({3, 127, hard, "small", 0, 1e-4});  // eps is most of the root
  plans.push_back({3, 127, hard, "large", 0, 1e12});
  plans.push_back({3, 127, hard, "zeros", 0, 0});
  Poses poses;
  for (const Plan& plan : plans)
    poses.push_back({"fp32", plan.flops(), [=] { return pose<layernorm>(plan, seed); }});
  return poses;
}

template <bool layernorm>
std::vector<InputRule> inputs() {
  using enum InputRule::Kind;
  std::vector<InputRule> rules = {{"x", "TC", fp32},
                                  {"g", "C", fp32},
                                  {"d_y", "TC", fp32},
                                  {"d_x", "TC", fp32, true},
                                  {"d_g", "C", fp32, true}};
  if (layernorm) rules.push_back({"d_b", "C", fp32, true});
  return rules;
}

const std::vector<ScalarRule> scalars = {{"eps", usual_eps}, {"add", 0, true}};

}  // namespace

Op rmsnorm_backward_op() {
  return {"rmsnorm_backward",
          "n = x / r, d_n = g d_y: d_g += sum_t d_y n, d_x = ( d_n - n mean_c(d_n n) ) / r",
          {"fp32"},
          cases<false>,
          judge_elementwise,
          set_answer<false>,
          inputs<false>(),
          scalars};
}

Op layernorm_backward_op() {
  return {"layernorm_backward",
          "n = (x - mean) / r, d_n = g d_y: d_b += sum_t d_y, d_g += sum_t d_y n, "
          "d_x = ( d_n - mean_c(d_n) - n mean_c(d_n n) ) / r",
          {"fp32"},
          cases<true>,
          judge_elementwise,
          set_answer<true>,
          inputs<true>(),
          scalars};
}

}  // namespace dsa::verify::kernels
