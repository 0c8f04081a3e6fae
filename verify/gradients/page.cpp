// A verdict on gradients as one HTML page, and as JUnit XML.
#include "verify/report/page.hpp"

#include <fmt/format.h>

#include <cmath>

#include "verify/gradients/report.hpp"
#include "verify/report/heat.hpp"
#include "verify/report/junit.hpp"
#include "verify/report/text.hpp"

namespace dsa::verify {
namespace {

double ratio_of(const ParameterResult& r) { return r.missing ? HUGE_VAL : r.worst_over_allowed; }

/// One map a loss: kinds of parameters by layer.
std::string maps(const GradientVerdict& v) {
  std::string out;
  for (const char* loss : {"lm", "kl", "mtp", "balance"}) {
    std::vector<HeatCell> cells;
    for (const ParameterResult& r : v.parameters)
      if (r.loss == loss) cells.push_back(cell_of_parameter(r.name, ratio_of(r)));
    if (cells.empty()) continue;
    out += "<section class=\"box matrix\"><h4>Gradients of loss." + std::string(loss) +
           ": error over what is allowed, by layer</h4><div class=\"legend\">" + heat_legend() +
           "</div>\n" + heat_map(cells) + "</section>\n";
  }
  return out;
}

std::string losses(const GradientVerdict& v) {
  std::string body;
  for (const LossResult& r : v.losses)
    body += "<tr>" + cell("name", "loss." + r.name) +
            cell("num", fmt::format("{:.16g}", r.golden)) +
            cell("num", fmt::format("{:.16g}", r.other)) + cell("num", number(r.limit)) + "<td>" +
            word(r.ok) + "</td></tr>\n";
  return "<section class=\"box\"><h4>Losses</h4>" +
         table_of(th("loss") + th_number("golden") + th_number("judged") + th_number("limit") +
                      th("verdict"),
                  body) +
         "</section>\n";
}

std::string parameters(const GradientVerdict& v) {
  std::string body;
  for (const ParameterResult& r : v.parameters)
    body += "<tr>" + cell("name", r.loss + "." + r.name) +
            cell("num", r.missing ? "missing" : number(r.distance)) +
            cell("num", number(r.distance_limit)) + cell("num", number(ratio_of(r))) +
            cell("num", fmt::format("{:.6f}", r.cosine)) + "<td>" + word(r.ok()) + "</td></tr>\n";
  for (const MustBeZero& z : v.must_be_zero)
    body += "<tr>" + cell("name", z.loss + "." + z.name) + cell("num", number(z.found)) +
            cell("num", "0") + cell("num", "inf") + cell("num", "") + "<td>" + word(false) +
            "</td></tr>\n";
  return "<details class=\"box\"><summary>Every gradient, in backward order</summary>" +
         table_of(th("gradient") + th_number("distance") + th_number("limit") +
                      th_number("over allowed") + th_number("cosine") + th("verdict"),
                  body) +
         "</details>\n";
}

}  // namespace

std::string to_html(const GradientVerdict& v) {
  std::string facts = fact("checkpoint", v.checkpoint, true) + fact("golden", v.golden, true) +
                      fact("candidate", v.candidate, true) + fact("precision", v.precision) +
                      fact("semantics", v.semantics);
  for (const std::string& note : v.notes) facts += fact("note", note);
  return page_of("Gradients: " + title_case(v.outcome),
                 banner(v.outcome, "dsa-verify gradients", title_case(v.outcome), v.why, "",
                        "<dl class=\"facts\">" + facts + "</dl>") +
                     maps(v) + losses(v) + parameters(v) + receipt_section(v.receipt));
}

std::string to_junit(const GradientVerdict& v) {
  JunitSuite suite{v.golden + (v.candidate.empty() ? "" : ", " + v.candidate),
                   {{"checkpoint", v.checkpoint},
                    {"golden", v.golden},
                    {"candidate", v.candidate},
                    {"precision", v.precision}},
                   {},
                   v.outcome,
                   v.why,
                   v.receipt};
  for (const LossResult& r : v.losses)
    suite.cases.push_back(
        {"losses", "loss." + r.name, r.ok ? Outcome::pass : Outcome::fail,
         fmt::format("{:.16g}, expected {:.16g} within {}", r.other, r.golden, number(r.limit))});
  for (const ParameterResult& r : v.parameters)
    suite.cases.push_back(
        {r.loss, r.name,
         r.missing ? Outcome::inconclusive
         : r.ok()  ? Outcome::pass
                   : Outcome::fail,
         r.missing ? "the golden has it, and the file has not"
                   : "the error is " + number(r.worst_over_allowed) + " times what is allowed"});
  for (const MustBeZero& z : v.must_be_zero)
    suite.cases.push_back(
        {z.loss, z.name, Outcome::fail, "must be zero, its norm is " + number(z.found)});
  return to_junit(suite);
}

}  // namespace dsa::verify
