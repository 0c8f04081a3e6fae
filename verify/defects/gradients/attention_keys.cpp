// What attention's keys and values receive, when many queries and heads write to them.
#include <algorithm>

#include "verify/defects/gradients/parts.hpp"

namespace dsa::verify {
namespace {

using Gradient = reference::MlaExpandedGradient<double>;
using Inputs = reference::MlaExpandedInputs<double>;

/// The keys' share of the gradient, before it is added.
struct KeyGradient {
  Tensor<double, 3> kv;      // (S, N, B+U)
  Tensor<double, 2> k_rope;  // (S, P)
};
using KeyChange = std::function<void(KeyGradient&, const Inputs&)>;
GradientChange keys_changed(std::string name, KeyChange change) {
  return {
      std::move(name), [change = std::move(change)](GradientVariant& v) {
        around(
            v.backward.mla_expanded, anywhere(),
            [change](const auto& inner, Name at, const Gradient& d, const Inputs& in,
                     View<const double, 3> d_out) {
              KeyGradient part{Tensor<double, 3>(in.kv.shape), Tensor<double, 2>(in.k_rope.shape)};
              inner(at, {d.d_q_nope, d.d_q_rope, part.kv, part.k_rope}, in, d_out);
              change(part, in);
              add_times(d.d_kv, 1, part.kv);
              add_times(d.d_k_rope, 1, part.k_rope);
            });
      }};
}

template <int Rank>
void clear_row(Tensor<double, Rank>& x, Index s) {
  const auto row = x.view()[s];
  std::fill(row.begin(), row.end(), 0.0);
}

GradientChange dropped(std::string name, std::function<bool(Index s, const Inputs&)> is_dropped) {
  return keys_changed(std::move(name),
                      [is_dropped = std::move(is_dropped)](KeyGradient& part, const Inputs& in) {
                        for (Index s = 0; s < part.kv.shape()[0]; ++s)
                          if (is_dropped(s, in)) {
                            clear_row(part.kv, s);
                            clear_row(part.k_rope, s);
                          }
                      });
}

void drop_last(KeyGradient& part, const Inputs& in) {
  const Index last = *std::max_element(in.chosen.begin(), in.chosen.end());
  clear_row(part.kv, last);
  clear_row(part.k_rope, last);
}

GradientChange shifted(std::string name, bool rows) {
  return keys_changed(std::move(name), [rows](KeyGradient& part, const Inputs&) {
    const auto shift = [&](auto& x, Index unit) {
      const auto right = x;
      const Index by = rows ? x.size() / x.shape()[0] : 1, n = rows ? x.size() : unit;
      for (Index i = 0; i < x.size(); ++i)
        x.data()[i] = right.data()[i / n * n + (i % n + n - by) % n];
    };
    shift(part.kv, part.kv.shape()[2]);
    shift(part.k_rope, part.k_rope.shape()[1]);
  });
}

GradientDefects addresses() {
  return {{52,
           "key-gradient-dropped",
           "The gradient of some keys and values is dropped.",
           issue("NVIDIA/cudnn-frontend", 298),
           "self_attn.kv_b_proj",
           of_trunk,
           {keys_changed("the last key that is read", drop_last),
            dropped("the first key", [](Index s, const Inputs&) { return s == 0; }),
            dropped("the second half of the keys",
                    [](Index s, const Inputs& in) { return 2 * s >= in.kv.shape[0]; }),
            dropped("keys from index_topk on",
                    [](Index s, const Inputs& in) { return s >= in.chosen.shape[1]; })}},
          {54,
           "key-gradient-misaddressed",
           "The gradient of keys and values is added at the wrong address.",
           issue("tile-ai/tilelang", 1588),
           "self_attn.kv_b_proj",
           of_trunk,
           {shifted("one channel on", false), shifted("one key on", true)}}};
}

/// -1 fills short rows; scattered to, it is the last key: with the weight that an unmasked 0 gets.
void scatter_sentinel(GradientVariant& v) {
  around(v.backward.mla_expanded, anywhere(),
         [](const auto& inner, Name at, const Gradient& d, Inputs in, View<const double, 3> d_out) {
           Tensor<Index, 2> chosen = copy_of(in.chosen);
           for (Index& s : chosen)
             if (s < 0) s = in.kv.shape[0] - 1;
           in.chosen = chosen;
           inner(at, d, in, d_out);
         });
}

GradientDefects repeated() {
  AttentionRules overwriting;
  overwriting.overwrites_keys = true;
  return {{51,
           "sentinel-is-last-key",
           "Attention's backward pass takes the sentinel -1 of short rows for the last key.",
           issue("Dao-AILab/flash-attention", 2755),
           "self_attn.q_rope",
           [](const GradientVariant& v) { return of_trunk(v) && v.model.config.indexer; },
           {{"", scatter_sentinel}}},
          {53,
           "key-gradient-overwritten",
           "Queries that read the same key overwrite its gradient.",
           issue("NVIDIA/cudnn-frontend", 385),
           "self_attn.kv_b_proj",
           of_trunk,
           {{"the last query stays", [overwriting](GradientVariant& v) {
               v.backward.mla_expanded = [overwriting](Name, const Gradient& d, const Inputs& in,
                                                       View<const double, 3> d_out) {
                 attention_backward(d, in, d_out, overwriting);
               };
             }}}}};
}

/// The rotated key's gradient of one head alone.
GradientChange key_of_head(std::string name, bool last) {
  return {std::move(name), [last](GradientVariant& v) {
            around(v.backward.mla_expanded, anywhere(),
                   [last](const auto& inner, Name at, const Gradient& d, const Inputs& in,
                          View<const double, 3> d_out) {
                     Tensor<double, 2> unused(in.k_rope.shape);
                     inner(at, {d.d_q_nope, d.d_q_rope, d.d_kv, unused}, in, d_out);
                     Tensor<double, 3> one = copy_of(d_out), q_nope(in.q_nope.shape),
                                       q_rope(in.q_rope.shape), kv(in.kv.shape);
                     const Index N = d_out.shape[1], U = d_out.shape[2];
                     for (Index i = 0; i < one.size(); ++i)
                       if (i / U % N != (last ? N - 1 : 0)) one.data()[i] = 0;
                     inner(at, {q_nope, q_rope, kv, d.d_k_rope}, in, one.view());
                   });
          }};
}

/// kv_b_proj learns from the values alone, or from the keys alone: a half of its rows stays.
GradientChange projection_of(std::string name, bool keeps_keys) {
  return {std::move(name), [keeps_keys](GradientVariant& v) {
            const Config& c = v.model.config;
            const Index B = c.qk_nope_head_dim, width = B + c.v_head_dim;
            v.handed_out = [=](const std::string& parameter, View<double, 2> gradient) {
              if (!parameter.ends_with("kv_b_proj.weight")) return;
              for (Index r = 0; r < gradient.shape[0]; ++r)
                if ((r % width < B) != keeps_keys)
                  for (double& x : gradient[r]) x = 0;
            };
          }};
}

GradientDefects shared() {
  return {
      {453,
       "shared-key-of-one-head",
       "Plausible: the gradient of the rotated key, which all heads share, is that of one head.",
       "",
       "self_attn.k_rope",
       of_trunk,
       {key_of_head("the first", false), key_of_head("the last", true)}},
      {454,
       "absorbed-projection-gradient",
       "Plausible: the absorbed half of kv_b_proj receives no gradient.",
       "",
       "self_attn.kv_b_proj",
       of_trunk,
       {projection_of("keys: W_UK", false), projection_of("values: W_UV", true)}}};
}

}  // namespace

GradientDefects attention_key_defects() {
  GradientDefects all;
  for (const GradientDefects& part : {addresses(), repeated(), shared()})
    all.insert(all.end(), part.begin(), part.end());
  return all;
}

}  // namespace dsa::verify
