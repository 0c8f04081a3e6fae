#include "verify/report/values.hpp"

#include <fmt/format.h>

#include <cmath>

#include "verify/report/report.hpp"
#include "verify/report/text.hpp"

namespace dsa::verify {
namespace {

std::string upper_case(Outcome outcome) {
  std::string word(name_of(outcome));
  for (char& c : word) c = static_cast<char>(c - 'a' + 'A');
  return word;
}

std::string verdict_line(Outcome outcome, const std::string& sentence, bool colour) {
  const std::string word = upper_case(outcome);
  const std::string lines = wrapped(sentence, 0, word + ": ");
  return coloured(word, outcome, colour) + lines.substr(word.size());
}

}  // namespace

Json json_of(double x) {
  if (std::isnan(x)) return "NaN";
  if (std::isinf(x)) return x > 0 ? "Infinity" : "-Infinity";
  return x;
}

Json json_of(const std::optional<double>& x) { return x ? json_of(*x) : Json(); }

Json json_of(std::string_view text) {
  return Json::parse(Json(text).dump(-1, ' ', false, Json::error_handler_t::replace));
}

Json json_of(const std::vector<std::string>& texts) {
  Json list = Json::array();
  for (const std::string& text : texts) list.push_back(json_of(text));
  return list;
}

std::string coloured(const std::string& text, Outcome outcome, bool colour) {
  if (!colour) return text;
  const char* code = outcome == Outcome::pass ? "32" : outcome == Outcome::fail ? "1;31" : "33";
  return fmt::format("\x1b[{}m{}\x1b[0m", code, text);
}

std::string opening_line(Outcome outcome, const std::string& why, bool colour) {
  if (outcome == Outcome::pass) return "";
  return verdict_line(outcome, clean(why), colour) + "\n";
}

std::string closing_line(Outcome outcome, const std::string& why, bool colour) {
  return verdict_line(outcome, fmt::format("{} -> exit {}", clean(why), exit_code(outcome)),
                      colour);
}

std::string wrapped(const std::string& text, std::size_t indent, const std::string& mark) {
  std::string out, line = std::string(indent - std::min(indent, mark.size()), ' ') + mark;
  bool empty = true;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find(' ', at), text.size());
    const std::string word = text.substr(at, end - at);
    if (!empty && line.size() + 1 + word.size() > page_width) {
      out += line + "\n";
      line = std::string(indent, ' ');
      empty = true;
    }
    line += (empty ? "" : " ") + word;
    empty = false;
    at = end + 1;
  }
  return out + line + "\n";
}

}  // namespace dsa::verify
