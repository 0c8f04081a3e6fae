// All families, in order of number.
#include <algorithm>

#include "verify/defects/defect.hpp"

namespace dsa::verify {
namespace {

std::vector<Defect> in_order() {
  std::vector<Defect> all;
  for (const auto family :
       {indexer_defects, selection_defects, mla_defects, rope_defects, router_defects, norm_defects,
        fp8_defects, block_defects, weight_defects}) {
    const std::vector<Defect> part = family();
    all.insert(all.end(), part.begin(), part.end());
  }
  std::stable_sort(all.begin(), all.end(),
                   [](const Defect& a, const Defect& b) { return a.number < b.number; });
  return all;
}

}  // namespace

std::span<const Defect> all_defects() {
  static const std::vector<Defect> all = in_order();
  return all;
}

}  // namespace dsa::verify
