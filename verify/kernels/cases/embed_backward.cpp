// d_table[tokens[t],:] += d_x[t,:]. As many sums as the token has rows, in any order.
#include "reference/ops/embed.hpp"
#include "verify/kernels/cases/all.hpp"
#include "verify/kernels/cases/pose.hpp"
#include "verify/kernels/cases/rounded.hpp"

namespace dsa::verify::kernels {
namespace {

Case start(Index T, Index V, Index C, Inputs inputs, std::uint64_t seed,
           const std::string& tag = "") {
  Case c = start_case("embed_backward", "fp32", {{'T', T}, {'V', V}, {'C', C}}, inputs, tag);
  Draw draw(c, seed);
  c.in["d_table"] = draw.numbers(Dtype::f32, {V, C});
  c.in["d_x"] = draw.numbers(Dtype::f32, {T, C});
  std::vector<double> tokens;
  for (Index t = 0; t < T; ++t) tokens.push_back(static_cast<double>(draw.below(V)));
  if (T > 1) tokens.front() = tokens.back() = static_cast<double>(V - 1);
  c.in["tokens"] = Array(Dtype::i32, {T}, tokens);
  return c;
}

void set_answer(Case& c) {
  const auto ids = c.in.at("tokens").as<std::int32_t, 1>();
  const std::vector<Token> tokens(ids.begin(), ids.end());
  const auto d_x = widen<2>(c.in.at("d_x"));
  auto want = widen<2>(c.in.at("d_table"));
  const auto [V, C] = want.shape();
  for (const Token token : tokens)
    require(0 <= token && token < V, "tokens holds " + std::to_string(token) +
                                         ", expected rows of d_table, 0 to " +
                                         std::to_string(V - 1));
  c.out["d_table"] = Array(Dtype::f32, {V, C});
  std::vector<Sum> sums;
  for (const double x : want) sums.emplace_back(x);
  for (Index t = 0; t < d_x.shape()[0]; ++t)
    for (Index i = 0; i < C; ++i) sums[static_cast<std::size_t>(ids(t) * C + i)].add(d_x(t, i));
  reference::embed_backward<double>(want, tokens, d_x);
  std::vector<double> allowed;
  for (const Sum& sum : sums) allowed.push_back(sum.error());
  answer(c, "d_table", list(want), std::move(allowed), true);
}

Case pose(Index T, Index V, Index C, Inputs inputs, std::uint64_t seed) {
  Case c = start(T, V, C, inputs, seed);
  set_answer(c);
  return finished(std::move(c));
}

/// A token that is not in the vocabulary.
Case pose_stranger(std::int32_t token, std::uint64_t seed) {
  Case c = start(5, 700, 8, Inputs::adversarial, seed, "token" + std::to_string(token));
  c.in["tokens"].as<std::int32_t, 1>()(3) = token;
  c.out["d_table"] = Array(Dtype::f32, {700, 8});
  c.refusal = {std::to_string(token)};
  return finished(std::move(c));
}

Poses cases(std::uint64_t seed) {
  Poses poses;
  for (const Inputs inputs : {Inputs::dyadic, Inputs::gaussian})
    for (const auto& [T, V, C] : std::vector<std::array<Index, 3>>{
             {0, 3, 4}, {1, 1, 1}, {3, 2, 5}, {7, 11, 33}, {40, 3, 17}, {65, 129, 100}})
      poses.push_back(
          {"fp32", static_cast<double>(T * C), [=] { return pose(T, V, C, inputs, seed); }});
  for (const std::int32_t token : {-1, 700})
    poses.push_back({"fp32", 40, [=] { return pose_stranger(token, seed); }});
  return poses;
}

}  // namespace

Op embed_backward_op() {
  return {"embed_backward",
          "d_table[tokens[t],:] += d_x[t,:]",
          {"fp32"},
          cases,
          judge_elementwise,
          set_answer,
          {{"d_table", "VC", InputRule::Kind::fp32},
           {"d_x", "TC", InputRule::Kind::fp32},
           {"tokens", "T", InputRule::Kind::int32}}};
}

}  // namespace dsa::verify::kernels
