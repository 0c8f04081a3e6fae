#include "experiments/sweep/report/report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "experiments/sweep/report/chart.hpp"
#include "verify/report/page.hpp"
#include "verify/report/text.hpp"

namespace dsa::sweep {
namespace {

using verify::cell, verify::escaped, verify::fact, verify::number, verify::table_of, verify::th;

std::string title_of(const Study& study) {
  return study.plan.sweep.title.empty() ? study.directory : study.plan.sweep.title;
}

/// The verdict in the colours of the style sheet.
std::string word_of(Verdict verdict) {
  const char* kind = verdict == Verdict::holds      ? "pass"
                     : verdict == Verdict::does_not ? "fail"
                                                    : "inconclusive";
  return fmt::format("<span class=\"word {}\">{}</span>", kind, name_of(verdict));
}

std::string end_of(double x) { return std::isinf(x) ? (x < 0 ? "-inf" : "inf") : number(x); }

std::string interval_of(const Estimate& e) {
  return e.n == 0 ? "" : number(e.mean) + " [" + end_of(e.low) + ", " + end_of(e.high) + "]";
}

std::string measured_as(const Claim& claim) {
  std::string what = claim.metric;
  if (!claim.minus.empty()) what += (claim.ratio ? " / " : " - ") + claim.minus;
  if (claim.growth) return "exponent of " + what + " in " + claim.axis;
  if (!claim.axis.empty())
    what += fmt::format(", {} {} {} {}", claim.axis, claim.to, claim.ratio ? "over" : "less",
                        claim.from);
  for (const auto& [axis, value] : claim.where) what += ", at " + axis + "=" + value;
  return what;
}

/// "0.517 [0.507, 0.528], gate >= 0.1, p = 0.0156, 7 seeds"
std::string numbers_of(const Finding& finding, const std::string& pair) {
  const Estimate& e = finding.estimate;
  if (e.n == 0) return "gate " + text_of(finding.claim.gate);
  return interval_of(e) + ", gate " + text_of(finding.claim.gate) +
         (std::isnan(e.p) ? "" : fmt::format(", p = {:.3g}", e.p)) + ", " +
         verify::plural(e.n, pair);
}

std::string claims_table(const Study& study) {
  std::string body;
  for (const Finding& finding : findings_of(study))
    body += "<tr><td>" + word_of(finding.verdict) + "</td><td>" + escaped(finding.claim.says) +
            "<br><b>" + escaped(numbers_of(finding, study.plan.sweep.pair)) +
            "</b><br><span class=\"soft small\">" + escaped(measured_as(finding.claim)) +
            (finding.note.empty() ? "" : "; " + escaped(finding.note)) + "</span></td></tr>\n";
  if (body.empty()) return "";
  return table_of(th("verdict") + th("claim, mean difference [95 % interval]"), body);
}

/// The name without the words that all of the figure's metrics begin with: "recall.indexer".
std::string short_name(const Figure& figure, const std::string& metric) {
  std::size_t shared = 0;
  for (auto dot = metric.find('.'); dot != std::string::npos; dot = metric.find('.', dot + 1)) {
    const std::string begin = metric.substr(0, dot + 1);
    if (std::all_of(figure.metrics.begin(), figure.metrics.end(),
                    [&](const std::string& other) { return other.starts_with(begin); }))
      shared = dot + 1;
  }
  return figure.metrics.size() == 1 ? metric : metric.substr(shared);
}

std::string legend_of(const Sweep& sweep, const Figure& figure) {
  std::string out;
  const auto names = series_of(sweep, figure);
  for (std::size_t i = 0; i < names.size(); ++i)
    if (!names[i].empty())
      out += verify::key(
          fmt::format("series{}", i % 6),
          escaped(figure.together ? short_name(figure, names[i]) : figure.series + "=" + names[i]));
  return out;
}

std::string panel_of(const Study& study, const Figure& figure, const std::string& title,
                     const std::vector<std::string>& metrics) {
  const std::string picture = chart(study.plan.sweep, figure, metrics, study.rows.rows);
  if (picture.empty())
    return "<p class=\"soft small\">No finished run has " + escaped(metrics.front()) + ".</p>\n";
  return "<div><h5>" + escaped(title) +
         (figure.unit.empty() ? "" : " <span class=\"soft\">" + escaped(figure.unit) + "</span>") +
         "</h5><div class=\"picture narrow\">" + picture + "</div></div>\n";
}

std::string figure_of(const Study& study, const Figure& figure) {
  std::string panels;
  if (figure.together)
    panels = panel_of(study, figure, "", figure.metrics);
  else
    for (const std::string& metric : figure.metrics)
      panels += panel_of(study, figure, short_name(figure, metric), {metric});
  return "<figure><figcaption><h4>" + escaped(figure.title) +
         "</h4><p>A dot is a run; a bar is the mean, its line the 95 % interval over " +
         escaped(study.plan.sweep.pair) + "s.</p></figcaption>\n<div class=\"legend\">" +
         legend_of(study.plan.sweep, figure) + "</div>\n<div class=\"panels\">" + panels +
         "</div></figure>\n";
}

std::string failures_of(const Study& study) {
  std::string body;
  for (const Row& row : study.rows.rows)
    if (!row.done)
      body += "<tr>" + cell("mono", row.id) + cell("", name_of(Point{row.id, row.axes, {}})) +
              cell("", row.error) + "</tr>\n";
  if (body.empty()) return "";
  return "<section class=\"box\"><h4>Runs that failed</h4>" +
         table_of(th("point") + th("values") + th("what it said"), body) + "</section>\n";
}

/// Every value that a receipt has, once.
std::string all_of(const Study& study, const char* key) {
  std::set<std::string> values;
  for (const Row& row : study.rows.rows)
    if (row.receipt.contains(key))
      values.insert(row.receipt.at(key).is_string() ? row.receipt.at(key).get<std::string>()
                                                    : row.receipt.at(key).dump());
  std::string text;
  for (const std::string& value : values) text += (text.empty() ? "" : "; ") + value;
  return text;
}

double sum_of(const Study& study, const char* key) {
  double sum = 0;
  for (const Row& row : study.rows.rows) sum += value_of(row, key).value_or(0);
  return sum;
}

std::string axes_of(const Study& study) {
  std::string text;
  for (const Axis& axis : study.plan.sweep.axes) {
    text += (text.empty() ? "" : " ") + axis.name + "=";
    for (std::size_t i = 0; i < axis.values.size(); ++i)
      text += (i == 0 ? "" : ",") + axis.values[i];
  }
  return text;
}

std::string receipt_of(const Study& study) {
  const Index done = std::count_if(study.rows.rows.begin(), study.rows.rows.end(),
                                   [](const Row& row) { return row.done; });
  const Sweep& sweep = study.plan.sweep;
  std::string rerun = "dsa-sweep " +
                      (sweep.file.empty() ? "--config " + sweep.config : sweep.file) + " " +
                      axes_of(study) + " --out " + study.directory;
  return "<section class=\"box\"><h4>How to run it again</h4><dl class=\"facts\">\n" +
         fact("command", rerun, true) +
         fact("runs", fmt::format("{} of {} points are done", done, study.plan.points.size())) +
         fact("configuration", study.plan.sweep.config + ", SHA-256 " + study.plan.config_sha256) +
         fact("commit", all_of(study, "commit")) + fact("compiler", all_of(study, "compiler")) +
         fact("flags", all_of(study, "flags")) + fact("processor", all_of(study, "machine")) +
         fact("threads", all_of(study, "threads")) +
         fact("time", fmt::format("{:.0f} s of wall time, {:.0f} s of processor time, all runs",
                                  sum_of(study, "wall_s"), sum_of(study, "cpu_s"))) +
         "</dl></section>\n";
}

std::string section_of(const Study& study) {
  const Sweep& sweep = study.plan.sweep;
  std::string out = "<section class=\"golden\">\n<h2>" + escaped(title_of(study)) + "</h2>\n";
  out += "<dl class=\"facts\">\n" +
         fact("asked",
              sweep.question.empty() ? "nothing was registered before the runs" : sweep.question) +
         fact("predicted", sweep.prediction) + fact("note", study.rows.repaired) + "</dl>\n";
  out += claims_table(study);
  for (const Figure& figure : sweep.figures) out += figure_of(study, figure);
  return out + failures_of(study) + receipt_of(study) + "</section>\n";
}

std::string counted(const std::vector<Study>& studies) {
  int holds = 0, does_not = 0, cannot_tell = 0;
  for (const Study& study : studies)
    for (const Finding& finding : findings_of(study))
      ++(finding.verdict == Verdict::holds      ? holds
         : finding.verdict == Verdict::does_not ? does_not
                                                : cannot_tell);
  return fmt::format("{} claims: {} hold, {} do not hold, of {} the runs cannot tell",
                     holds + does_not + cannot_tell, holds, does_not, cannot_tell);
}

}  // namespace

Study read_study(const std::string& directory) {
  return {directory, read_plan(directory), read_rows(directory)};
}

std::vector<Finding> findings_of(const Study& study) {
  std::vector<Finding> all;
  for (const Claim& claim : study.plan.sweep.claims)
    all.push_back(examine(study.plan.sweep, claim, study.rows.rows));
  return all;
}

std::string page_of(const std::vector<Study>& studies) {
  std::string body =
      "<header>\n<h2>Experiments</h2>\n<p class=\"why\">" + counted(studies) +
      ".</p>\n<p class=\"soft\">Question, prediction and gate were written down before the first "
      "run. A claim holds if the whole 95 % interval satisfies its gate, does not hold if none of "
      "it does, and otherwise the runs cannot tell.</p>\n</header>\n";
  for (const Study& study : studies) body += section_of(study);
  return verify::page_of("Experiments", body, "dsa-sweep");
}

std::string text_of(const std::vector<Study>& studies) {
  std::string text;
  for (const Study& study : studies) {
    text += title_of(study) + "\n";
    for (const Finding& finding : findings_of(study))
      text +=
          fmt::format("  {:<13}  {} {}, gate {}\n", name_of(finding.verdict), finding.claim.says,
                      interval_of(finding.estimate), text_of(finding.claim.gate));
  }
  return text + counted(studies) + "\n";
}

}  // namespace dsa::sweep
