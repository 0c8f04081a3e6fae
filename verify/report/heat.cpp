#include "verify/report/heat.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <regex>

#include "verify/report/page.hpp"
#include "verify/report/text.hpp"

namespace dsa::verify {
namespace {

/// Within half of what is allowed, within it, and three steps beyond.
int step_of(double ratio) {
  if (ratio <= 0.5) return 0;
  if (ratio <= 1) return 1;
  if (ratio <= 10) return 2;
  return ratio <= 1e4 ? 3 : 4;
}

std::size_t place_of(std::vector<std::string>& names, const std::string& name) {
  const auto found = std::find(names.begin(), names.end(), name);
  const auto at = static_cast<std::size_t>(found - names.begin());
  if (found == names.end()) names.push_back(name);
  return at;
}

}  // namespace

std::string heat_map(const std::vector<HeatCell>& cells) {
  if (cells.empty()) return "";
  std::vector<std::string> rows, columns;
  std::map<std::pair<std::size_t, std::size_t>, double> ratios;
  for (const HeatCell& c : cells) {
    double& worst = ratios[{place_of(rows, c.row), place_of(columns, c.column)}];
    worst = std::isnan(c.ratio) ? HUGE_VAL : std::max(worst, c.ratio);
  }
  std::string head = th(""), body;
  for (const std::string& column : columns) head += th(escaped(column));
  for (std::size_t r = 0; r < rows.size(); ++r) {
    body += "<tr><td class=\"name\">" + escaped(rows[r]) + "</td>";
    for (std::size_t c = 0; c < columns.size(); ++c) {
      const auto found = ratios.find({r, c});
      body +=
          found == ratios.end()
              ? "<td class=\"none\"></td>"
              : fmt::format("<td class=\"heat{}\" title=\"{}, {}: {} of what is allowed\"></td>",
                            step_of(found->second), escaped(rows[r]), escaped(columns[c]),
                            number(found->second));
    }
    body += "</tr>\n";
  }
  return table_of(head, body);
}

std::string heat_legend() {
  return key("square heat0", "up to half of what is allowed") +
         key("square heat1", "within what is allowed") +
         key("square heat2", "up to 10 times as much") + key("square heat3", "up to 10,000") +
         key("square heat4", "beyond");
}

HeatCell cell_of_parameter(const std::string& name, double ratio) {
  static const std::regex layered(R"(^model\.layers\.(\d+)\.(.*)$)"), expert(R"(\.experts\.\d+\.)");
  std::smatch parts;
  if (!std::regex_match(name, parts, layered)) return {name, "model", ratio};
  return {std::regex_replace(parts[2].str(), expert, ".experts.*."), parts[1].str(), ratio};
}

}  // namespace dsa::verify
