// tests/verify/backward_attention.hpp — attention and the indexer in training as scalar kernels,
// right and wrong on purpose; and the list of all of training's.
#pragma once

#include "tests/verify/backward_kernels.hpp"
#include "verify/kernels/cases/indexer_kl.hpp"

namespace dsa::test {

/// The keys of row t: chosen, or every visible one; as `bug` reads them.
inline std::vector<Index> trained_keys(const Case& c, Index t, bool chosen,
                                       const std::string& bug) {
  const auto begin = c.in.at("begin").as<std::int32_t, 1>();
  const Index first = bug == "row of another document" ? 0 : begin(t);
  std::vector<Index> keys;
  if (chosen) {
    for (const std::int32_t s : c.in.at("chosen").as<std::int32_t, 2>()[t]) {
      if (s != -1 && (s < begin(t) || s > t))
        throw Error("row " + std::to_string(t) + " does not see key " + std::to_string(s));
      if (s >= 0 || bug == "-1 is key 0") keys.push_back(std::max(s, 0));
    }
  } else {
    for (Index s = first; s <= t; ++s) keys.push_back(s);
    if (bug == "own position hidden") keys.pop_back();
    if (bug == "one key of the future" && t + 1 < begin.shape[0] && begin(t + 1) == begin(t))
      keys.push_back(t + 1);
  }
  if (bug == "last key dropped" && keys.size() > 6) keys.pop_back();
  return keys;
}

/// scale q.k of a head.
inline float trained_score(const Case& c, const char* q_name, const char* k_name, Index t, Index n,
                           Index s, const std::string& bug) {
  const auto q = c.in.at(q_name).as<float, 3>(), k = c.in.at(k_name).as<float, 3>();
  Sum dot(bug);
  for (Index i = 0; i < q.shape[2]; ++i) dot.add(q(t, n, i), k(s, n, i));
  return dot.total() * static_cast<float>(c.scalar("scale"));
}

inline void scalar_heads_attention(const Case& c, Arrays& out, const std::string& bug) {
  const auto v = c.in.at("v").as<float, 3>();
  const auto o = out.at("out").as<float, 3>();
  const auto lse = out.at("lse").as<float, 2>();
  for (Index t = 0; t < v.shape[0]; ++t)
    for (Index n = 0; n < v.shape[1]; ++n) {
      const auto keys = trained_keys(c, t, c.in.contains("chosen"), bug);
      std::vector<float> p;
      float largest = -infinity_f, sum = 0;
      for (const Index s : keys) {
        p.push_back(trained_score(c, "q", "k", t, bug == "keys of head 0" ? 0 : n, s, bug));
        largest = std::max(largest, p.back());
      }
      if (bug == "no maximum subtracted") largest = 0;
      for (float& x : p) sum += x = std::exp(x - largest);
      for (Index i = 0; i < v.shape[2]; ++i) {
        o(t, n, i) = 0;
        for (std::size_t j = 0; j < keys.size(); ++j) o(t, n, i) += p[j] / sum * v(keys[j], n, i);
      }
      lse(t, n) = (keys.empty() ? -infinity_f : largest + std::log(sum)) /
                  (bug == "lse in base 2" ? std::log(2.0f) : 1);
    }
}

/// What query t of head n gives.
inline void scalar_head_backward(const Case& c, View<float, 3> d_q, View<float, 3> d_k,
                                 View<float, 3> d_v, Index t, Index n, const std::string& bug) {
  const auto q = c.in.at("q").as<float, 3>(), k = c.in.at("k").as<float, 3>(),
             v = c.in.at("v").as<float, 3>(), o = c.in.at("out").as<float, 3>(),
             d_out = c.in.at("d_out").as<float, 3>();
  const auto scale = static_cast<float>(c.scalar("scale"));
  float delta = 0;
  for (Index i = 0; i < v.shape[2] && bug != "no delta"; ++i) delta += d_out(t, n, i) * o(t, n, i);
  if (bug == "delta of head 0" && n > 0) delta = d_out(t, 0, 0) * o(t, 0, 0);
  for (const Index s : trained_keys(c, t, c.in.contains("chosen"), bug)) {
    const float lse = c.in.at("lse").as<float, 2>()(t, n),
                z = trained_score(c, "q", "k", t, n, s, bug);
    const float p = std::exp(bug == "lse in base 2" ? z - lse * std::log(2.0f) : z - lse);
    float d_p = 0;
    for (Index i = 0; i < v.shape[2]; ++i) {
      d_p += d_out(t, n, i) * v(s, n, i);
      d_v(s, n, i) += (bug == "d_v without p" ? 1 : p) * d_out(t, n, i);
    }
    float d_z = p * (d_p - delta) * scale;
    if (bug == "scale left out") d_z /= scale;
    if (bug == "scale twice") d_z *= scale;
    if (bug == "p (1 - p) alone") d_z = p * (1 - p) * d_p * scale;
    for (Index i = 0; i < q.shape[2]; ++i) {
      d_q(t, n, i) += d_z * k(s, n, i);
      d_k(s, n, i) += d_z * (bug == "d_k of the key itself" ? q(s, n, i) : q(t, n, i));
    }
  }
}

inline void scalar_heads_attention_backward(const Case& c, Arrays& out, const std::string& bug) {
  const auto d_q = out.at("d_q").as<float, 3>(), d_k = out.at("d_k").as<float, 3>(),
             d_v = out.at("d_v").as<float, 3>();
  for (const auto& d : {d_q, d_k, d_v}) std::fill(d.begin(), d.end(), 0.0f);
  for (Index t = 0; t < rows_done(d_q.shape[0], bug); ++t)
    for (Index n = 0; n < d_q.shape[1]; ++n) scalar_head_backward(c, d_q, d_k, d_v, t, n, bug);
}

/// q.k of the indexer's head.
inline float index_dot(const Case& c, Index t, Index h, Index s) {
  const auto q = c.in.at("q").as<float, 3>();
  const auto k = c.in.at("k").as<float, 2>();
  float dot = 0;
  for (Index i = 0; i < q.shape[2]; ++i) dot += q(t, h, i) * k(s, i);
  return dot;
}

inline float index_weight(const Case& c, Index t, Index h, const std::string& bug) {
  const float scale = static_cast<float>(c.scalar("dot_scale") * c.scalar("weight_scale"));
  const float w = c.in.contains("w") ? c.in.at("w").as<float, 2>()(t, h) : 1;
  return (bug == "no scales" ? 1 : scale) * (bug == "weights left out" ? 1 : w);
}

/// From d_scores of one pair.
inline void scalar_index_pair(const Case& c, Arrays& out, Index t, Index s, float d,
                              const std::string& bug) {
  const auto q = c.in.at("q").as<float, 3>();
  const auto d_q = out.at("d_q").as<float, 3>();
  const auto k = c.in.at("k").as<float, 2>();
  const auto d_k = out.at("d_k").as<float, 2>();
  const Index H = q.shape[1];
  for (Index h = 0; h < H; ++h) {
    const float a = index_dot(c, t, h, s);
    const bool relu = c.flag("relu") && bug != "no relu";
    if (relu && (bug == "relu passes 0" ? a < 0 : a <= 0)) continue;
    const float d_a = d * index_weight(c, t, h, bug);
    if (out.contains("d_w"))
      out.at("d_w").as<float, 2>()(t, h) +=
          d * a * static_cast<float>(c.scalar("dot_scale") * c.scalar("weight_scale"));
    for (Index i = 0; i < k.shape[1]; ++i) {
      d_q(t, h, i) += d_a * k(s, i);
      if (bug != "d_k of head 0" || h == 0) d_k(s, i) += d_a * q(t, h, i);
    }
  }
}

inline void clear_index_gradient(Arrays& out) {
  for (const char* name : {"d_q", "d_k", "d_w"}) {
    if (!out.contains(name)) continue;
    Array& d = out.at(name);
    d = Array(d.dtype(), d.shape());
  }
}

inline void scalar_index_backward(const Case& c, Arrays& out, const std::string& bug) {
  const auto chosen = c.in.at("chosen").as<std::int32_t, 2>();
  const auto d_scores = c.in.at("d_scores").as<float, 2>();
  clear_index_gradient(out);
  for (Index t = 0; t < rows_done(chosen.shape[0], bug); ++t) {
    const auto keys = trained_keys(c, t, true, bug);
    for (std::size_t i = 0; i < keys.size(); ++i)
      scalar_index_pair(c, out, t, keys[i], d_scores(t, static_cast<Index>(i)), bug);
  }
}

inline float guarded(const Guard& guard, float x) {
  return std::max(x + static_cast<float>(guard.added), static_cast<float>(guard.least));
}

/// One row of the indexer's loss.
class ScalarKl {
 public:
  ScalarKl(const Case& c, Index t, const std::string& bug) : c_(c), t_(t), bug_(bug) {
    using Keys = KlSemantics::Keys;
    semantics_ = verify::kernels::kl_semantics(c);
    const bool dense =
        semantics_.teacher_softmax == Keys::visible && semantics_.teacher_keys == Keys::visible;
    const auto taught = trained_keys(c, t, !dense, bug);
    keys = trained_keys(
        c, t, (semantics_.student_keys == Keys::chosen) != (bug == "student's keys"), bug);
    float sum = 0;
    for (const Index s : taught) sum += mass(s);
    if (semantics_.teacher_softmax == Keys::visible && !dense && bug == "divided by the heads")
      sum = static_cast<float>(c.in.at("attention_q").shape()[1]);
    for (const Index s : keys) {
      const bool has = std::find(taught.begin(), taught.end(), s) != taught.end();
      p_.push_back(has ? mass(s) / guarded(semantics_.l1, sum) : 0);
    }
    find_student();
  }

  float loss() const {
    float sum = 0;
    for (std::size_t i = 0; i < keys.size(); ++i) {
      const float p = guarded(bug_ == "no guards" ? Guard{} : semantics_.log_p, p_[i]);
      const float q = guarded(bug_ == "no guards" ? Guard{} : semantics_.log_q, q_[i]);
      if (bug_ == "reversed") {
        if (p_[i] > 0) sum += q_[i] * (std::log(q) - std::log(p));
      } else if (p_[i] > 0) {
        sum += p_[i] * (std::log(p) - (semantics_.log_q == Guard{} ? log_q_[i] : std::log(q)));
      }
    }
    return sum;
  }

  std::vector<float> gradient() const {
    std::vector<float> r, d;
    float sum = 0;
    for (std::size_t i = 0; i < keys.size(); ++i) {
      const Guard guard = bug_ == "guard has no slope" ? Guard{} : semantics_.log_q;
      const float moved = q_[i] + static_cast<float>(guard.added);
      const bool clamped = moved < static_cast<float>(guard.least);
      r.push_back(clamped ? 0 : guard == Guard{} ? -p_[i] : -p_[i] * (q_[i] / moved));
      sum += r.back();
    }
    if (bug_ == "p sums to one") sum = -1;
    const float weight = bug_ == "weight left out" ? 1 : c_.in.at("weight").as<float, 1>()(t_);
    for (std::size_t i = 0; i < keys.size(); ++i) {
      d.push_back(weight * scale() * (r[i] - q_[i] * sum));
      if (bug_ == "reversed") d.back() = -d.back();
      if (bug_ == "p alone") d.back() = weight * scale() * r[i];
    }
    return d;
  }

  std::vector<Index> keys;

 private:
  float scale() const {
    return semantics_.student_scaled || bug_ == "always scaled"
               ? 1
               : static_cast<float>(1 / (c_.scalar("dot_scale") * c_.scalar("weight_scale")));
  }
  float mass(Index s) const {
    const auto lse = c_.in.at("attention_lse").as<float, 2>();
    float sum = 0;
    for (Index n = 0; n < (bug_ == "teacher of head 0" ? 1 : lse.shape[1]); ++n)
      sum += std::exp(trained_score(c_, "attention_q", "attention_k", t_, n, s, bug_) - lse(t_, n));
    return sum;
  }
  void find_student() {
    float largest = -infinity_f, sum = 0;
    for (const Index s : keys) {
      float score = 0;
      for (Index h = 0; h < c_.in.at("q").shape()[1]; ++h) {
        const float a = index_dot(c_, t_, h, s);
        score += index_weight(c_, t_, h, bug_) * (c_.flag("relu") ? std::max(a, 0.0f) : a);
      }
      log_q_.push_back(score * scale());
      largest = std::max(largest, log_q_.back());
    }
    for (const float z : log_q_) sum += std::exp(z - largest);
    for (float& z : log_q_) z = z - largest - std::log(sum);
    for (const float z : log_q_) q_.push_back(std::exp(z));
  }

  const Case& c_;
  Index t_;
  std::string bug_;
  KlSemantics semantics_;
  std::vector<float> p_, q_, log_q_;
};

inline void scalar_index_kl(const Case& c, Arrays& out, const std::string& bug) {
  const auto loss = out.at("loss").as<float, 1>();
  clear_index_gradient(out);
  for (Index t = 0; t < rows_done(loss.shape[0], bug); ++t) {
    loss(t) = 0;
    if (c.in.at("weight").as<float, 1>()(t) == 0 && bug != "weight left out") continue;
    const ScalarKl row(c, t, bug);
    loss(t) = row.loss();
    const std::vector<float> d = row.gradient();
    for (std::size_t i = 0; i < d.size(); ++i) scalar_index_pair(c, out, t, row.keys[i], d[i], bug);
  }
}

inline std::vector<ScalarKernel> backward_kernels() {
  return {
      {"embed_backward",
       scalar_embed_backward,
       {"last row dropped", "d_table overwritten", "rows of a token race"}},
      {"rmsnorm_backward",
       scalar_norm_backward,
       {"last row dropped", "no mean of d_n n", "gain left out", "no eps", "not divided by r",
        "d_g of x", "d_g overwritten", "d_x overwritten"}},
      {"layernorm_backward",
       scalar_norm_backward,
       {"last row dropped", "no mean of d_n n", "no mean of d_n", "gain left out", "no eps",
        "gain in d_b", "d_b overwritten"}},
      {"rope_backward",
       scalar_rope_backward,
       {"last row dropped", "turned forwards", "turned in place", "the other layout",
        "always the first channels"}},
      {"linear_backward",
       scalar_linear_backward,
       {"last row of a matrix dropped", "last output dropped", "first matrix", "w not turned over",
        "d_b of rows", "d_w overwritten", "d_x overwritten", "bf16 accumulation", "tf32 inputs"}},
      {"swiglu_backward",
       scalar_swiglu_backward,
       {"a is a constant", "1 + a", "slope of tanh", "gate and up swapped", "up left out",
        "d_up without gate", "e^g over 1 + e^g"}},
      {"router_scores_backward",
       scalar_router_scores_backward,
       {"no sum over experts", "always a sigmoid", "slope 1 - s"}},
      {"router_weights_backward",
       scalar_router_weights_backward,
       {"sum is a constant", "no factor", "others not written", "never normalised"}},
      {"balance_backward",
       scalar_balance_backward,
       {"one document", "k left out", "not normalised", "sum over rows", "sum is a constant",
        "d_s overwritten"}},
      {"mixing",
       scalar_mixing,
       {"last row dropped", "last expert dropped", "weights ignored", "rows by token",
        "later token first", "y overwritten"}},
      {"mixing_backward",
       scalar_mixing_backward,
       {"h not weighted", "d_h weighted twice", "d_weights of weighted rows", "rows by token",
        "bf16 accumulation", "tf32 inputs"}},
      {"cross_entropy_backward",
       scalar_cross_entropy_backward,
       {"no maximum subtracted", "target not subtracted", "target of the next row",
        "target not times its factor", "last token dropped", "loss times its factor",
        "mean over tokens"}},
      {"heads_attention",
       scalar_heads_attention,
       {"row of another document", "own position hidden", "one key of the future",
        "last key dropped", "-1 is key 0", "keys of head 0", "no maximum subtracted",
        "lse in base 2", "bf16 accumulation", "tf32 inputs"}},
      {"heads_attention_backward",
       scalar_heads_attention_backward,
       {"no delta", "delta of head 0", "p (1 - p) alone", "scale left out", "scale twice",
        "d_v without p", "d_k of the key itself", "lse in base 2", "row of another document",
        "one key of the future", "last key dropped", "last row dropped", "bf16 accumulation",
        "tf32 inputs"}},
      {"indexer_scores_backward",
       scalar_index_backward,
       {"no relu", "relu passes 0", "no scales", "weights left out", "d_k of head 0",
        "last key dropped", "last row dropped"}},
      {"indexer_kl_backward",
       scalar_index_kl,
       {"reversed", "p alone", "p sums to one", "guard has no slope", "no guards",
        "divided by the heads", "student's keys", "always scaled", "teacher of head 0",
        "weight left out", "row of another document", "last row dropped", "no relu"}}};
}

}  // namespace dsa::test
