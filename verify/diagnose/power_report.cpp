// The detection matrix as a table and as JSON.
#include <fmt/format.h>

#include <algorithm>

#include "verify/diagnose/power.hpp"
#include "verify/report/report.hpp"
#include "verify/report/text.hpp"
#include "verify/report/values.hpp"

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

/// A golden that misses defects is no failure of anything: the matrix says what it is good for.
std::string total(Index caught, std::size_t of, bool colour) {
  const double share = of == 0 ? 0.0 : static_cast<double>(caught) / static_cast<double>(of);
  return closing_line(
      Outcome::pass,
      fmt::format("{} of {} variants of known defects caught ({:.1f} %)", caught, of, 100 * share),
      colour);
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

Json row_json(const PowerRow& r) {
  return {{"defect", r.number},          {"name", r.name},
          {"variant", r.variant},        {"logits", json_of(r.logits)},
          {"traces", json_of(r.traces)}, {"decisions", r.selections},
          {"caught", r.caught()}};
}

}  // namespace

std::string table(const Power& p, bool colour) {
  std::string text = fmt::format("checkpoint {}\ngolden     {}, limits of {}\n\n",
                                 clean(p.checkpoint), clean(p.golden), p.precision) +
                     head("caught");
  for (const PowerRow& r : p.matrix) text += line(r, r.caught() ? "yes" : "NO");
  text += std::string("\n") + legend;
  for (const std::string& add : p.add) text += "to see more, add: " + add + "\n";
  return text + "\n" + total(p.caught(), p.matrix.size(), colour);
}

Json to_json(const Power& p) {
  Json matrix = Json::array();
  for (const PowerRow& r : p.matrix) matrix.push_back(row_json(r));
  return {{"checkpoint", json_of(p.checkpoint)},
          {"golden", json_of(p.golden)},
          {"precision", p.precision},
          {"caught", p.caught()},
          {"all", p.matrix.size()},
          {"matrix", matrix},
          {"add", json_of(p.add)},
          {"receipt", receipt_json(p.receipt)}};
}

std::string table(const std::vector<Power>& goldens, bool colour) {
  if (goldens.size() == 1) return table(goldens.front(), colour);
  std::string text;
  for (const Power& p : goldens)
    text += fmt::format("{:<60} {:>4} of {:>4} caught, limits of {}\n", clean(p.golden), p.caught(),
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
         listed("caught by no golden", missed) + "\n" + total(caught, rows.size(), colour);
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
