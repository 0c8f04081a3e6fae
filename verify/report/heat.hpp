// verify/report/heat.hpp — many checks at once: error over what is allowed, as a heat map.
#pragma once

#include <string>
#include <vector>

namespace dsa::verify {

struct HeatCell {
  std::string row, column;
  double ratio = 0;  // of the error to what is allowed; of several in one place the largest counts
};

/// Rows and columns in order of first appearance. Markup for a section of a page; empty without
/// cells.
std::string heat_map(const std::vector<HeatCell>&);
std::string heat_legend();

/// Where a parameter stands in such a map: its kind ("self_attn.kv_b_proj.weight", all experts of a
/// layer together), and its layer.
HeatCell cell_of_parameter(const std::string& name, double ratio);

}  // namespace dsa::verify
