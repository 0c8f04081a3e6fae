// A verdict on a run of training as one HTML page, and as JUnit XML.
#include "verify/report/page.hpp"

#include <fmt/format.h>

#include <cmath>

#include "verify/report/heat.hpp"
#include "verify/report/junit.hpp"
#include "verify/report/text.hpp"
#include "verify/training/report.hpp"

namespace dsa::verify {
namespace {

double ratio_of(const FinalResult& r) { return r.missing ? HUGE_VAL : r.worst_over_allowed; }

std::string box(const std::string& title, const std::string& inside_html) {
  if (inside_html.empty()) return "";
  return "<section class=\"box matrix\"><h4>" + escaped(title) + "</h4>" + inside_html +
         "</section>\n";
}

std::string map_of_steps(const TrainingVerdict& v) {
  std::vector<HeatCell> cells;
  for (const QuantityResult& r : v.quantities)
    for (std::size_t n = 0; n < r.found.size(); ++n) {
      const double error = std::abs(r.found[n] - r.expected[n]);
      cells.push_back({r.name, std::to_string(n), error == 0 ? 0 : error / r.limit[n]});
    }
  const std::string map = heat_map(cells);
  return box("Steps: error over what is allowed",
             map.empty() ? "" : "<div class=\"legend\">" + heat_legend() + "</div>\n" + map);
}

std::string map_of_finals(const TrainingVerdict& v) {
  std::vector<HeatCell> cells;
  for (const FinalResult& r : v.finals) cells.push_back(cell_of_parameter(r.name, ratio_of(r)));
  return box("Final parameters: error over what is allowed, by layer", heat_map(cells));
}

std::string explanations(const TrainingVerdict& v) {
  std::string items;
  for (const KnownCause& cause : v.causes)
    items += "<li><b>" + escaped(cause.name) + "</b>: " + escaped(cause.sentence) + "</li>\n";
  for (const NearDecision& d : v.turned)
    items += "<li>turned by rounding: " + escaped(in_words(d)) + "</li>\n";
  if (items.empty()) return "";
  return "<section class=\"box\"><h4>What explains it</h4><ul class=\"notes\">\n" + items +
         "</ul></section>\n";
}

std::string table_of_finals(const TrainingVerdict& v) {
  std::string body;
  for (const FinalResult& r : v.finals)
    body += "<tr>" + cell("name", r.name) +
            cell("num", r.missing ? "missing" : number(r.distance)) +
            cell("num", number(r.distance_limit)) + cell("num", number(ratio_of(r))) + "<td>" +
            word(r.ok()) + "</td></tr>\n";
  if (body.empty()) return "";
  return "<details class=\"box\"><summary>Every final parameter</summary>" +
         table_of(th("parameter") + th_number("distance") + th_number("limit") +
                      th_number("over allowed") + th("verdict"),
                  body) +
         "</details>\n";
}

}  // namespace

std::string to_html(const TrainingVerdict& v) {
  std::string facts = fact("checkpoint", v.checkpoint, true) +
                      fact("trajectory", v.trajectory, true) +
                      fact("candidate", v.candidate, true) + fact("precision", v.precision) +
                      fact("steps", std::to_string(v.steps)) + fact("recipe", v.recipe_from);
  for (const std::string& note : v.notes) facts += fact("note", note);
  return page_of("Training: " + title_case(v.outcome),
                 banner(v.outcome, "dsa-verify training", title_case(v.outcome), v.why, "",
                        "<dl class=\"facts\">" + facts + "</dl>") +
                     explanations(v) + map_of_steps(v) + map_of_finals(v) + table_of_finals(v) +
                     receipt_section(v.receipt));
}

std::string to_junit(const TrainingVerdict& v) {
  JunitSuite suite{v.trajectory + (v.candidate.empty() ? "" : ", " + v.candidate),
                   {{"checkpoint", v.checkpoint},
                    {"trajectory", v.trajectory},
                    {"candidate", v.candidate},
                    {"precision", v.precision},
                    {"recipe", v.recipe_from}},
                   {},
                   v.outcome,
                   v.why,
                   v.receipt};
  for (const QuantityResult& r : v.quantities)
    suite.cases.push_back({"steps", r.name, r.ok() ? Outcome::pass : Outcome::fail,
                           fmt::format("beyond its limit from step {} on, at most {} times",
                                       r.first, number(r.worst_over_allowed))});
  for (const FinalResult& r : v.finals)
    suite.cases.push_back(
        {"finals", r.name,
         r.missing ? Outcome::inconclusive
         : r.ok()  ? Outcome::pass
                   : Outcome::fail,
         r.missing ? "the trajectory has it, and the file has not"
                   : "the error is " + number(r.worst_over_allowed) + " times what is allowed"});
  return to_junit(suite);
}

}  // namespace dsa::verify
