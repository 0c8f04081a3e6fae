// tests/cuda/scalar_kernels.hpp — the ops in fp32, a loop a subscript, right and wrong on purpose.
//
// A bug is a name; "" is the right kernel. These are what people get wrong when they write such
// kernels: the suite of verify/ops must catch every one.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "verify/kernels/op.hpp"

namespace dsa::test {

using verify::kernels::Array;
using verify::kernels::Arrays;
using verify::kernels::Case;
using verify::kernels::Sums;

constexpr float infinity_f = std::numeric_limits<float>::infinity();

inline float in_bf16(float x) { return static_cast<float>(round_to(Dtype::bf16, x)); }
/// x with the 10 bits of mantissa that TF32 keeps.
inline float in_tf32(float x) {
  return x - std::remainder(x, std::ldexp(1.0f, std::ilogb(x) - 10));
}

/// What Hopper's tensor cores add to a sum in one step, of at most 32 products of e4m3 numbers
/// (verify/kernels/cases/hopper_fp8.hpp has the sources): all is cut off 13 bits behind the largest
/// exponent, added, and cut to 13 bits of fraction.
inline float hopper_step(float sum, const std::vector<std::pair<float, float>>& factors) {
  const auto exponent = [](float x) { return std::max(std::ilogb(x), -6); };  // of subnormals, too
  int largest = sum == 0 ? -126 : std::ilogb(sum);
  for (const auto& [a, b] : factors)
    if (a != 0 && b != 0) largest = std::max(largest, exponent(a) + exponent(b));
  const auto cut = [](double x, int last) {
    return std::ldexp(std::trunc(std::ldexp(x, -last)), last);
  };
  double total = cut(sum, largest - 13);
  for (const auto& [a, b] : factors) total += cut(a * b, largest - 13);
  return total == 0 ? 0 : static_cast<float>(cut(total, std::ilogb(total) - 13));
}

/// Multiplies and adds as `bug` says, in fp32 or as Hopper's tensor cores do.
class Sum {
 public:
  explicit Sum(const std::string& bug, Sums sums = Sums::fp32)
      : tf32_(bug == "tf32 inputs"),
        bf16_(bug == "bf16 accumulation"),
        fp16_(bug == "fp16 accumulation"),
        on_hopper_(sums == Sums::hopper_fp8 && !bf16_ && !fp16_) {}
  void add(float a, float b) {
    if (on_hopper_) {
      factors_.emplace_back(a, b);
      if (factors_.size() == 32) flush();
      return;
    }
    if (tf32_ && a != 0 && b != 0) {
      a = in_tf32(a);
      b = in_tf32(b);
    }
    total_ += a * b;
    if (bf16_) total_ = in_bf16(total_);
    if (fp16_) total_ = static_cast<float>(round_to(Dtype::f16, total_));
  }
  float total() {
    if (!factors_.empty()) flush();
    return total_;
  }

 private:
  void flush() {
    total_ = hopper_step(total_, factors_);
    factors_.clear();
  }

  bool tf32_, bf16_, fp16_, on_hopper_;
  std::vector<std::pair<float, float>> factors_;
  float total_ = 0;
};

/// A case of e4m3 as these kernels read it: its numbers as floats, the scales of keys beside them.
inline Case in_floats(const Case& c, Sums sums) {
  Case x = c;
  x.scalars["sums"] = static_cast<double>(sums);
  const auto widened = [](const Array& a) { return Array(Dtype::f32, a.shape(), a.values()); };
  for (const char* name : {"x", "w", "q"})
    if (x.in.contains(name)) x.in[name] = widened(x.in[name]);
  if (!x.in.contains("k")) return x;
  const Array& rows = c.in.at("k");
  const Index S = rows.shape()[0], D = rows.shape()[1] - 4;
  Array numbers(Dtype::f8_e4m3, {S, D}), scales(Dtype::f32, {S});
  for (Index s = 0; s < S; ++s) {
    const std::byte* const row = rows.bytes().data() + s * (D + 4);
    std::copy_n(row, D, numbers.bytes().data() + s * D);
    std::copy_n(row + D, 4, scales.bytes().data() + s * 4);
  }
  x.in["k"] = widened(numbers);
  x.in["k_scale"] = scales;
  return x;
}

inline Index channels_read(Index n, const std::string& bug) {
  if (bug == "last tile dropped" && n > 16) return n / 16 * 16;
  if (bug == "last step dropped" && n > 32) return (n - 1) / 32 * 32;
  return bug == "last channel dropped" && n > 1 ? n - 1 : n;
}

inline Sums sums_of(const Case& c) {
  return c.scalars.contains("sums") ? static_cast<Sums>(c.integer("sums")) : Sums::fp32;
}

/// The product of the scales of a run of 128 channels; 1 where there are none.
inline float scale_of(const Case& c, Index t, Index f, Index channel, const std::string& bug) {
  if (!c.in.contains("x_scale")) return 1;
  const Index block = bug == "scales of the first block" ? 0 : channel / 128;
  const float scale =
      c.in.at("x_scale").as<float, 2>()(t, block) *
      c.in.at("w_scale").as<float, 2>()(bug == "weight scale of row 0" ? 0 : f / 128, block);
  return bug == "scale in bf16" ? in_bf16(scale) : scale;
}

inline void scalar_linear(const Case& c, Arrays& out, const std::string& bug) {
  const auto x = c.in.at("x").as<float, 2>(), w = c.in.at("w").as<float, 2>();
  const auto y = out.at("y").as<float, 2>();
  const Index T = x.shape[0], C = x.shape[1], F = w.shape[0];
  const Index read = channels_read(C, bug);
  const Index run = c.in.contains("x_scale") ? 128 : std::max<Index>(C, 1);
  const bool biased = c.in.contains("bias") && bug != "no bias";
  for (Index t = 0; t < T; ++t)
    for (Index f = 0; f < (bug == "last column not written" ? F - 1 : F); ++f) {
      y(t, f) = 0;
      for (Index first = 0; first < read; first += run) {
        Sum sum(bug, sums_of(c));
        for (Index i = first; i < std::min(first + run, read); ++i) sum.add(x(t, i), w(f, i));
        y(t, f) += sum.total() * scale_of(c, t, f, first, bug);
      }
      if (biased) y(t, f) += c.in.at("bias").as<float, 1>()(bug == "bias of the row" ? t % F : f);
    }
  if (bug == "one row beyond the end") y.data[T * F] = 0;
}

inline float index_score(const Case& c, Index t, Index s, const std::string& bug) {
  const auto q = c.in.at("q").as<float, 3>();
  const auto k = c.in.at("k").as<float, 2>(), w = c.in.at("w").as<float, 2>();
  const Index H = q.shape[1], D = q.shape[2];
  const bool relu = c.flag("relu") && bug != "no relu";
  float score = 0;
  for (Index h = 0; h < (bug == "heads beyond 32 dropped" ? std::min<Index>(H, 32) : H); ++h) {
    Sum dot(bug, sums_of(c));
    const Index read = channels_read(D, bug);
    for (Index d = 0; d < read; ++d) dot.add(q(t, h, d), k(s, d));
    const float total = dot.total();
    const bool inside = relu && bug != "relu after the sum" && bug != "relu after the weight";
    const float weight = w(bug == "weights of query 0" ? 0 : t, h);
    const float term = weight * (inside ? total > 0 ? total : total * 0 : total);
    score += bug == "relu after the weight" ? std::max(term, 0.0f) : term;
  }
  if (c.in.contains("k_scale") && bug != "key scale ignored") {
    const float scale = c.in.at("k_scale").as<float, 1>()(s);
    score *= bug == "scale in bf16" ? in_bf16(scale) : scale;
  }
  return bug == "relu after the sum" ? std::max(score, 0.0f) : score;
}

inline std::pair<Index, Index> visible_to(const Case& c, Index t, const std::string& bug) {
  const Index S = c.in.at("k").shape()[0];
  Index begin = c.in.at("begin").as<std::int32_t, 1>()(t);
  Index end = c.in.at("end").as<std::int32_t, 1>()(t);
  if (bug == "range one too long") end = std::min(end + 1, S);
  if (bug == "own position hidden") end = std::max(begin, end - 1);
  if (bug == "begin ignored") begin = 0;
  return {begin, end};
}

inline void scalar_indexer_scores(const Case& c, Arrays& out, const std::string& bug) {
  const auto scores = out.at("scores").as<float, 2>();
  for (Index t = 0; t < scores.shape[0]; ++t) {
    const auto [begin, end] = visible_to(c, t, bug);
    for (Index s = 0; s < scores.shape[1]; ++s)
      if (begin <= s && s < end)
        scores(t, s) = index_score(c, t, s, bug);
      else if (bug != "invisible not filled")
        scores(t, s) =
            bug == "lowest() for -inf" ? std::numeric_limits<float>::lowest() : -infinity_f;
  }
}

/// Selects the K largest of `scores` (of S) into a row, as `bug` says.
inline void scalar_select(std::int32_t* chosen, Index K, const std::vector<float>& scores,
                          const std::string& bug, Index t) {
  std::vector<std::int32_t> order;
  for (std::size_t s = 0; s < scores.size(); ++s) {
    if (std::isnan(scores[s]) && bug != "NaN let through")
      throw Error("score (" + std::to_string(t) + ", " + std::to_string(s) + ") is NaN");
    if (scores[s] > -infinity_f || bug == "fills up with invisible keys")
      order.push_back(static_cast<std::int32_t>(s));
  }
  const auto key = [&](std::int32_t s) {
    const float x = scores[static_cast<std::size_t>(s)];
    return bug == "compared in bf16" ? in_bf16(x) : x;
  };
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    if (key(a) == key(b) && bug == "later key first") return a > b;
    if (key(a) == key(b) && bug == "-0 below +0")
      return !std::signbit(key(a)) && std::signbit(key(b));
    return key(a) > key(b);
  });
  const auto all = static_cast<Index>(order.size());
  const Index n = std::min(bug == "one key short" ? std::max<Index>(K - 1, 1) : K, all);
  if (bug == "second best first" && all > n && n > 0)
    std::swap(order[0], order[static_cast<std::size_t>(n)]);
  if (bug != "best first, unsorted") std::sort(order.begin(), order.begin() + n);
  if (bug == "one key twice" && n > 1) order[1] = order[0];
  for (Index i = 0; i < K; ++i)
    chosen[i] = i < n ? order[static_cast<std::size_t>(i)] : bug == "0 for no key" ? 0 : -1;
}

inline void scalar_topk_select(const Case& c, Arrays& out, const std::string& bug) {
  const auto scores = c.in.at("scores").as<float, 2>();
  const auto chosen = out.at("chosen").as<std::int32_t, 2>();
  for (Index t = 0; t < scores.shape[0]; ++t)
    scalar_select(chosen[t].data, chosen.shape[1], {scores[t].begin(), scores[t].end()}, bug, t);
}

inline void scalar_indexer_topk(const Case& c, Arrays& out, const std::string& bug) {
  const auto chosen = out.at("chosen").as<std::int32_t, 2>();
  for (Index t = 0; t < chosen.shape[0]; ++t) {
    const auto [begin, end] = visible_to(c, t, bug);
    std::vector<float> scores(static_cast<std::size_t>(c.in.at("k").shape()[0]), -infinity_f);
    for (Index s = begin; s < end; ++s)
      scores[static_cast<std::size_t>(s)] = index_score(c, t, s, bug);
    scalar_select(chosen[t].data, chosen.shape[1], scores, bug, t);
  }
}

/// Keys of one query, as `bug` reads them.
inline std::vector<Index> keys_of(View<const std::int32_t, 1> row, Index S,
                                  const std::string& bug) {
  std::vector<Index> keys;
  for (const std::int32_t s : row) {
    if (s < -1 || s >= S) throw Error("chosen key " + std::to_string(s) + " is not in [-1, S)");
    if (s == -1 && bug == "stops at the first -1") break;
    if (s >= 0) keys.push_back(s);
    if (s == -1 && bug == "-1 is key 0" && S > 0) keys.push_back(0);
  }
  if (bug == "last key dropped" && keys.size() > 16) keys.pop_back();
  return keys;
}

inline void scalar_head(const Case& c, Arrays& out, Index t, Index n,
                        const std::vector<Index>& keys, const std::string& bug) {
  const auto q = c.in.at("q").as<float, 3>();
  const auto kv = c.in.at("kv").as<float, 2>();
  const auto o = out.at("out").as<float, 3>();
  const auto lse = out.at("lse").as<float, 2>();
  const Index R = o.shape[2], width = q.shape[2];
  const float scale = bug == "scale of the head size" ? 1 / std::sqrt(static_cast<float>(width))
                                                      : static_cast<float>(c.scalar("scale"));
  std::vector<float> p;
  float largest = -infinity_f, sum = 0;
  for (const Index s : keys) {
    Sum dot(bug);
    for (Index i = 0; i < (bug == "rope not in the score" ? R : width); ++i)
      dot.add(q(t, n, i), kv(s, i));
    p.push_back(scale * dot.total());
    largest = std::max(largest, p.back());
  }
  if (bug == "no maximum subtracted") largest = 0;
  for (float& x : p) sum += x = std::exp(x - largest);
  for (Index r = 0; r < R; ++r) {
    Sum value(bug);
    for (std::size_t i = 0; i < keys.size(); ++i)
      value.add(bug == "p in bf16" ? in_bf16(p[i]) : p[i],
                kv(keys[i], bug == "values behind rope" ? r + width - R : r));
    o(t, n, r) = keys.empty() && bug != "0/0 where nothing is chosen" ? 0 : value.total() / sum;
    if (bug == "not divided by the sum") o(t, n, r) = value.total();
  }
  lse(t, n) = keys.empty() ? (bug == "lse +inf where nothing is chosen" ? infinity_f : -infinity_f)
                           : largest + std::log(sum);
  if (bug == "lse in base 2") lse(t, n) /= std::log(2.0f);
}

inline void scalar_sparse_attention(const Case& c, Arrays& out, const std::string& bug) {
  const auto chosen = c.in.at("chosen").as<std::int32_t, 2>();
  for (Index t = 0; t < chosen.shape[0]; ++t) {
    const auto keys = keys_of(chosen[t], c.in.at("kv").shape()[0], bug);
    for (Index n = 0; n < c.in.at("q").shape()[1]; ++n) scalar_head(c, out, t, n, keys, bug);
  }
}

inline void scalar_rope(const Case& c, Arrays& out, const std::string& bug) {
  const auto x = c.in.at("x").as<float, 3>();
  const auto y = out.at("y").as<float, 3>();
  const auto cos = c.in.at("cos").as<float, 2>(), sin = c.in.at("sin").as<float, 2>();
  const Index half = cos.shape[1],
              first = bug == "always the first channels" ? 0 : c.integer("first");
  const bool interleaved = c.flag("interleaved") != (bug == "the other layout");
  std::copy(x.begin(), x.end(), y.begin());
  for (Index t = 0; t < x.shape[0]; ++t)
    for (Index h = 0; h < x.shape[1]; ++h)
      for (Index i = 0; i < half; ++i) {
        const Index a = first + (interleaved ? 2 * i : i), b = interleaved ? a + 1 : a + half;
        const float s = bug == "turned backwards" ? -sin(t, i) : sin(t, i);
        y(t, h, a) = x(t, h, a) * cos(t, i) - x(t, h, b) * s;
        y(t, h, b) =
            (bug == "turned in place" ? y(t, h, a) : x(t, h, a)) * s + x(t, h, b) * cos(t, i);
      }
}

inline void scalar_rmsnorm(const Case& c, Arrays& out, const std::string& bug) {
  const auto x = c.in.at("x").as<float, 2>();
  const auto y = out.at("y").as<float, 2>();
  const auto g = c.in.at("g").as<float, 1>();
  const Index C = x.shape[1];
  const float eps = static_cast<float>(c.scalar("eps"));
  for (Index t = 0; t < x.shape[0]; ++t) {
    Sum squares(bug);
    for (Index i = 0; i < C; ++i) squares.add(x(t, i), x(t, i));
    const float mean = squares.total() /
                       static_cast<float>(bug == "mean over C-1" ? std::max<Index>(C - 1, 1) : C);
    const float root =
        bug == "eps outside the root" ? std::sqrt(mean) + eps : std::sqrt(mean + eps);
    for (Index i = 0; i < C; ++i)
      y(t, i) = (bug == "gain plus one" ? 1 + g(i) : g(i)) *
                (bug == "normalised in bf16" ? in_bf16(x(t, i) / root) : x(t, i) / root);
  }
}

inline void scalar_swiglu(const Case& c, Arrays& out, const std::string& bug) {
  const auto x = c.in.at("gate_up").as<float, 2>();
  const auto h = out.at("h").as<float, 2>();
  const Index F = h.shape[1];
  for (Index t = 0; t < h.shape[0]; ++t)
    for (Index f = 0; f < F; ++f) {
      const float gate = x(t, bug == "gate and up swapped" ? F + f : f);
      const float up = x(t, bug == "gate and up swapped" ? f : F + f);
      const float e = std::exp(bug == "clamped at 20" ? std::min(-gate, 20.0f) : -gate);
      const float s = bug == "gelu" ? 0.5f * (1 + std::erf(gate / std::sqrt(2.0f))) : 1 / (1 + e);
      h(t, f) = (bug == "gate not multiplied" ? 1 : gate) * s * up;
      if (bug == "e^g over 1 + e^g") h(t, f) = gate * (std::exp(gate) / (1 + std::exp(gate))) * up;
    }
}

struct ScalarKernel {
  const char* op;
  void (*run)(const Case&, Arrays&, const std::string& bug);
  std::vector<std::string> bugs;
};

inline std::vector<ScalarKernel> scalar_kernels() {
  const std::vector<std::string> sums = {"bf16 accumulation", "tf32 inputs"};
  const auto with_sums = [&](std::vector<std::string> bugs) {
    bugs.insert(bugs.end(), sums.begin(), sums.end());
    return bugs;
  };
  return {
      {"linear", scalar_linear,
       with_sums({"last tile dropped", "no bias", "bias of the row", "last column not written",
                  "one row beyond the end"})},
      {"indexer_scores", scalar_indexer_scores,
       with_sums({"range one too long", "own position hidden", "begin ignored", "no relu",
                  "relu after the sum", "relu after the weight", "weights of query 0",
                  "heads beyond 32 dropped", "last tile dropped", "invisible not filled",
                  "lowest() for -inf"})},
      {"topk_select",
       scalar_topk_select,
       {"later key first", "-0 below +0", "compared in bf16", "one key short", "one key twice",
        "second best first", "best first, unsorted", "fills up with invisible keys", "0 for no key",
        "NaN let through"}},
      {"indexer_topk", scalar_indexer_topk,
       with_sums({"range one too long", "begin ignored", "no relu", "relu after the sum",
                  "weights of query 0", "heads beyond 32 dropped", "later key first",
                  "NaN let through"})},
      {"mla_sparse", scalar_sparse_attention,
       with_sums({"-1 is key 0", "stops at the first -1", "last key dropped",
                  "scale of the head size", "rope not in the score", "no maximum subtracted",
                  "p in bf16", "values behind rope", "0/0 where nothing is chosen",
                  "not divided by the sum", "lse +inf where nothing is chosen", "lse in base 2"})},
      {"rope",
       scalar_rope,
       {"always the first channels", "the other layout", "turned backwards", "turned in place"}},
      {"rmsnorm", scalar_rmsnorm,
       with_sums({"mean over C-1", "eps outside the root", "gain plus one", "normalised in bf16"})},
      {"swiglu",
       scalar_swiglu,
       {"gate and up swapped", "clamped at 20", "gelu", "gate not multiplied",
        "e^g over 1 + e^g"}}};
}

}  // namespace dsa::test
