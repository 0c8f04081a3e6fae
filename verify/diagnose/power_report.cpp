// The detection matrix as a table and as JSON.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "verify/diagnose/power.hpp"
#include "verify/report/report.hpp"

namespace dsa::verify {
namespace {

/// In brackets: below the limit.
std::string ratio(double x) {
  return x <= 1 ? fmt::format("({:.2g})", x) : fmt::format("{:.3g}", x);
}

std::string head(const std::string& last) {
  return fmt::format("{:<7} {:<42} {:<42} {:>10} {:>10} {:>10}  {}\n", "defect", "name", "variant",
                     "logits", "traces", "decisions", last);
}

std::string line(const PowerRow& r, const std::string& last) {
  return fmt::format("{:<7} {:<42} {:<42} {:>10} {:>10} {:>10}  {}\n", r.number, r.name, r.variant,
                     ratio(r.logits), ratio(r.traces), r.selections, last);
}

std::string total(Index caught, std::size_t of) {
  return fmt::format("power: {} of {} variants of known defects caught ({:.1f} %)\n", caught, of,
                     of == 0 ? 0.0 : 100.0 * static_cast<double>(caught) / static_cast<double>(of));
}

std::string in_full(const PowerRow& r) {
  return fmt::format("{} {}{}", r.number, r.name, r.variant.empty() ? "" : " (" + r.variant + ")");
}

std::string listed(const std::string& what, const std::vector<std::string>& names) {
  if (names.empty()) return "";
  std::string text = fmt::format("\n{} ({}):\n", what, names.size());
  for (const std::string& name : names) text += "  " + name + "\n";
  return text;
}

constexpr const char* legend =
    "logits, traces: how far above the limit at most; in brackets: below it, not caught\n";

Json number(double x) { return std::isfinite(x) ? Json(x) : Json("Infinity"); }

Json row_json(const PowerRow& r) {
  return {{"defect", r.number},         {"name", r.name},
          {"variant", r.variant},       {"logits", number(r.logits)},
          {"traces", number(r.traces)}, {"decisions", r.selections},
          {"caught", r.caught()}};
}

}  // namespace

std::string table(const Power& p) {
  std::string text = fmt::format("checkpoint {}\ngolden     {}, limits of {}\n\n", p.checkpoint,
                                 p.golden, p.precision) +
                     head("caught");
  for (const PowerRow& r : p.matrix) text += line(r, r.caught() ? "yes" : "NO");
  text += std::string("\n") + legend;
  for (const std::string& add : p.add) text += "to see more, add: " + add + "\n";
  return text + "\n" + total(p.caught(), p.matrix.size());
}

Json to_json(const Power& p) {
  Json matrix = Json::array();
  for (const PowerRow& r : p.matrix) matrix.push_back(row_json(r));
  return {{"checkpoint", p.checkpoint},
          {"golden", p.golden},
          {"precision", p.precision},
          {"caught", p.caught()},
          {"all", p.matrix.size()},
          {"matrix", matrix},
          {"add", p.add},
          {"receipt", receipt_json(p.receipt)}};
}

std::string table(const std::vector<Power>& goldens) {
  if (goldens.size() == 1) return table(goldens.front());
  std::string text;
  for (const Power& p : goldens)
    text += fmt::format("{:<60} {:>4} of {:>4} caught, limits of {}\n", p.golden, p.caught(),
                        p.matrix.size(), p.precision);
  text += "\n" + head("goldens that catch it");
  Index caught = 0;
  std::vector<std::string> traces_only, missed;
  const std::vector<TogetherRow> rows = together(goldens);
  for (const TogetherRow& row : rows) {
    const auto of =
        std::count_if(row.most.begin(), row.most.end(), [](double x) { return x != -1; });
    text += line(row.best, fmt::format("{} of {}", row.goldens, of));
    caught += row.best.caught();
    if (!row.best.caught()) missed.push_back(in_full(row.best));
    if (row.best.caught() && !row.best.by_logits()) traces_only.push_back(in_full(row.best));
  }
  return text + "\n" + legend + listed("caught through traces only", traces_only) +
         listed("caught by no golden", missed) + "\n" + total(caught, rows.size());
}

Json to_json(const std::vector<Power>& goldens) {
  if (goldens.size() == 1) return to_json(goldens.front());
  Json each = Json::array(), matrix = Json::array();
  for (const Power& p : goldens) each.push_back(to_json(p));
  Index caught = 0;
  for (const TogetherRow& row : together(goldens)) {
    Json json = row_json(row.best);
    json["goldens"] = row.goldens;
    json["traces_only"] = row.best.caught() && !row.best.by_logits();
    caught += row.best.caught();
    matrix.push_back(json);
  }
  return {{"caught", caught}, {"all", matrix.size()}, {"matrix", matrix}, {"goldens", each}};
}

}  // namespace dsa::verify
