// One page that can be mailed: inline style, inline pictures, nothing loaded from anywhere.
#include <fmt/format.h>

#include <algorithm>

#include "verify/report/page.hpp"
#include "verify/report/report.hpp"
#include "verify/report/svg.hpp"
#include "verify/report/text.hpp"

namespace dsa::verify {
namespace {

constexpr std::size_t most_undecided = 200;  // rows of a table that somebody may still read

// --- figures ---

std::string kl_figure(const LogitsResult& logits, const std::string& one,
                      const std::string& other) {
  const bool over = std::any_of(logits.rows.begin(), logits.rows.end(), [](const RowResult& r) {
    return r.decided() && !(r.kl <= r.kl_limit);
  });
  std::string legend = key("good", "row within its limit");
  if (over) legend += key("bad", "row above its limit");
  if (logits.undecided() + logits.explained() > 0)
    legend += key("open", "undecided or explained row");
  legend += key("stroke", "limit of the row");
  return figure("KL by position",
                "KL(" + one + " || " + other + ") of each row of logits, in nats. Limit: " +
                    escaped(logits.kl.from.empty() ? "none" : logits.kl.from) + ".",
                legend, kl_chart(logits));
}

std::string error_figure(const Judgement& j) {
  const bool fails = std::any_of(j.tensors.begin(), j.tensors.end(),
                                 [](const TensorResult& t) { return !t.ok(); });
  std::string legend = key("good", "within its limit");
  if (fails) legend += key("bad", "above its limit");
  const bool decides = std::any_of(j.tensors.begin(), j.tensors.end(), [](const TensorResult& t) {
    return t.kind != TensorResult::Kind::tensor;
  });
  if (decides) legend += key("good turned", "selection or routing");
  return figure("Error by tensor",
                "Largest error of each tensor divided by the error allowed at that element "
                "(no unit); the limit is 1.",
                legend + key("stroke", "limit"), error_chart(j));
}

std::string selection_figure(const Judgement& j) {
  return figure("Selection agreement by layer and position",
                "Keys selected by both sides divided by keys selected by either.",
                key("square heat0", "identical") + key("square heat1", "0.99 to 1") +
                    key("square heat2", "0.9 to 0.99") + key("square heat3", "0.5 to 0.9") +
                    key("square heat4", "below 0.5"),
                selection_chart(j));
}

// --- tables ---

std::string check_row(const std::string& name, const Check& c, Sources& sources) {
  return "<tr>" + cell("name", name) + cell("num", count(c.n)) + cell("num", number(c.got)) +
         cell("num", number(c.allowed)) + cell("num", headroom(c.got, c.allowed)) +
         cell("num", place(c.at)) + cell("num", count(c.over)) + "<td>" + word(c.ok()) + "</td>" +
         cell("", sources.letter(c.from)) + "</tr>\n";
}

std::string sources_list(const Sources& sources) {
  std::string items;
  for (const auto& [letter, from] : sources.all())
    items += "<li><b>" + letter + "</b><span>" + escaped(from) + "</span></li>\n";
  return items.empty() ? "" : "<ul class=\"sources\">" + items + "</ul>\n";
}

std::string logits_table(const LogitsResult& logits, const std::string& other) {
  Sources sources;
  std::string checks;
  if (logits.kl.n > 0 || logits.undecided() == 0) {
    checks += check_row("KL of a row, nats", logits.kl, sources);
    checks += check_row("|difference| / allowed", logits.elements, sources);
  }
  for (const Check& c : logits.user) checks += check_row("asked for: " + c.from, c, sources);
  std::string rows;
  const auto decided = metrics(logits.decided, other), all = metrics(logits.all, other);
  for (std::size_t i = 0; i < std::max(decided.size(), all.size()); ++i)
    rows += "<tr>" + cell("", i < all.size() ? all[i].first : decided[i].first) +
            cell("num", i < decided.size() ? decided[i].second : "-") +
            cell("num", i < all.size() ? all[i].second : "-") + "</tr>\n";
  std::string out = "<section class=\"box\"><h4>Logits</h4>\n";
  if (!checks.empty())
    out += table_of(th("check") + th_number("compared") + th_number("value") + th_number("limit") +
                        th_number("headroom") + th_number("worst at") + th_number("over") +
                        th("verdict") + th("limit from"),
                    checks) +
           sources_list(sources);
  return out +
         table_of(th("statistic") + th_number("judged rows (" + count(logits.decided.rows) + ")") +
                      th_number("all rows (" + count(logits.all.rows) + ")"),
                  rows) +
         "</section>\n";
}

std::string flips_table(const LogitsResult& logits) {
  if (logits.flips.empty()) return "";
  std::string body;
  for (const FlipResult& flip : logits.flips)
    body += "<tr>" + cell("", place({flip.sequence, flip.position, -1})) +
            cell("name", flip.decision) + cell("", subscripts(flip.without)) +
            cell("", subscripts(flip.with)) + cell("num", number(flip.margin)) +
            cell("num", number(flip.noise)) + "</tr>\n";
  return fmt::format(
      "<details class=\"box\"><summary>{} explained by {}</summary>\n<p class=\"soft small\">"
      "Replayed with these decisions turned, each within the rounding noise, the rows lie within "
      "their limits. A correct run turns {} in the mean and {} at the most.</p>\n{}</details>\n",
      plural(logits.explained(), "row"),
      plural(static_cast<Index>(logits.flips.size()), "decision"), number(logits.flips_expected),
      number(logits.flips_most),
      table_of(th("sequence:position") + th("decision") + th("given up") + th("taken instead") +
                   th_number("margin") + th_number("noise"),
               body));
}

std::string undecided_table(const LogitsResult& logits) {
  const Index n = logits.undecided();
  if (n == 0) return "";
  std::string body;
  std::size_t shown = 0;
  for (const RowResult& row : logits.rows) {
    if (!row.undecided) continue;
    if (shown++ == most_undecided) break;
    body += "<tr>" + cell("", place(row.at)) + cell("name", row.decision) +
            cell("num", row.decided_at < 0 ? "-" : count(row.decided_at)) +
            cell("num", number(row.margin)) + cell("num", number(row.noise)) +
            cell("num", number(row.kl)) + "</tr>\n";
  }
  const Index rest = n - static_cast<Index>(most_undecided);
  return fmt::format(
      "<details class=\"box\"{}><summary>{} undecided</summary>\n<p class=\"soft small\">A "
      "decision "
      "that reaches the row may fall either way within the rounding noise; the row is judged "
      "neither right nor wrong.{}</p>\n{}</details>\n",
      n <= 12 ? " open" : "", plural(n, "row"),
      rest > 0 ? " " + count(rest) + " more are in the JSON report." : "",
      table_of(th("sequence:position") + th("first decision that may flip") +
                   th_number("at position") + th_number("margin") + th_number("noise") +
                   th_number("KL, nats"),
               body));
}

std::string tensor_row(std::size_t i, const TensorResult& t, bool first, Sources& sources) {
  const bool decision = t.kind != TensorResult::Kind::tensor;
  std::string row = first ? "<tr class=\"first\">" : "<tr>";
  row += cell("num", std::to_string(i + 1)) + "<td class=\"name\">" + escaped(t.name);
  if (first || !t.ok())
    row += "<br><span class=\"small soft\">" +
           escaped((first ? "First departure: " : "") + complaint(t)) + "</span>";
  row += "</td>" + cell("num", count(t.n));
  if (decision)
    row += "<td class=\"num\" colspan=\"2\">" + count(t.agreeing) + " agree, " +
           count(t.explained) + " explained</td>";
  else
    row += cell("num", number(t.worst)) + cell("num", headroom(t.worst, 1));
  return row + cell("num", place(t.at)) + cell("num", count(t.over + t.wrong_kind)) + "<td>" +
         word(t.ok()) + "</td>" + cell("", sources.letter(t.from)) + "</tr>\n";
}

std::string tensors_table(const Judgement& j) {
  if (j.tensors.empty()) return "";
  Sources sources;
  std::string body;
  Index good = 0;
  for (std::size_t i = 0; i < j.tensors.size(); ++i) {
    const TensorResult& t = j.tensors[i];
    body += tensor_row(i, t, j.first_departure == t.name, sources);
    good += t.ok() ? 1 : 0;
  }
  const std::string head = th_number("#") + th("name") + th_number("elements") +
                           th_number("worst / allowed") + th_number("headroom") +
                           th_number("worst at") + th_number("over") + th("verdict") +
                           th("limit from");
  return fmt::format(
      "<details class=\"box\"><summary>{}, {} within their limits</summary>\n"
      "<p class=\"soft small\">In order of execution. Worst at sequence:position:channel.</p>\n"
      "{}{}</details>\n",
      plural(static_cast<Index>(j.tensors.size()), "tensor"), count(good), table_of(head, body),
      sources_list(sources));
}

// --- sections ---

std::string tiles(const Verdict& v, const Judgement& j) {
  std::string out;
  if (j.logits) {
    const LogitsResult& logits = *j.logits;
    const Check& kl = logits.kl;
    const std::string at = place(kl.at).empty() ? "" : " at " + place(kl.at);
    if (kl.n > 0) {
      out += tile("KL nearest its limit", number(kl.got), "limit " + number(kl.allowed) + at,
                  !kl.ok());
      out += tile(kl.ok() ? "Headroom" : "Above the limit", headroom(kl.got, kl.allowed),
                  kl.ok() ? "limit / KL" : "KL / limit", !kl.ok());
    }
    out += tile("Rows judged", count(logits.decided.rows),
                "of " + count(logits.all.rows) + ", " + count(logits.undecided()) + " undecided");
    if (logits.decided.rows > 0)
      out += tile("Top-1 agreement", share(logits.decided.top1), "of the judged rows");
  }
  if (!j.tensors.empty()) {
    const auto good = std::count_if(j.tensors.begin(), j.tensors.end(),
                                    [](const TensorResult& t) { return t.ok(); });
    const Index n = static_cast<Index>(j.tensors.size());
    out += tile("Tensors within limits", count(good), "of " + count(n), good < n);
  }
  if (v.topk > 0)
    out += tile("Longest query sees", plural(v.longest_visible, "key"),
                "the indexer selects " + count(v.topk), v.longest_visible <= v.topk);
  return out.empty() ? "" : "<dl class=\"tiles\">\n" + out + "</dl>\n";
}

std::string facts(const Verdict& v) {
  std::string size = plural(v.sequences, "sequence") + ", " + plural(v.positions, "position");
  if (v.layers > 0) size += ", " + plural(v.layers, "layer");
  return "<dl class=\"facts\">\n" + fact("checkpoint", v.checkpoint, true) +
         fact("golden", v.golden, true) + fact("candidate", v.candidate, true) +
         fact("model", v.family) + fact("size", size) +
         fact("unused keys of config.json",
              fmt::format("{}", fmt::join(v.unused_keys.begin(), v.unused_keys.end(), ", "))) +
         "</dl>\n";
}

std::string body_of(const Verdict& v) {
  std::string out = judgement_section(v, v.judged);
  if (v.golden_judged) out += judgement_section(v, *v.golden_judged);
  return out + receipt_section(v.receipt);
}

std::string overview(const std::vector<Verdict>& verdicts) {
  std::string body;
  for (std::size_t i = 0; i < verdicts.size(); ++i) {
    const Verdict& v = verdicts[i];
    const auto& logits = v.judged.logits;
    const bool kl = logits && logits->kl.n > 0;
    body += fmt::format("<tr><td class=\"name\"><a href=\"#golden-{}\">{}</a></td>", i + 1,
                        escaped(v.golden)) +
            cell("", v.family) + "<td>" + word(v.outcome) + "</td>" +
            cell("num", kl ? number(logits->kl.got) : "-") +
            cell("num", kl ? number(logits->kl.allowed) : "-") +
            cell("num", kl ? headroom(logits->kl.got, logits->kl.allowed) : "-") +
            cell("num", logits ? count(logits->undecided()) : "-") + cell("", v.why) + "</tr>\n";
  }
  return "<section class=\"box\"><h4>Goldens</h4>" +
         table_of(th("golden") + th("family") + th("verdict") + th_number("KL") +
                      th_number("limit") + th_number("headroom") + th_number("undecided") +
                      th("why"),
                  body) +
         "</section>\n";
}

}  // namespace

std::string judgement_section(const Verdict& v, const Judgement& j) {
  const std::string other = other_side(v, j);
  std::string out = "<section class=\"judgement\">\n<h3>" + escaped(j.title) + ": " +
                    word(j.outcome) + "</h3>\n<p class=\"soft\">";
  if (!j.precision.empty()) out += "Computed as " + escaped(j.precision) + ". ";
  if (j.why != v.why) out += escaped(j.why);  // else the banner says it
  out += "</p>\n" + tiles(v, j);
  if (j.logits) out += kl_figure(*j.logits, v.golden.empty() ? "candidate" : "golden", other);
  out += error_figure(j) + selection_figure(j);
  if (!j.notes.empty()) {
    out += "<section class=\"box\"><h4>Notes</h4><ul class=\"notes\">\n";
    for (const std::string& note : j.notes) out += "<li>" + escaped(note) + "</li>\n";
    out += "</ul></section>\n";
  }
  if (j.logits)
    out += logits_table(*j.logits, other) + flips_table(*j.logits) + undecided_table(*j.logits);
  out += tensors_table(j);
  if (!j.limits.empty()) {
    out += "<details class=\"box\"><summary>What the limits are made of</summary>\n<pre>";
    for (const std::string& line : j.limits) out += escaped(line) + "\n";
    out += "</pre></details>\n";
  }
  return out + "</section>\n";
}

std::string to_html(const Verdict& v) {
  return page_of(title_case(v.outcome) + ": " + v.golden,
                 banner(v.outcome, "dsa-verify: " + v.judged.title, title_case(v.outcome), v.why,
                        advice(v), facts(v)) +
                     body_of(v));
}

std::string to_html(const Summary& s) {
  if (s.verdicts.size() == 1) return to_html(s.verdicts[0]);
  const std::string total = summary_of(s.verdicts);
  std::string page =
      banner(s.outcome, "dsa-verify", title_case(s.outcome), total, "", "") + overview(s.verdicts);
  for (std::size_t i = 0; i < s.verdicts.size(); ++i) {
    const Verdict& v = s.verdicts[i];
    page += fmt::format("<section class=\"golden\" id=\"golden-{}\">\n", i + 1) +
            banner(v.outcome, v.golden + ": " + v.judged.title, title_case(v.outcome), v.why,
                   advice(v), facts(v)) +
            body_of(v) + "</section>\n";
  }
  return page_of(title_case(s.outcome) + ": " + total, page);
}

}  // namespace dsa::verify
