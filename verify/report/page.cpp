#include "verify/report/page.hpp"

#include <fmt/format.h>

#include "verify/report/style.hpp"
#include "verify/report/text.hpp"

namespace dsa::verify {

std::string page_of(const std::string& title, const std::string& body_html,
                    const std::string& program) {
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta "
      "name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{} - "
      "{}</title>\n<style>{}</style>\n</head>\n<body>\n<main>\n{}</main>\n</body>\n</"
      "html>\n",
      escaped(title), program, style_sheet, body_html);
}

std::string word(Outcome outcome) {
  return fmt::format("<span class=\"word {0}\">{0}</span>", name_of(outcome));
}

std::string word(bool ok) { return word(ok ? Outcome::pass : Outcome::fail); }

std::string title_case(Outcome outcome) {
  std::string name(name_of(outcome));
  name[0] = static_cast<char>(name[0] - 'a' + 'A');
  return name;
}

std::string cell(const std::string& kind, const std::string& shown) {
  return "<td class=\"" + kind + "\">" + escaped(shown) + "</td>";
}

std::string fact(const std::string& label, const std::string& value, bool code) {
  if (value.empty()) return "";
  const std::string shown = escaped(value);
  return "<dt>" + label + "</dt><dd>" + (code ? "<code>" + shown + "</code>" : shown) + "</dd>\n";
}

std::string table_of(const std::string& head_html, const std::string& body_html) {
  return "<div class=\"scroll\"><table>\n<thead><tr>" + head_html + "</tr></thead>\n<tbody>\n" +
         body_html + "</tbody></table></div>\n";
}

std::string th(const std::string& label) { return "<th>" + label + "</th>"; }
std::string th_number(const std::string& label) { return "<th class=\"num\">" + label + "</th>"; }

std::string banner(Outcome outcome, const std::string& eyebrow, const std::string& headline,
                   const std::string& why, const std::string& advice,
                   const std::string& rest_html) {
  return fmt::format(
      "<header class=\"verdict {}\">\n<p class=\"eyebrow\">{}</p>\n<h1>{}</h1>\n<p "
      "class=\"why\">{}</p>\n{}{}</header>\n",
      name_of(outcome), escaped(eyebrow), escaped(headline), escaped(why),
      advice.empty() ? "" : "<p class=\"advice\"><b>What to do.</b> " + escaped(advice) + "</p>\n",
      rest_html);
}

std::string tile(const std::string& label, const std::string& value, const std::string& below,
                 bool bad) {
  return "<div><dt>" + label + "</dt><dd" + (bad ? " class=\"bad\">" : ">") + escaped(value) +
         "<span>" + escaped(below) + "</span></dd></div>\n";
}

std::string figure(const std::string& title, const std::string& caption_html,
                   const std::string& legend_html, const std::string& picture_html) {
  if (picture_html.empty()) return "";
  return "<figure><figcaption><h4>" + title + "</h4><p>" + caption_html +
         "</p></figcaption>\n<div class=\"legend\">" + legend_html +
         "</div>\n<div class=\"picture\">" + picture_html + "</div></figure>\n";
}

std::string key(const std::string& kind, const std::string& label) {
  return "<span><i class=\"" + kind + "\"></i>" + label + "</span>";
}

std::string receipt_section(const Receipt& r) {
  return "<section class=\"box\"><h4>Receipt</h4><dl class=\"facts\">\n" +
         fact("command", r.command, true) +
         fact("version", r.version + (r.commit.empty() ? "" : ", commit " + r.commit)) +
         fact("compiler", r.compiler + (r.flags.empty() ? "" : ", " + r.flags)) +
         fact("processor", r.device + (r.kernel.empty() ? "" : ", " + r.kernel)) +
         fact("checkpoint SHA-256", r.checkpoint_sha256, true) +
         fact("golden SHA-256", r.golden_sha256, true) +
         fact("candidate SHA-256", r.candidate_sha256, true) +
         fact("seed", std::to_string(r.draws.seed)) +
         fact("perturbed runs", count(r.draws.runs) + " of each kind") +
         fact("alpha", number(r.draws.alpha) + ", the probability of rejecting a right result") +
         fact("time", fmt::format("{:.1f} s", r.seconds)) +
         fact("peak memory", fmt::format("{:.0f} MiB", r.peak_memory_mib)) + "</dl></section>\n";
}

}  // namespace dsa::verify
