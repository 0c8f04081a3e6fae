// What logits alone tell of the place of a defect: how many keys a query must see to depart.
#include <algorithm>
#include <limits>
#include <map>

#include "core/trace_names.hpp"
#include "verify/localise/localise.hpp"

namespace dsa::verify {
namespace {

/// How many keys every query sees.
std::vector<Index> visible_keys(const Sequence& sequence) {
  std::vector<Index> visible;
  std::map<Index, Index> seen;
  for (const Index document : sequence.documents)
    visible.push_back(document < 0 ? 0 : ++seen[document]);
  return visible;
}

/// A selection that is not masked goes wrong for any number of keys, whatever it selects by.
bool masks_selection(std::string_view name) {
  return is_selection(name) || within_layer(name) == names::indexer_scores;
}

/// With one key the softmax is 1 whatever the scores: these ops make no difference.
bool needs_two_keys(std::string_view name) {
  for (const char* part : {names::q_a_proj, names::q_a_layernorm, names::q_b_proj, names::q_proj,
                           names::q_rope, names::k_rope})
    if (within_layer(name) == part) return true;
  return is_indexer_part(name) && !masks_selection(name);
}

/// What takes part in weighing keys against each other, all visible ones being selected.
bool weighs_keys(std::string_view name) {
  for (const char* part :
       {names::heads, names::kv_a_proj_with_mqa, names::kv_b_proj, names::kv_a_layernorm})
    if (within_layer(name) == part) return true;
  return masks_selection(name) || (needs_two_keys(name) && !is_indexer_part(name));
}

struct Fewest {
  Index departing = std::numeric_limits<Index>::max();  // keys that the first departing row sees
  Index agreeing = 0;                                   // rows that see fewer, all of which agree
};

Fewest fewest_keys(const LogitsResult& logits, const std::vector<Sequence>& sequences) {
  std::vector<std::vector<Index>> visible;
  for (const Sequence& sequence : sequences) visible.push_back(visible_keys(sequence));
  const auto keys = [&](const RowResult& row) {
    return visible[static_cast<std::size_t>(row.at.sequence)]
                  [static_cast<std::size_t>(row.at.position)];
  };
  Fewest fewest;
  for (const RowResult& row : logits.rows)
    if (row.decided() && !row.agrees()) fewest.departing = std::min(fewest.departing, keys(row));
  for (const RowResult& row : logits.rows)
    if (row.decided() && keys(row) < fewest.departing) ++fewest.agreeing;
  return fewest;
}

std::vector<std::string> those(const std::vector<std::string>& names,
                               bool (*fits)(std::string_view), bool wanted) {
  std::vector<std::string> kept;
  for (const std::string& name : names)
    if (fits(name) == wanted) kept.push_back(name);
  return kept;
}

}  // namespace

std::vector<std::string> suspects(const Judgement& plain, const std::vector<Sequence>& sequences,
                                  const Config& config, const std::vector<std::string>& executed,
                                  std::string& why) {
  const Index K = config.indexer && config.use_sparse_attention ? config.indexer->topk : 0;
  const Fewest fewest = fewest_keys(*plain.logits, sequences);
  const std::string rows = std::to_string(fewest.agreeing) + " rows that see fewer keys agree";
  if (fewest.departing == std::numeric_limits<Index>::max()) {
    why = "no decided row departs by itself, so that logits do not tell where";
    return executed;
  }
  if (fewest.departing == 1) {
    why =
        "a row that sees one key departs, where queries, rotations and the indexer make no "
        "difference: something else is wrong, whatever else these may be";
    return those(executed, needs_two_keys, false);
  }
  if (K > 0 && fewest.departing > K && fewest.agreeing > 0) {
    why = "the first departing row sees " + std::to_string(fewest.departing) + " keys, more than " +
          "index_topk = " + std::to_string(K) + ", and the " + rows +
          ": the indexer or its selection, unless something goes wrong for certain tokens or "
          "positions only";
    return those(executed, is_indexer_part, true);
  }
  if (fewest.agreeing > 0) {
    why = "the first departing row sees " + std::to_string(fewest.departing) + " keys and the " +
          rows +
          ": what weighs keys, or a selection of keys that are not visible, unless something goes "
          "wrong for certain tokens only";
    return those(executed, weighs_keys, true);
  }
  why = "all rows depart";
  return executed;
}

}  // namespace dsa::verify
