#include "experiments/sweep/evaluate/by_position.hpp"

#include <algorithm>

#include "optimized/train/pipeline/recall_sum.hpp"

namespace dsa::sweep {
namespace {

using train::Batch;

Batch part_of(const Batch& batch, Index from, Index to) {
  const auto a = static_cast<std::ptrdiff_t>(from), b = static_cast<std::ptrdiff_t>(to);
  const auto cut = [&](const auto& all) {
    return std::decay_t<decltype(all)>(all.begin() + a, all.begin() + b);
  };
  Batch part{cut(batch.tokens), cut(batch.positions), cut(batch.begin), cut(batch.target_weight)};
  for (std::int32_t& begin : part.begin) begin -= static_cast<std::int32_t>(from);
  return part;
}

}  // namespace

std::vector<Batch> documents_of(const std::vector<Batch>& batches) {
  std::vector<Batch> documents;
  for (const Batch& batch : batches)
    for (Index from = 0, to = 0; from < batch.rows(); from = to) {
      to = from + 1;
      while (to < batch.rows() && batch.begin[static_cast<std::size_t>(to)] ==
                                      batch.begin[static_cast<std::size_t>(from)])
        ++to;
      documents.push_back(part_of(batch, from, to));
    }
  return documents;
}

Batch beginning(const Batch& document, Index n) {
  Batch part = part_of(document, 0, std::min(n, document.rows()));
  if (!part.target_weight.empty()) part.target_weight.back() = 0;  // its target was cut off
  return part;
}

std::vector<Stretch> recall_by_position(const RecallOf& recall_of,
                                        const std::vector<Batch>& documents,
                                        const std::vector<Index>& ends) {
  std::vector<Stretch> stretches;
  for (std::size_t i = 0; i < ends.size(); ++i)
    stretches.push_back({i == 0 ? 0 : ends[i - 1], ends[i], {}});
  for (const Batch& document : documents) {
    std::vector<Recall> shorter;
    for (Stretch& stretch : stretches) {
      if (document.rows() <= stretch.from) break;
      const std::vector<Recall> longer = recall_of(beginning(document, stretch.to));
      for (const Recall& layer : longer) train::add(stretch.recall, layer);
      for (const Recall& layer : shorter) train::add(stretch.recall, layer, -1);
      shorter = longer;
    }
  }
  std::erase_if(stretches, [](const Stretch& stretch) { return stretch.recall.rows == 0; });
  for (Stretch& stretch : stretches) train::divide_by_rows(stretch.recall);
  return stretches;
}

}  // namespace dsa::sweep
