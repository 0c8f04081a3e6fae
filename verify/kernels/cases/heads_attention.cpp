// Attention in expanded form, as training computes it: over packed documents, every visible key or
// the chosen ones.
//
// Forward: the bounds of mla.cpp, scores of gamma(C). Backward, with out and lse as the forward
// pass rounded them: the formulas with their roundings,
//   p_s = exp( z_s - lse ),  d_z_s = p_s ( d_out.v_s - d_out.out ),
// and sums over keys or over the queries that see a key, in any order.
#include "reference/ops/mla.hpp"
#include "verify/kernels/cases/all.hpp"
#include "verify/kernels/cases/mla.hpp"
#include "verify/kernels/cases/packed.hpp"
#include "verify/kernels/cases/rounded.hpp"

namespace dsa::verify::kernels {
namespace {

constexpr double u = unit_roundoff_fp32;

struct Plan {
  Lengths documents;
  Index N, C, U, K;  // K 0: every visible key
  std::string tag = {};
  double size = 1;  // of the scores

  bool holes() const { return tag == "holes"; }
  double pairs() const { return pairs_of(documents, K); }
};

struct Problem {
  Case c;
  std::vector<std::vector<Index>> keys;
  Tensor<double, 3> q, k, v, out;
  Tensor<double, 2> lse;
  double scale;

  Problem(std::string_view op, const Plan& plan, std::uint64_t seed) : c(start(op, plan)) {
    Draw draw(c, seed);
    const Index T = rows_of(plan.documents);
    c.scalars["scale"] = 0.8 * plan.size / std::sqrt(static_cast<double>(plan.C));
    c.in["q"] = draw.numbers(Dtype::f32, {T, plan.N, plan.C});
    c.in["k"] = draw.numbers(Dtype::f32, {T, plan.N, plan.C});
    c.in["v"] = draw.numbers(Dtype::f32, {T, plan.N, plan.U});
    c.in["begin"] = begin_of(plan.documents);
    if (plan.K > 0) c.in["chosen"] = draw_chosen(draw, plan.documents, plan.K, plan.holes());
    keys = keys_of_rows(c);
    q = widen<3>(c.in["q"]), k = widen<3>(c.in["k"]), v = widen<3>(c.in["v"]);
    scale = c.scalar("scale");
    out = Tensor<double, 3>(v.shape());
    lse = Tensor<double, 2>({T, plan.N});
  }

  static Case start(std::string_view op, const Plan& plan) {
    Extents extents = {{'T', rows_of(plan.documents)}, {'N', plan.N}, {'C', plan.C}, {'U', plan.U}};
    if (plan.K > 0) extents.push_back({'K', plan.K});
    return start_case(op, "fp32", extents,
                      plan.tag.empty() ? Inputs::gaussian : Inputs::adversarial,
                      tag_of(plan.documents) + (plan.tag.empty() ? "" : "-" + plan.tag));
  }

  /// scale q.k, and the roundings of the sum.
  Rounded score(Index t, Index n, Index s) const {
    Sum dot;
    for (Index i = 0; i < q.shape()[2]; ++i) dot.add(q(t, n, i), k(s, n, i));
    return times(dot.total(), scale);
  }
};

/// Output and lse of every row, with their errors.
void attend(Problem& p, Tensor<double, 3>& out_error, Tensor<double, 2>& lse_error) {
  const Index T = p.v.shape()[0], N = p.v.shape()[1], U = p.v.shape()[2];
  const Tensor<double, 3> size = magnitude(p.v), none({T, N, U});
  for (Index t = 0; t < T; ++t)
    for (Index n = 0; n < N; ++n) {
      std::vector<double> score, error;
      std::vector<Value> values;
      for (const Index s : p.keys[static_cast<std::size_t>(t)]) {
        const Rounded z = p.score(t, n, s);
        score.push_back(z.x), error.push_back(z.error);
        values.push_back({p.v.view()[s][n].data, size.view()[s][n].data, none.view()[s][n].data});
      }
      const Weights w = weights_of(score, error);
      p.lse(t, n) = w.lse, lse_error(t, n) = w.lse_error;
      sum_values(p.out.view()[t][n], out_error.view()[t][n], w, values, false);
    }
}

Case pose(const Plan& plan, std::uint64_t seed) {
  Problem p("heads_attention", plan, seed);
  Tensor<double, 3> out_error(p.out.shape());
  Tensor<double, 2> lse_error(p.lse.shape());
  attend(p, out_error, lse_error);
  p.c.out["out"] = Array(Dtype::f32, p.c.in["v"].shape());
  p.c.out["lse"] = Array(Dtype::f32, {p.lse.shape()[0], plan.N});
  answer(p.c, "out", list(p.out), list(out_error), false);
  answer(p.c, "lse", list(p.lse), list(lse_error), false);
  return finished(std::move(p.c));
}

/// Sums of a gradient.
struct HeadSums {
  Index N, width;
  std::vector<Sum> of;

  explicit HeadSums(const Tensor<double, 3>& like)
      : N(like.shape()[1]), width(like.shape()[2]), of(static_cast<std::size_t>(like.size())) {}
  void add(Index row, Index n, Rounded factor, const Tensor<double, 3>& x, Index x_row) {
    for (Index i = 0; i < width; ++i)
      of[static_cast<std::size_t>((row * N + n) * width + i)].add(factor, x(x_row, n, i));
  }
  std::vector<double> errors() const {
    std::vector<double> errors;
    for (const Sum& sum : of) errors.push_back(sum.error());
    return errors;
  }
};

struct Gradients {
  HeadSums d_q, d_k, d_v;
};

/// What query t of head n gives to each.
void bound_query(Gradients& d, const Problem& p, const Tensor<double, 3>& d_out, Index t, Index n) {
  const Index U = p.v.shape()[2];
  const Rounded lse(p.lse(t, n), u * std::abs(p.lse(t, n)));
  Sum delta;
  for (Index i = 0; i < U; ++i)
    delta.add(d_out(t, n, i), {p.out(t, n, i), u * std::abs(p.out(t, n, i))});
  for (const Index s : p.keys[static_cast<std::size_t>(t)]) {
    const Rounded z = p.score(t, n, s);
    const Rounded w = exp_of({z.x - lse.x, z.error + lse.error}, std::abs(z.x) + std::abs(lse.x));
    Sum d_p;
    for (Index i = 0; i < U; ++i) d_p.add(d_out(t, n, i), p.v(s, n, i));
    const Rounded d_z = w * (d_p.total() - delta.total()) * p.scale;
    d.d_v.add(s, n, w, d_out, t);
    d.d_q.add(t, n, d_z, p.k, s);
    d.d_k.add(s, n, d_z, p.q, t);
  }
}

/// Nothing of a row that sees no key is in the sums: its gradient is 0.
void set_gradients(Problem& p, const Tensor<double, 3>& d_out) {
  const Index T = p.q.shape()[0], N = p.q.shape()[1], C = p.q.shape()[2], U = p.v.shape()[2];
  Tensor<double, 3> kv({T, N, C + U}), d_q(p.q.shape()), d_kv(kv.shape()), no_rope({T, N, 0}),
      d_no_rope({T, N, 0}), d_k(p.k.shape()), d_v(p.v.shape());
  Tensor<double, 2> no_key({T, 0}), d_no_key({T, 0});
  for (Index row = 0; row < T * N; ++row) {
    std::copy_n(p.k.data() + row * C, C, kv.data() + row * (C + U));
    std::copy_n(p.v.data() + row * U, U, kv.data() + row * (C + U) + C);
  }
  const Tensor<Index, 2> chosen = as_chosen(p.keys);
  reference::mla_expanded_backward<double>({d_q, d_no_rope, d_kv, d_no_key},
                                           {p.q, no_rope, kv, no_key, chosen, p.scale}, d_out);
  for (Index row = 0; row < T * N; ++row) {
    std::copy_n(d_kv.data() + row * (C + U), C, d_k.data() + row * C);
    std::copy_n(d_kv.data() + row * (C + U) + C, U, d_v.data() + row * U);
  }
  Gradients d{HeadSums(p.q), HeadSums(p.k), HeadSums(p.v)};
  for (Index t = 0; t < T; ++t)
    for (Index n = 0; n < N; ++n) bound_query(d, p, d_out, t, n);
  answer(p.c, "d_q", list(d_q), d.d_q.errors(), false);
  answer(p.c, "d_k", list(d_k), d.d_k.errors(), false);
  answer(p.c, "d_v", list(d_v), d.d_v.errors(), false);
}

Case pose_backward(const Plan& plan, std::uint64_t seed) {
  Problem p("heads_attention_backward", plan, seed);
  Tensor<double, 3> out_error(p.out.shape());
  Tensor<double, 2> lse_error(p.lse.shape());
  attend(p, out_error, lse_error);
  p.c.in["out"] = Array(Dtype::f32, p.c.in["v"].shape(), list(p.out));
  p.c.in["lse"] = Array(Dtype::f32, {p.lse.shape()[0], plan.N}, list(p.lse));
  Draw draw(p.c, seed + 1);
  p.c.in["d_out"] = draw.numbers(Dtype::f32, p.c.in["v"].shape());
  p.c.out["d_q"] = p.c.out["d_k"] = Array(Dtype::f32, p.c.in["q"].shape());
  p.c.out["d_v"] = Array(Dtype::f32, p.c.in["v"].shape());
  set_gradients(p, widen<3>(p.c.in["d_out"]));
  return finished(std::move(p.c));
}

/// A row that chose what it does not see.
Case pose_stranger(bool back, const std::string& tag, std::int32_t key, std::uint64_t seed) {
  const Plan plan{{9, 7}, 2, 5, 3, 4, tag};
  Case c = back ? pose_backward(plan, seed) : pose(plan, seed);
  choose_wrongly(c, 12, key > 12 ? 3 : 0, key);
  return c;
}

std::vector<Plan> plans() {
  return {{{}, 2, 4, 3, 0},
          {{1}, 1, 1, 1, 0},
          {{1}, 1, 1, 1, 1},
          {{5, 1, 1, 9}, 3, 7, 5, 0},
          {{5, 1, 1, 9}, 3, 7, 5, 1},
          {{5, 1, 1, 9}, 2, 16, 8, 4},
          {{8}, 2, 9, 6, 7},  // K = S - 1
          {{8}, 2, 9, 6, 9},  // K = S + 1
          {{4, 23}, 5, 3, 17, 3},
          {{49, 65}, 1, 5, 3, 0},
          {{66, 1, 63}, 6, 24, 16, 9},
          {{130}, 9, 24, 16, 100},  // of 128 queries and more; taken by blocks
          {{150, 3}, 11, 12, 20, 5},
          {{5, 14}, 2, 7, 5, 4, "holes"},
          {{50}, 2, 6, 5, 3, "holes"},
          {{12, 8}, 2, 6, 5, 0, "huge-scores", 300},
          {{12, 8}, 2, 6, 5, 4, "huge-scores", 300},
          {{12, 8}, 2, 6, 5, 0, "equal-scores", 0}};
}

Poses cases(bool back, std::uint64_t seed) {
  Poses poses;
  for (const Plan& plan : plans())
    poses.push_back({"fp32",
                     (back ? 5 : 2) * plan.pairs() * static_cast<double>(plan.N) *
                         static_cast<double>(plan.C + plan.U),
                     [=] { return back ? pose_backward(plan, seed) : pose(plan, seed); }});
  if (!back) poses.push_back({"fp32", 2e4, [=] { return pose({{5, 9}, 3, 7, 0, 0}, seed); }});
  for (const auto& [tag, key] :
       std::vector<std::pair<std::string, std::int32_t>>{{"future", 13}, {"another-document", 8}})
    poses.push_back(
        {"fp32", 2e4, [=, tag = tag, key = key] { return pose_stranger(back, tag, key, seed); }});
  return poses;
}

}  // namespace

Op heads_attention_op() {
  return {"heads_attention",
          "out[t,n,:] = sum_s softmax_s( scale q[t,n,:] . k[s,n,:] ) v[s,n,:], "
          "begin[t] <= s <= t or s in chosen[t,:]",
          {"fp32"},
          [](std::uint64_t seed) { return cases(false, seed); },
          judge_elementwise};
}

Op heads_attention_backward_op() {
  return {"heads_attention_backward",
          "d_v_s = sum_t p_s d_out, d_z_s = p_s ( d_out.v_s - d_out.out ), "
          "d_q = scale sum_s d_z_s k_s, d_k_s = scale sum_t d_z_s q",
          {"fp32"},
          [](std::uint64_t seed) { return cases(true, seed); },
          judge_elementwise};
}

}  // namespace dsa::verify::kernels
