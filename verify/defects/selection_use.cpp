// What the attention makes of a selection.
#include <limits>
#include <map>

#include "verify/defects/indexer_parts.hpp"
#include "verify/measure/selection.hpp"
#include "verify/runs/reference_run.hpp"

namespace dsa::verify {

using reference::Visibility;

namespace {

const std::string selector = "self_attn.indexer", heads = "self_attn.heads";

/// A selection with the scores it was made from.
struct Selected {
  Tensor<double, 2> scores;
  Tensor<Index, 2> chosen;
};

Memory<Selected> remember_selection(Variant& altered) {
  Memory<Selected> memory;
  around_selection(altered, [memory](const auto& inner, Name name, Chosen chosen, In scores) {
    inner(name, chosen, scores);
    memory.put({copy_of(scores), copy_of(chosen)});
  });
  return memory;
}

void keep_all_ties(Variant& altered) {
  const Memory<Selected> last = remember_selection(altered);
  around_attention(altered, [last](Name, AttentionTold& told) {
    const Selected& selected = last.get();
    const Index T = selected.scores.shape()[0], K = selected.chosen.shape()[1];
    Tensor<Index, 2> wide(selected.scores.shape(), -1);
    for (Index t = 0; t < T; ++t) {
      const Index kth = selected.chosen(t, K - 1);
      std::vector<Index> keys = visible_in(selected.scores, t);
      if (kth >= 0)
        std::erase_if(keys,
                      [&](Index s) { return selected.scores(t, s) < selected.scores(t, kth); });
      write_row(wide.view()[t], keys);
    }
    told.chosen = std::move(wide);
  });
}

/// Visible keys, then the lowest ones that are not.
std::vector<Index> lowest_first(View<const double, 1> scores, Index K) {
  std::vector<Index> keys;
  for (const bool visible : {true, false})
    for (Index s = 0; s < scores.size() && static_cast<Index>(keys.size()) < K; ++s)
      if ((scores(s) > -std::numeric_limits<double>::infinity()) == visible) keys.push_back(s);
  return keys;
}

/// Rows of fewer than K visible keys read masked ones as well.
DefectVariant filled_up(std::string name,
                        std::vector<Index> (*keys)(View<const double, 1>, Index K)) {
  return {std::move(name), [keys](Variant& altered) {
            const Memory<Selected> last = remember_selection(altered);
            around_attention(altered, [=](Name, AttentionTold& told) {
              const Selected& selected = last.get();
              const Index K = told.chosen.shape()[1];
              for (Index t = 0; t < told.chosen.shape()[0]; ++t)
                if (told.chosen(t, K - 1) < 0)
                  write_row(told.chosen.view()[t], keys(selected.scores.view()[t], K));
            });
          }};
}

bool computes(const Config& c, Index layer) {
  return c.indexer->computes[static_cast<std::size_t>(layer)];
}

/// Layers that share a selection read that of the layer before the last one that computed.
void share_stale(Variant& altered) {
  const Memory<std::map<Index, Tensor<Index, 2>>> by_layer;
  around_selection(altered, [by_layer](const auto& inner, Name name, Chosen chosen, In scores) {
    inner(name, chosen, scores);
    std::map<Index, Tensor<Index, 2>> sets;
    if (by_layer.has()) sets = by_layer.get();
    sets[layer_of(name)] = copy_of(chosen);
    by_layer.put(std::move(sets));
  });
  around_attention(altered, [by_layer, c = altered.model.config](Name name, AttentionTold& told) {
    const Index layer = layer_of(name);
    if (layer >= c.num_hidden_layers || computes(c, layer)) return;
    const auto& sets = by_layer.get();
    auto mine = sets.upper_bound(layer);
    if (mine == sets.begin() || --mine == sets.begin()) return;
    if (std::prev(mine)->second.shape() == told.chosen.shape())
      told.chosen = std::prev(mine)->second;
  });
}

void share_nothing(Variant& altered) {
  const Memory<Selected> last = remember_selection(altered);
  around_attention(altered, [last, c = altered.model.config](Name name, AttentionTold& told) {
    if (layer_of(name) >= c.num_hidden_layers || computes(c, layer_of(name))) return;
    Tensor<Index, 2> dense(last.get().scores.shape(), -1);
    for (Index t = 0; t < dense.shape()[0]; ++t)
      write_row(dense.view()[t], visible_in(last.get().scores, t));
    told.chosen = std::move(dense);
  });
}

/// Head n of the attention reads what head n (modulo H) of the indexer selects for itself.
void each_head_its_own(Variant& altered) {
  const Memory<std::vector<Tensor<double, 2>>> by_head;
  around(altered.ops.indexer_scores, anywhere(),
         [by_head](const auto& inner, Name name, Out scores, In3 q, In k, In w,
                   const Indexer& indexer, const Visibility& visible) {
           inner(name, scores, q, k, w, indexer, visible);
           by_head.put(scores_by_head(inner, name, q, k, w, indexer, visible));
         });
  around(altered.ops.mla_expanded, anywhere(),
         [by_head, select = altered.ops.topk_select](const auto& inner, Name name, Out3 out,
                                                     In3 q_nope, In3 q_rope, In3 kv, In k_rope,
                                                     Keys chosen, double scale) {
           const auto& scores = by_head.get();
           Tensor<double, 3> mine(out.shape);
           Tensor<Index, 2> keys(chosen.shape);
           for (Index n = 0; n < out.shape[1]; ++n) {
             const auto h = static_cast<std::size_t>(n) % scores.size();
             select(name, keys, scores[h]);
             inner(name, mine, q_nope, q_rope, kv, k_rope, keys, scale);
             for (Index t = 0; t < out.shape[0]; ++t) copy_into(out[t][n], mine.view()[t][n]);
           }
         });
}

void of_previous_query(Variant& altered) {
  around_selection(altered, [](const auto& inner, Name name, Chosen chosen, In scores) {
    inner(name, chosen, scores);
    for (Index t = chosen.shape[0] - 1; t > 0; --t) copy_into(chosen[t], chosen[t - 1]);
  });
}

bool shares(const Config& c) {
  return c.indexer && c.indexer->computes.front() &&
         std::count(c.indexer->computes.begin(), c.indexer->computes.end(), false) > 0;
}

}  // namespace

std::vector<Defect> selection_use_defects() {
  return {
      {9,
       "selection-per-head",
       "Scores are not summed over the indexer's heads: each head selects keys of its own.",
       issue("ml-explore/mlx-lm", 531),
       heads,
       has_indexer,
       {{"", each_head_its_own}}},
      {23,
       "selection-sharing-ignored",
       "Layers that share a selection read an older layer's, or all visible keys.",
       issue("ikawrakow/ik_llama.cpp", 2063),
       heads,
       shares,
       {{"an older layer's", share_stale}, {"dense", share_nothing}}},
      {26,
       "selection-mask-not-reapplied",
       "If fewer than K keys are visible, top-k fills up with masked ones, and the attention "
       "reads them.",
       repository("AI-Hypercomputer/maxtext"),
       heads,
       has_indexer,
       {filled_up("lowest keys first", lowest_first), filled_up("as torch.topk", as_torch_orders)}},
      {35,
       "selection-keeps-all-ties",
       "A threshold mask keeps every key that ties with the K-th: more than K are read.",
       repository("AI-Hypercomputer/maxtext") + "/commit/ca6c82b11",
       heads,
       has_indexer,
       {{"", keep_all_ties}}},
      {37,
       "selection-unused",
       "The sparse path is never taken: attention is dense.",
       issue("sgl-project/sglang", 14245),
       heads,
       [](const Config& c) { return c.indexer && c.use_sparse_attention; },
       {config_variant("", [](Config& c) { c.use_sparse_attention = false; })}},
      {227,
       "selection-of-previous-query",
       "Plausible: a query reads the selection of the query before it.",
       "",
       selector,
       has_indexer,
       {{"", of_previous_query}}},
  };
}

}  // namespace dsa::verify
