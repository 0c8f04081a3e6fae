// The detection matrix as a heat map.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "verify/diagnose/power.hpp"
#include "verify/report/page.hpp"
#include "verify/report/text.hpp"

namespace dsa::verify {
namespace {

/// Not caught, and four steps of how far above the limit.
int step_of(double ratio) {
  if (ratio <= 1) return 0;
  if (ratio <= 10) return 1;
  if (ratio <= 1e4) return 2;
  return ratio <= 1e12 ? 3 : 4;
}

std::string heat(double ratio, const std::string& of) {
  if (ratio == -1) return "<td class=\"none\"></td>";
  const std::string shown = ratio <= 1             ? "below the limit, " + number(ratio)
                            : std::isfinite(ratio) ? number(ratio) + " times the limit"
                                                   : "a decision that nothing explains";
  return fmt::format("<td class=\"heat{}\" title=\"{}: {}\"></td>", step_of(ratio), escaped(of),
                     escaped(shown));
}

std::string name_cell(const PowerRow& r) {
  return "<td class=\"num\">" + std::to_string(r.number) + "</td><td class=\"name\">" +
         escaped(r.name + (r.variant.empty() ? "" : " (" + r.variant + ")")) + "</td>";
}

std::string legend_of_squares() {
  return key("square heat0", "not caught") + key("square heat1", "up to 10 times the limit") +
         key("square heat2", "up to 10,000") + key("square heat3", "up to a trillion") +
         key("square heat4", "beyond, or a decision that nothing explains");
}

std::string matrix_of_one(const Power& p) {
  std::string body;
  for (const PowerRow& r : p.matrix)
    body += "<tr>" + name_cell(r) + heat(r.logits, "logits") + heat(r.traces, "traces") +
            heat(r.selections > 0 ? HUGE_VAL : 0, "decisions") +
            cell("", r.caught() ? "yes" : "no") + "</tr>\n";
  return table_of(
      th_number("#") + th("defect") + th("logits") + th("traces") + th("decisions") + th("caught"),
      body);
}

std::string matrix_of_many(const std::vector<Power>& goldens) {
  std::string body, head = th_number("#") + th("defect") + th("logits") + th("traces");
  for (std::size_t g = 0; g < goldens.size(); ++g) head += th(std::to_string(g + 1));
  for (const TogetherRow& row : together(goldens)) {
    body +=
        "<tr>" + name_cell(row.best) + heat(row.best.logits, "logits of any") +
        heat(std::max(row.best.traces, row.best.selections > 0 ? HUGE_VAL : 0.0), "traces of any");
    for (std::size_t g = 0; g < goldens.size(); ++g) body += heat(row.most[g], goldens[g].golden);
    body += "</tr>\n";
  }
  return table_of(head, body);
}

std::string list_of_goldens(const std::vector<Power>& goldens) {
  std::string body;
  for (std::size_t g = 0; g < goldens.size(); ++g)
    body += "<tr>" + cell("num", std::to_string(g + 1)) + cell("name", goldens[g].golden) +
            cell("", goldens[g].precision) + cell("num", count(goldens[g].caught())) +
            cell("num", count(static_cast<Index>(goldens[g].matrix.size()))) + "</tr>\n";
  return "<section class=\"box\"><h4>Goldens</h4>" +
         table_of(th_number("#") + th("golden") + th("limits of") + th_number("caught") +
                      th_number("of"),
                  body) +
         "</section>\n";
}

std::string advice_box(const Power& p) {
  if (p.add.empty()) return "";
  std::string items;
  for (const std::string& line : p.add) items += "<li>" + escaped(line) + "</li>\n";
  return "<section class=\"box\"><h4>To see more, add</h4><ul class=\"notes\">\n" + items +
         "</ul></section>\n";
}

}  // namespace

std::string to_html(const std::vector<Power>& goldens) {
  const std::vector<TogetherRow> rows = together(goldens);
  const auto caught =
      std::count_if(rows.begin(), rows.end(), [](const TogetherRow& r) { return r.best.caught(); });
  const auto only = std::count_if(rows.begin(), rows.end(), [](const TogetherRow& r) {
    return r.best.caught() && !r.best.by_logits();
  });
  const auto all = static_cast<Index>(rows.size());
  const bool one = goldens.size() == 1;
  const std::string headline = count(caught) + " of " + count(all);
  const std::string why =
      "variants of known defects would be caught by " +
      (one ? goldens[0].golden
           : plural(static_cast<Index>(goldens.size()), "golden") + " together") +
      ", " + count(only) + " of them through traces only.";
  const std::string body =
      (one ? advice_box(goldens[0]) : list_of_goldens(goldens)) +
      "<section class=\"box matrix\"><h4>Detection matrix</h4><p class=\"soft small\">Every "
      "defect, "
      "put into the reference, in units of the golden's limits. Blank: it cannot occur in that "
      "model.</p><div class=\"legend\">" +
      legend_of_squares() + "</div>\n" +
      (one ? matrix_of_one(goldens[0]) : matrix_of_many(goldens)) + "</section>\n" +
      receipt_section(goldens.front().receipt);
  return page_of("Power: " + headline, banner(caught == all ? Outcome::pass : Outcome::inconclusive,
                                              "dsa-verify power", headline, why, "", "") +
                                           body);
}

}  // namespace dsa::verify
