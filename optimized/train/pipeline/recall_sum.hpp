// optimized/train/pipeline/recall_sum.hpp — means over rows, added up by their rows.
#pragma once

#include <vector>

#include "core/json.hpp"
#include "optimized/shared/recall.hpp"

namespace dsa::train {

/// Adds the sums behind `means`, `times` times: -1 takes them away again.
void add(Recall& sums, const Recall& means, Index times = 1);

/// As numbers behind others, and back from those at `at`, which goes on.
void append(std::vector<double>& numbers, const Recall&);
Recall recall_of(const std::vector<double>& numbers, std::size_t& at);

/// From sums to means; without a row nothing changes.
void divide_by_rows(Recall& sums);

/// {"rows", and every mean by its name}.
Json to_json(const Recall&);

}  // namespace dsa::train
