// A mixture of experts: the chosen feed-forward networks of every token, weighted and summed.
//
// gate and up are sums of C products, h = silu(gate) up is stored in the dtype of the case, down is
// a sum of F products, and the k results are weighted and summed: each bound in turn, on
// magnitudes, of numbers that are wrong by the one before.
#include "reference/ops/linear.hpp"
#include "reference/ops/swiglu.hpp"
#include "verify/kernels/cases/all.hpp"
#include "verify/kernels/cases/pose.hpp"
#include "verify/kernels/cases/swiglu.hpp"

namespace dsa::verify::kernels {
namespace {

constexpr double u = unit_roundoff_fp32;

struct Plan {
  std::string dtype;
  Index T, k, E, C, F;
  Inputs inputs = Inputs::gaussian;
  std::string tag = {};  // "saturated", "unchosen-nan", "no-such-expert"
};

/// One expert's answer for one token, and how wrong it may be.
struct Said {
  Tensor<double, 2> y, error;  // (1, C)
};

Tensor<double, 2> row(const Tensor<double, 2>& x, Index t) {
  Tensor<double, 2> one({1, x.shape()[1]});
  std::copy_n(x.view()[t].data, one.size(), one.data());
  return one;
}

Tensor<double, 2> matrix(const Tensor<double, 3>& w, Index e) {
  Tensor<double, 2> one({w.shape()[1], w.shape()[2]});
  std::copy_n(w.view()[e].data, one.size(), one.data());
  return one;
}

Tensor<double, 2> product(const Tensor<double, 2>& x, const Tensor<double, 2>& w) {
  Tensor<double, 2> y({x.shape()[0], w.shape()[0]});
  reference::multiply<double>(y, x, w);
  return y;
}

Said expert(const Tensor<double, 2>& x, const Tensor<double, 2>& gate_up,
            const Tensor<double, 2>& down, Dtype stored) {
  const Index C = x.shape()[1], F = down.shape()[1];
  const double underflow = 2 * static_cast<double>(C + F) * smallest_normal_fp32;
  const auto both = product(x, gate_up), both_size = product(magnitude(x), magnitude(gate_up));
  Tensor<double, 2> gate({1, F}), up({1, F}), h({1, F}), h_error({1, F});
  for (Index f = 0; f < F; ++f) gate(0, f) = both(0, f), up(0, f) = both(0, F + f);
  reference::swiglu<double>(h, gate, up);
  std::vector<double> errors;
  for (Index f = 0; f < F; ++f)
    errors.push_back(underflow + swiglu_error(gate(0, f), up(0, f), gamma(C, u) * both_size(0, f),
                                              gamma(C, u) * both_size(0, F + f)));
  if (stored != Dtype::f32) allow_storing(stored, list(h), errors);
  std::copy(errors.begin(), errors.end(), h_error.begin());
  Said said{product(h, down), product(h_error, magnitude(down))};
  const auto size = product(magnitude(h), magnitude(down));
  for (Index i = 0; i < C; ++i)
    said.error(0, i) += gamma(F, u) * (size(0, i) + said.error(0, i)) + underflow;
  return said;
}

/// Numbers of which h is stored exactly, even in bf16: every gate is 32, where silu is the
/// identity, and every up one product of two dyadics.
void saturate(Case& c) {
  const Index T = c.sizes.at('T'), E = c.sizes.at('E'), C = c.sizes.at('C'), F = c.sizes.at('F');
  auto x = widen<2>(c.in["x"]);
  auto gate_up = widen<3>(c.in["gate_up"]);
  for (Index t = 0; t < T; ++t) x(t, 0) = 1;
  for (Index e = 0; e < E; ++e)
    for (Index f = 0; f < F; ++f)
      for (Index i = 0; i < C; ++i) {
        gate_up(e, f, i) = i == 0 ? 32 : 0;
        if (i != f % C) gate_up(e, F + f, i) = 0;
      }
  c.in["x"] = Array(c.in["x"].dtype(), {T, C}, list(x));
  c.in["gate_up"] = Array(c.in["x"].dtype(), {E, 2 * F, C}, list(gate_up));
}

void set_answer(Case& c) {
  const Index T = c.sizes.at('T'), k = c.sizes.at('K'), E = c.sizes.at('E'), C = c.sizes.at('C'),
              F = c.sizes.at('F');
  expect_shape("gate_up", widen<3>(c.in.at("gate_up")).view(), {E, 2 * F, C});
  const auto chosen = c.in.at("chosen").as<std::int32_t, 2>();
  for (const Index e : chosen)
    require(e >= 0 && e < E, "chosen holds expert " + std::to_string(e) + ", expected 0 to " +
                                 std::to_string(E - 1));
  const Dtype stored = storage_of(c.dtype);
  const auto x = widen<2>(c.in.at("x")), weights = widen<2>(c.in.at("weights"));
  const auto gate_up = widen<3>(c.in.at("gate_up")), down = widen<3>(c.in.at("down"));
  Tensor<double, 2> want({T, C}), sizes({T, C}), allowed({T, C});
  for (Index t = 0; t < T; ++t)
    for (Index i = 0; i < k; ++i) {
      const Index e = chosen(t, i);
      const Said said = expert(row(x, t), matrix(gate_up, e), matrix(down, e), stored);
      for (Index j = 0; j < C; ++j) {
        want(t, j) += weights(t, i) * said.y(0, j);
        sizes(t, j) += std::abs(weights(t, i) * said.y(0, j));
        allowed(t, j) += std::abs(weights(t, i)) * said.error(0, j);
      }
    }
  for (Index t = 0; t < T; ++t)
    for (Index j = 0; j < C; ++j)
      allowed(t, j) += gamma(k + 1, u) * (sizes(t, j) + allowed(t, j)) + smallest_normal_fp32;
  c.out["y"] = Array(Dtype::f32, {T, C});
  answer(c, "y", list(want), list(allowed), false);
}

Case pose(const Plan& plan, std::uint64_t seed) {
  const auto& [dtype, T, k, E, C, F, inputs, tag] = plan;
  Case c =
      start_case("experts", dtype, {{'T', T}, {'K', k}, {'E', E}, {'C', C}, {'F', F}}, inputs, tag);
  Draw draw(c, seed);
  const Dtype stored = storage_of(dtype);
  c.in["x"] = draw.numbers(stored, {T, C});
  const bool dyadic = inputs == Inputs::dyadic;
  const auto size = [&](Index n) { return dyadic ? 1 : 1 / std::sqrt(static_cast<double>(n)); };
  c.in["gate_up"] = draw.numbers(stored, {E, 2 * F, C}, size(C));
  c.in["down"] = draw.numbers(stored, {E, C, F}, size(F));
  if (dyadic) saturate(c);
  c.in["weights"] = draw.scales({T, k}, false);
  const Index available = tag == "unchosen-nan" ? E - 1 : E;  // nobody chooses the last
  std::vector<double> chosen;
  std::vector<bool> used(static_cast<std::size_t>(E));
  for (Index t = 0; t < T; ++t)
    for (const Index e : draw.subset(k, available))
      chosen.push_back(static_cast<double>(e)), used[static_cast<std::size_t>(e)] = true;
  c.in["chosen"] = Array(Dtype::i32, {T, k}, chosen);
  set_answer(c);
  if (tag == "no-such-expert") {
    c.in["chosen"].as<std::int32_t, 2>()(T - 1, k - 1) = static_cast<std::int32_t>(E);
    c.refusal = {std::to_string(E)};
  }
  if (tag == "unchosen-nan")
    for (const auto& [name, rows] : {std::pair{"gate_up", 2 * F}, {"down", F}}) {
      const auto unchosen =
          c.in[name].bytes().last(static_cast<std::size_t>(rows * C * bits_of(stored) / 8));
      std::fill(unchosen.begin(), unchosen.end(), std::byte{0xff});
    }
  const auto read = static_cast<double>(std::count(used.begin(), used.end(), true));
  c.bytes = read * static_cast<double>(3 * C * F * bits_of(stored) / 8) +
            static_cast<double>(T * C * bits_of(stored) / 8 + 8 * T * k + 4 * T * C);
  return finished(std::move(c));
}

Poses cases(std::uint64_t seed) {
  Poses poses;
  const auto add = [&](const Plan& plan) {
    poses.push_back(
        {plan.dtype, 3 * twice(plan.T, plan.k, plan.C, plan.F), [=] { return pose(plan, seed); }});
  };
  for (const std::string dtype : {"fp32", "bf16"}) {
    for (const auto& [T, k, E, C, F] : std::vector<std::array<Index, 5>>{{0, 1, 2, 3, 4},
                                                                         {5, 1, 6, 16, 16},
                                                                         {1, 1, 1, 1, 1},
                                                                         {3, 2, 4, 5, 7},
                                                                         {17, 3, 5, 33, 20},
                                                                         {40, 2, 3, 65, 130},
                                                                         {0, 2, 3, 8, 16},
                                                                         {150, 2, 3, 24, 72},
                                                                         {1, 3, 50, 40, 24},
                                                                         {16, 8, 32, 512, 128}})
      add({dtype, T, k, E, C, F});
    for (const auto& [T, k, E, C, F] :
         std::vector<std::array<Index, 5>>{{3, 2, 4, 5, 7}, {19, 3, 5, 40, 72}})
      add({dtype, T, k, E, C, F, Inputs::dyadic, "saturated"});
    for (const std::string tag : {"unchosen-nan", "no-such-expert"})
      add({dtype, 7, 2, 23, 24, 40, Inputs::adversarial, tag});
  }
  return poses;
}

}  // namespace

Op experts_op() {
  return {"experts",
          "y[t,:] = sum_i weights[t,i] down_e( silu(gate_e x[t,:]) up_e x[t,:] ), e = chosen[t,i]",
          {"fp32", "bf16"},
          cases,
          judge_elementwise,
          set_answer,
          {{"x", "TC"},
           {"gate_up", "E?C"},
           {"down", "ECF"},
           {"weights", "TK", InputRule::Kind::fp32},
           {"chosen", "TK", InputRule::Kind::int32}}};
}

}  // namespace dsa::verify::kernels
