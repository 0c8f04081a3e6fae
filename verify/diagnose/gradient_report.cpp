// The diagnosis of gradients as a table, as JSON and as one HTML page.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "verify/diagnose/gradients.hpp"
#include "verify/gradients/report.hpp"
#include "verify/report/page.hpp"
#include "verify/report/report.hpp"
#include "verify/report/svg.hpp"
#include "verify/report/text.hpp"
#include "verify/report/values.hpp"

namespace dsa::verify {
namespace {

constexpr std::size_t most_shown = 12, most_rows = 20;

bool is_named(const GradientDiagnosis& d) {
  return d.conclusion == "defect" || d.conclusion == "convention";
}

std::string numbered(const RankedGradients& r) {
  return std::to_string(r.number) + "  " + r.name +
         (r.variant.empty() ? "" : " (" + r.variant + ")");
}

const char* answer(const RankedGradients& r) { return r.explained ? "yes" : r.tried ? "no" : "-"; }

/// The ranking of one loss: those whose passes ended with numbers.
std::vector<const RankedGradients*> of_loss(const GradientDiagnosis& d, const std::string& loss,
                                            std::size_t most) {
  std::vector<const RankedGradients*> rows;
  for (const RankedGradients& r : d.ranking)
    if (r.loss == loss && std::isfinite(r.distance) && rows.size() < most) rows.push_back(&r);
  return rows;
}

std::string link_to(const std::string& link) {
  if (link.empty()) return "<td></td>";
  return "<td><a href=\"" + escaped(link) + "\">" + escaped(link.substr(link.find(".com/") + 5)) +
         "</a></td>";
}

std::string section_of(const GradientDiagnosis& d, const std::string& loss, double before) {
  std::vector<Bar> bars = {{"as it should be: the definition", before, "open"}};
  std::string body;
  for (const RankedGradients* r : of_loss(d, loss, most_rows)) {
    bars.push_back({numbered(*r), r->distance, r->explained ? "good" : "bad"});
    body += "<tr><td class=\"name\">" + escaped(numbered(*r)) + "<br><span class=\"small soft\">" +
            escaped(r->sentence) + "</span></td>" + cell("num", number(r->distance)) +
            cell("num", r->tried ? number(r->worst_over_allowed) : "-") + cell("", answer(*r)) +
            cell("mono", r->first) + link_to(r->link) + "</tr>\n";
  }
  return figure("What remains of loss." + loss + " under each known defect of training",
                "Root mean square over gradients and loss of what differs, over the larger of the "
                "two. The first bar is the definition.",
                key("square open", "definition") + key("square good", "explains the candidate") +
                    key("square bad", "does not"),
                bar_chart(bars, "distance")) +
         "<details class=\"box\" open><summary>Ranking</summary>" +
         table_of(th("defect") + th_number("remains") + th_number("over allowed") +
                      th("explained") + th("first departure") + th("report"),
                  body) +
         "</details>\n";
}

std::string headline(const GradientDiagnosis& d) {
  if (d.conclusion == "correct") return "Correct";
  if (d.conclusion == "convention") return "Another convention";
  if (d.conclusion == "unknown") return d.plain.outcome == Outcome::fail ? "Unknown" : "Undecided";
  return fmt::format("Defect {}", fmt::join(d.defects, " + "));
}

}  // namespace

std::string table(const GradientDiagnosis& d, bool colour) {
  const std::string why = d.conclusion + ": " + d.why;
  std::string text = opening_line(d.plain.outcome, why, colour) +
                     fmt::format("checkpoint {}\ncandidate  {}, computed as {}\n",
                                 clean(d.checkpoint), clean(d.candidate), d.precision);
  text += fmt::format("against the definition: {} ({})\n", std::string(name_of(d.plain.outcome)),
                      clean(d.plain.why));
  for (const auto& [loss, before] : d.before) {
    text += fmt::format("\nloss.{}: {} variants in all were run; before: distance {:.3g}\n", loss,
                        d.variants, before);
    text += fmt::format("{:<7} {:<36} {:<44} {:>9} {:>12}  {}\n", "defect", "name", "variant",
                        "remains", "over allowed", "explained");
    for (const RankedGradients* r : of_loss(d, loss, most_shown))
      text += fmt::format(
          "{:<7} {:<36} {:<44} {:>9.3g} {:>12}  {}\n", r->number, r->name, r->variant, r->distance,
          r->tried ? fmt::format("{:.3g}", r->worst_over_allowed) : "-", answer(*r));
    if (is_named(d)) {
      const RankedGradients& best = *of_loss(d, loss, 1).front();
      text += fmt::format("first departure: {}\n", best.first);
      if (!best.link.empty()) text += fmt::format("reported at:     {}\n", best.link);
    }
  }
  return text + "\n" + closing_line(d.plain.outcome, why, colour);
}

Json to_json(const GradientDiagnosis& d) {
  Json ranking = Json::array(), before = Json::object();
  for (const RankedGradients& r : d.ranking)
    ranking.push_back({{"loss", r.loss},
                       {"defect", r.number},
                       {"name", r.name},
                       {"variant", r.variant},
                       {"sentence", r.sentence},
                       {"link", r.link},
                       {"first", r.first},
                       {"convention", r.convention},
                       {"distance_after", std::isfinite(r.distance) ? json_of(r.distance) : Json()},
                       {"tried", r.tried},
                       {"worst_over_allowed", r.tried ? json_of(r.worst_over_allowed) : Json()},
                       {"explained", r.explained}});
  for (const auto& [loss, distance] : d.before) before[loss] = json_of(distance);
  return {{"conclusion", d.conclusion},
          {"why", json_of(d.why)},
          {"exit_code", exit_code(d)},
          {"defects", d.defects},
          {"also", d.also},
          {"ranking", ranking},
          {"distance_before", before},
          {"checkpoint", json_of(d.checkpoint)},
          {"golden", d.golden.empty() ? Json() : json_of(d.golden)},
          {"candidate", json_of(d.candidate)},
          {"precision", d.precision},
          {"plain", to_json(d.plain)},
          {"receipt", receipt_json(d.receipt)}};
}

std::string to_html(const GradientDiagnosis& d) {
  const std::string facts = "<dl class=\"facts\">\n" + fact("checkpoint", d.checkpoint, true) +
                            (d.golden.empty() ? "" : fact("golden", d.golden, true)) +
                            fact("candidate", d.candidate, true) +
                            fact("computed as", d.precision) +
                            fact("against the definition", d.plain.why) + "</dl>\n";
  std::string advice;
  if (is_named(d))
    advice = "Look first at " + d.ranking.front().first +
             (d.ranking.front().link.empty()
                  ? ""
                  : ", and at the same bug elsewhere: " + d.ranking.front().link);
  std::string sections;
  for (const auto& [loss, before] : d.before) sections += section_of(d, loss, before);
  return page_of(headline(d) + ": " + d.candidate,
                 banner(d.plain.outcome, "dsa-verify diagnose", headline(d), d.why, advice, facts) +
                     sections + receipt_section(d.receipt));
}

}  // namespace dsa::verify
