// The diagnosis as one HTML page: the ranking with bars of what remains, then the judgement.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "verify/defects/defect.hpp"
#include "verify/diagnose/diagnose.hpp"
#include "verify/report/page.hpp"
#include "verify/report/svg.hpp"
#include "verify/report/text.hpp"

namespace dsa::verify {
namespace {

constexpr std::size_t most_bars = 16, most_defects = 20;

std::string numbered(const Ranked& r) {
  std::string text;
  for (int number : r.numbers) text += (text.empty() ? "" : " + ") + std::to_string(number);
  return text + "  " + r.name + (r.variant.empty() ? "" : " (" + r.variant + ")");
}

std::vector<Bar> bars(const Diagnosis& d) {
  const bool logits = std::isfinite(d.kl_max_before);
  std::vector<Bar> list = {
      {"as it should be: the definition", logits ? d.kl_max_before : d.distance_before, "open"}};
  for (const Ranked& r : d.ranking) {
    if (list.size() > most_bars || !std::isfinite(r.distance)) break;
    list.push_back(
        {numbered(r), logits ? r.kl_max_after : r.distance, r.explained ? "good" : "bad"});
  }
  return list;
}

std::string ranking_figure(const Diagnosis& d) {
  if (d.ranking.empty()) return "";
  const bool logits = std::isfinite(d.kl_max_before);
  return figure("What remains under each known defect",
                logits ? "The largest KL of a row between the candidate and the reference with the "
                         "defect, in nats. The first bar is the reference without one."
                       : "Normalised mean square errors of the traced tensors, summed.",
                key("square open", "definition") + key("square good", "explains the candidate") +
                    key("square bad", "does not"),
                bar_chart(bars(d), logits ? "largest KL of a row, nats" : "distance"));
}

std::string report_link(const std::string& link) {
  if (link.empty()) return "<td></td>";
  std::string shown = link.substr(link.find(".com/") + 5);
  if (const auto at = shown.find("/issues/"); at != std::string::npos) shown.replace(at, 8, "#");
  return "<td><a href=\"" + escaped(link) + "\">" + escaped(shown) + "</a></td>";
}

std::string ranking_table(const Diagnosis& d) {
  if (d.ranking.empty()) return "";
  std::string body;
  for (std::size_t i = 0; i < std::min(d.ranking.size(), most_defects); ++i) {
    const Ranked& r = d.ranking[i];
    if (!std::isfinite(r.distance)) break;  // it ended early: it cannot explain the candidate
    body += "<tr><td class=\"name\">" + escaped(numbered(r)) + "<br><span class=\"small soft\">" +
            escaped(r.sentence) + "</span></td>" + cell("num", number(r.distance)) +
            cell("num", std::isfinite(r.kl_max_after) ? number(r.kl_max_after) : "-") +
            cell("", r.explained              ? "yes"
                     : !r.no_evidence.empty() ? "no evidence"
                     : r.tried                ? "no"
                                              : "-") +
            cell("mono", r.first) + report_link(r.link) + "</tr>\n";
  }
  return fmt::format(
      "<details class=\"box\" open><summary>Ranking, {} variants</summary>\n<p class=\"soft "
      "small\">Explained: held against the candidate, nothing is left beyond its noise; a dash was "
      "not held.</p>\n{}</details>\n",
      d.variants,
      table_of(th("defect") + th_number("remains") + th_number("KL max") + th("explained") +
                   th("first tensor") + th("report"),
               body));
}

std::string suspects_box(const Diagnosis& d) {
  if (d.suspects.empty()) return "";
  std::string items;
  for (const std::string& name : d.suspects)
    items += "<li><code>" + escaped(name) + "</code></li>\n";
  return "<section class=\"box\"><h4>The fewest ops that depart</h4><ul class=\"notes\">\n" +
         items + "</ul></section>\n";
}

std::string advice(const Diagnosis& d) {
  if (d.ranking.empty() || !d.ranking.front().explained) return "";
  const Ranked& best = d.ranking.front();
  return (best.first.empty() ? "Look at the weights" : "Look first at " + best.first) +
         (best.link.empty() ? "" : ", and at the same bug elsewhere: " + best.link);
}

std::string headline(const Diagnosis& d) {
  if (d.conclusion == "correct") return "Correct";
  if (d.conclusion == "unknown") return d.plain.outcome == Outcome::fail ? "Unknown" : "Undecided";
  if (d.conclusion == "precision") return "Computed as " + d.computed_in;
  if (d.conclusion == "convention") return "Another convention";
  std::string numbers;
  for (int number : d.defects) numbers += (numbers.empty() ? "" : " + ") + std::to_string(number);
  return "Defect " + numbers;
}

}  // namespace

std::string to_html(const Diagnosis& d) {
  Verdict verdict;  // what the sections of a judgement ask for
  verdict.candidate = d.candidate, verdict.why = d.plain.why, verdict.judged = d.plain;
  const std::string facts = "<dl class=\"facts\">\n" + fact("checkpoint", d.checkpoint, true) +
                            fact("candidate", d.candidate, true) +
                            fact("computed as", d.precision) + "</dl>\n";
  return page_of(
      headline(d) + ": " + d.candidate,
      banner(d.plain.outcome, "dsa-verify diagnose", headline(d), d.why, advice(d), facts) +
          ranking_figure(d) + suspects_box(d) + ranking_table(d) +
          judgement_section(verdict, d.plain) + receipt_section(d.receipt));
}

}  // namespace dsa::verify
