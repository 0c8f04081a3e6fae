// Which keys are selected.
#include "verify/measure/selection.hpp"

#include <limits>
#include <tuple>

#include "core/dtype.hpp"
#include "core/random.hpp"
#include "verify/defects/indexer_parts.hpp"

namespace dsa::verify {

using reference::Visibility;

std::vector<Index> visible_in(In scores, Index t) {
  std::vector<Index> keys;
  for (Index s = 0; s < scores.shape[1]; ++s)
    if (scores(t, s) > -std::numeric_limits<double>::infinity()) keys.push_back(s);
  return keys;
}

void write_row(View<Index, 1> row, const std::vector<Index>& keys) {
  std::fill(row.begin(), row.end(), -1);
  std::copy_n(keys.begin(), std::min<Index>(static_cast<Index>(keys.size()), row.size()),
              row.begin());
}

namespace {

const std::string selection = "self_attn.indexer";
constexpr double unseen = -std::numeric_limits<double>::infinity();

/// Takes out of a row what `drop` says.
void drop_keys(View<Index, 1> row, const std::function<bool(Index)>& drop) {
  std::vector<Index> kept;
  for (Index s : row)
    if (s >= 0 && !drop(s)) kept.push_back(s);
  write_row(row, kept);
}

/// After the right selection, every row is rewritten: f(row, scores, t).
DefectVariant rewritten(std::string name, std::function<void(View<Index, 1>, In, Index)> f) {
  return {std::move(name), [f = std::move(f)](Variant& altered) {
            around_selection(altered, [f](const auto& inner, Name at, Chosen chosen, In scores) {
              inner(at, chosen, scores);
              for (Index t = 0; t < chosen.shape[0]; ++t) f(chosen[t], scores, t);
            });
          }};
}

/// Selects by f(scores, t, s) in place of the score, among visible keys.
DefectVariant selected_by(std::string name, std::function<double(In, Index, Index)> f) {
  return {std::move(name), [f = std::move(f)](Variant& altered) {
            around_selection(altered, [f](const auto& inner, Name at, Chosen chosen, In scores) {
              Tensor<double, 2> other = copy_of(scores);
              for (Index t = 0; t < scores.shape[0]; ++t)
                for (Index s : visible_in(scores, t)) other(t, s) = f(scores, t, s);
              inner(at, chosen, other);
            });
          }};
}

/// What the attention makes of masked keys that were selected: reads them, or leaves them out. A
/// row of nothing else is then all zeros; or, where the mask is the most negative number instead of
/// -inf (HuggingFace's), a softmax of equal logits: the mean of all values, future ones included.
enum class Mask { never, to_zeros, to_mean_of_all };

void mean_of_all_where_empty(Variant& altered) {
  around(altered.ops.mla_expanded, anywhere(),
         [](const auto& inner, Name at, Out3 out, In3 q_nope, In3 q_rope, In3 kv, auto&&... rest) {
           inner(at, out, q_nope, q_rope, kv, rest...);
           const Keys chosen = std::get<1>(std::tie(rest...));
           const Index S = kv.shape[0], B = q_nope.shape[2];
           for (Index t = 0; t < out.shape[0]; ++t) {
             if (chosen(t, 0) >= 0) continue;
             for (Index n = 0; n < out.shape[1]; ++n)
               for (Index u = 0; u < out.shape[2]; ++u) {
                 double sum = 0;
                 for (Index s = 0; s < S; ++s) sum += kv(s, n, B + u);
                 out(t, n, u) = sum / static_cast<double>(S);
               }
           }
         });
}

/// Scores, and so top-k, are f(unmasked score, is visible); the attention may mask afterwards.
DefectVariant select_unmasked(std::string name, double (*f)(double, bool), Mask afterwards) {
  return {std::move(name), [=](Variant& altered) {
            const Memory<Tensor<double, 2>> right;
            around(altered.ops.indexer_scores, anywhere(),
                   [=](const auto& inner, Name at, Out scores, In3 q, In k, In w,
                       const Indexer& indexer, const Visibility& visible) {
                     inner(at, scores, q, k, w, indexer, visible);
                     right.put(copy_of(scores));
                     const Index T = scores.shape[0], S = scores.shape[1];
                     const std::vector<Index> one_document(static_cast<std::size_t>(S + T), 0);
                     inner(at, scores, q, k, w, indexer, Visibility{S, one_document});
                     const Tensor<double, 2>& masked = right.get();
                     for (Index i = 0; i < scores.size(); ++i)
                       scores.data[i] = f(scores.data[i], masked.data()[i] > unseen);
                   });
            if (afterwards == Mask::never) return;
            if (afterwards == Mask::to_mean_of_all) mean_of_all_where_empty(altered);
            around_attention(altered, [right](Name, AttentionTold& told) {
              const Tensor<double, 2>& masked = right.get();
              for (Index t = 0; t < told.chosen.shape()[0]; ++t)
                drop_keys(told.chosen.view()[t], [&](Index s) { return !(masked(t, s) > unseen); });
            });
          }};
}

void pad_with_key_zero(View<Index, 1> row, In, Index) {
  std::replace(row.begin(), row.end(), Index{-1}, Index{0});
}

/// Strictly above the K-th score, where more than K compete.
void strictly_above(View<Index, 1> row, In scores, Index t) {
  const Index last = row.data[row.shape[0] - 1];
  if (last < 0 || static_cast<Index>(visible_in(scores, t).size()) == row.shape[0]) return;
  const double threshold = scores(t, last);
  drop_keys(row, [&](Index s) { return scores(t, s) <= threshold; });
}

/// A score's bin in a radix selection that looks at sign and exponent first.
int bin(double score) {
  if (score == 0) return 0;
  return score > 0 ? std::ilogb(score) + 2000 : -std::ilogb(-score) - 2000;
}

/// Of the bin that the K-th score falls into, only the first `room` candidates are kept.
DefectVariant radix(std::string name, std::function<Index(Index K)> room_for) {
  return {std::move(name), [room_for](Variant& altered) {
            around_selection(altered,
                             [room_for](const auto& inner, Name at, Chosen chosen, In scores) {
                               inner(at, chosen, scores);
                               Tensor<double, 2> kept = copy_of(scores);
                               const Index K = chosen.shape[1], room = room_for(K);
                               for (Index t = 0; t < chosen.shape[0]; ++t) {
                                 if (chosen(t, K - 1) < 0) continue;
                                 const int threshold = bin(scores(t, chosen(t, K - 1)));
                                 Index seen = 0;
                                 for (Index s : visible_in(scores, t))
                                   if (bin(scores(t, s)) == threshold && ++seen > room)
                                     kept(t, s) = unseen;
                               }
                               inner(at, chosen, kept);
                             });
          }};
}

void highest_of_ties(Variant& altered) {
  around_selection(altered, [](const auto& inner, Name name, Chosen chosen, In scores) {
    const Index T = scores.shape[0], S = scores.shape[1];
    Tensor<double, 2> mirrored(scores.shape);
    for (Index t = 0; t < T; ++t)
      for (Index s = 0; s < S; ++s) mirrored(t, s) = scores(t, S - 1 - s);
    inner(name, chosen, mirrored);
    for (Index& s : chosen)
      if (s >= 0) s = S - 1 - s;
  });
}

DefectVariant topk(std::string name, Index (*of)(Index)) {
  return config_variant(std::move(name), [of](Config& c) {
    c.indexer->topk = std::max<Index>(1, of(c.indexer->topk));
  });
}

DefectVariant chunks(std::string name, std::function<Index(Index S)> size) {
  return selected_by(std::move(name), [size](In scores, Index t, Index s) {
    const Index S = scores.shape[1], chunk = size(S), at = S - scores.shape[0] + t;
    return s >= at / chunk * chunk ? scores(t, s) : unseen;
  });
}

std::vector<DefectVariant> chunk_sizes() {
  std::vector<DefectVariant> variants = {chunks("chunk=S/2", [](Index S) { return (S + 1) / 2; }),
                                         chunks("chunk=S/4", [](Index S) { return (S + 3) / 4; })};
  for (const Index size : {16, 32, 64})
    variants.push_back(chunks("chunk=" + std::to_string(size), [size](Index) { return size; }));
  return variants;
}

double as_stored_in_e4m3(In scores, Index t, Index s) {
  return round_to(Dtype::f8_e4m3, std::clamp(scores(t, s), -448.0, 448.0));
}

double unmasked(double score, bool) { return score; }
double one_if_visible(double score, bool visible) { return score + visible; }
double one_if_masked(double score, bool visible) { return score + !visible; }

/// Equal scores are common then; which of them are taken is torch's affair.
void select_as_stored_in_e4m3(Variant& altered) {
  around_selection(altered, [](const auto&, Name, Chosen chosen, In scores) {
    Tensor<double, 2> stored = copy_of(scores);
    for (Index t = 0; t < scores.shape[0]; ++t) {
      for (Index s : visible_in(scores, t)) stored(t, s) = as_stored_in_e4m3(scores, t, s);
      std::vector<Index> keys = as_torch_orders(stored.view()[t], chosen.shape[1]);
      std::erase_if(keys, [&](Index s) { return scores(t, s) == unseen; });
      write_row(chosen[t], keys);
    }
  });
}

std::vector<Defect> of_masks() {
  const std::string scores = selection + ".scores";
  return {
      {25,
       "selection-before-mask",
       "Top-k runs over unmasked scores: keys of the future take the places of visible ones.",
       issue("huggingface/transformers", 45820),
       scores,
       has_indexer,
       {select_unmasked("masked after", unmasked, Mask::to_zeros),
        select_unmasked("masked after by a finite number", unmasked, Mask::to_mean_of_all),
        select_unmasked("never masked", unmasked, Mask::never)}},
      {27,
       "selection-mask-added-as-numbers",
       "A boolean mask is added to the scores as 1 and 0 instead of 0 and -inf, or the reverse.",
       issue("huggingface/transformers", 48363),
       scores,
       has_indexer,
       {select_unmasked("visible 1", one_if_visible, Mask::to_zeros),
        select_unmasked("visible 1, masked after by a finite number", one_if_visible,
                        Mask::to_mean_of_all),
        select_unmasked("masked 1", one_if_masked, Mask::to_zeros),
        select_unmasked("masked 1, masked after by a finite number", one_if_masked,
                        Mask::to_mean_of_all)}},
      {29,
       "selection-padding-is-key-zero",
       "Empty slots hold 0 instead of -1: rows with few keys read key 0 again and again.",
       issue("vllm-project/vllm", 45324),
       selection,
       has_indexer,
       {rewritten("", pad_with_key_zero)}},
      {32, "selection-within-chunk", "Prefill in chunks scores only the keys of the current chunk.",
       issue("JustVugg/colibri", 1554), selection, has_indexer, chunk_sizes(),
       Constant{"chunk",
                [](const Config&) {
                  return std::pair{4.0, 128.0};
                },
                true,
                [](Variant& a, double chunk) {
                  chunks("", [chunk](Index) { return static_cast<Index>(chunk); }).apply(a);
                }}},
  };
}

std::vector<Defect> of_topk() {
  return {
      {19,
       "selection-last-window",
       "All scores come out equal and the last K keys are taken: a sliding window.",
       issue("ml-explore/mlx-lm", 1454),
       selection,
       has_indexer,
       {selected_by("", [](In, Index, Index s) { return static_cast<double>(s); })}},
      {21,
       "selection-topk",
       "index_topk is not the config's.",
       issue("NVIDIA/TensorRT-LLM", 14931),
       selection,
       has_indexer,
       {topk("K/2", [](Index K) { return K / 2; }), topk("K-1", [](Index K) { return K - 1; }),
        topk("K+1", [](Index K) { return K + 1; }), topk("2K", [](Index K) { return 2 * K; })},
       Constant{
           "index_topk",
           [](const Config& c) {
             const auto K = static_cast<double>(c.indexer->topk);
             return std::pair{std::max(1.0, std::floor(K / 2)), 2 * K};
           },
           true,
           [](Variant& a, double K) { a.model.config.indexer->topk = static_cast<Index>(K); }}},
      {33,
       "selection-radix-candidates-dropped",
       "A radix top-k keeps only so many candidates of the bin at the threshold; the rest is lost.",
       issue("vllm-project/vllm", 51782),
       selection,
       has_indexer,
       {radix("buffer=K/2", [](Index K) { return std::max<Index>(1, K / 2); }),
        radix("buffer=K/4", [](Index K) { return std::max<Index>(1, K / 4); })}},
      {34,
       "selection-threshold-strict",
       "Keys are kept strictly above the K-th score, so that the K-th itself is lost.",
       issue("tile-ai/tilelang", 2513),
       selection,
       has_indexer,
       {rewritten("", strictly_above)}},
      {36,
       "selection-ties-highest-first",
       "The highest key of equal scores is taken. Either order is right by itself; it is wrong "
       "where ranks or passes that must agree do not.",
       issue("flashinfer-ai/flashinfer", 2584),
       selection,
       has_indexer,
       {{"", highest_of_ties}}},
      {47,
       "selection-random",
       "Scores are discarded and keys are selected at random.",
       issue("AMD-AGI/Primus", 930),
       selection,
       has_indexer,
       {selected_by("",
                    [](In scores, Index t, Index s) {
                      return uniform(1, static_cast<std::uint64_t>(t * scores.shape[1] + s));
                    })}},
      {225,
       "selection-by-fp8-scores",
       "Plausible: scores are rounded to e4m3 before top-k.",
       "",
       selection,
       has_indexer,
       {selected_by("lowest of ties", as_stored_in_e4m3),
        {"ties as torch.topk", select_as_stored_in_e4m3}}},
  };
}

}  // namespace

std::vector<Defect> selection_defects() {
  std::vector<Defect> all;
  for (const auto& part : {of_masks(), of_topk(), selection_use_defects()})
    all.insert(all.end(), part.begin(), part.end());
  return all;
}

}  // namespace dsa::verify
