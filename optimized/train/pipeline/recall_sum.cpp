#include "optimized/train/pipeline/recall_sum.hpp"

namespace dsa::train {
namespace {

constexpr double Recall::*means_of[] = {&Recall::indexer, &Recall::random,
                                        &Recall::recent,  &Recall::oracle,
                                        &Recall::dead,    &Recall::teacher_entropy};

}  // namespace

void add(Recall& sums, const Recall& means, Index times) {
  const auto rows = static_cast<double>(times * means.rows);
  sums.rows += times * means.rows;
  for (double Recall::*const mean : means_of) sums.*mean += rows * means.*mean;
}

void append(std::vector<double>& numbers, const Recall& recall) {
  numbers.push_back(static_cast<double>(recall.rows));
  for (double Recall::*const mean : means_of) numbers.push_back(recall.*mean);
}

Recall recall_of(const std::vector<double>& numbers, std::size_t& at) {
  Recall recall;
  recall.rows = static_cast<Index>(numbers.at(at++));
  for (double Recall::*const mean : means_of) recall.*mean = numbers.at(at++);
  return recall;
}

void divide_by_rows(Recall& sums) {
  if (sums.rows == 0) return;
  for (double Recall::*const mean : means_of) sums.*mean /= static_cast<double>(sums.rows);
}

}  // namespace dsa::train
