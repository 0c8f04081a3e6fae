#include "optimized/train/pipeline/recall_sum.hpp"

namespace dsa::train {

void add(Recall& sums, const Recall& means, Index times) {
  const auto rows = static_cast<double>(times * means.rows);
  sums.rows += times * means.rows;
  for (const RecallMean& mean : recall_means) sums.*mean.value += rows * means.*mean.value;
}

void append(std::vector<double>& numbers, const Recall& recall) {
  numbers.push_back(static_cast<double>(recall.rows));
  for (const RecallMean& mean : recall_means) numbers.push_back(recall.*mean.value);
}

Recall recall_of(const std::vector<double>& numbers, std::size_t& at) {
  Recall recall;
  recall.rows = static_cast<Index>(numbers.at(at++));
  for (const RecallMean& mean : recall_means) recall.*mean.value = numbers.at(at++);
  return recall;
}

void divide_by_rows(Recall& sums) {
  if (sums.rows == 0) return;
  for (const RecallMean& mean : recall_means) sums.*mean.value /= static_cast<double>(sums.rows);
}

Json to_json(const Recall& recall) {
  Json json = {{"rows", recall.rows}};
  for (const RecallMean& mean : recall_means) json[mean.name] = recall.*mean.value;
  return json;
}

}  // namespace dsa::train
