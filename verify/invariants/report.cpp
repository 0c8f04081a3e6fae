#include "verify/report/report.hpp"

#include <fmt/format.h>

#include "verify/invariants/invariants.hpp"
#include "verify/report/text.hpp"
#include "verify/report/values.hpp"

namespace dsa::verify {
namespace {

/// Whatever was not decided has the colour of what is inconclusive.
std::string painted(const std::string& text, Held held, bool colour) {
  return coloured(text,
                  held == Held::pass   ? Outcome::pass
                  : held == Held::fail ? Outcome::fail
                                       : Outcome::inconclusive,
                  colour);
}

/// What was asked: rows, value and limit.
bool was_measured(const Invariant& i) { return i.n > 0; }

std::string row(const Invariant& i, Sources& sources, bool colour) {
  std::string text = fmt::format("{:<30} ", i.name);
  if (was_measured(i)) {
    const std::string letter = sources.letter(i.from);
    text += fmt::format("{:>8} {:>9} / {:<9} ", count(i.n), number(i.value), number(i.limit));
    text += painted(fmt::format("{:<9}", name_of(i.held)), i.held, colour) + " [" + letter + "]\n";
  } else {
    text += fmt::format("{:>8} {:>21} ", "", "");
    text += painted(name_of(i.held), i.held, colour) + ": " + i.note + "\n";
    return text;
  }
  if (i.held != Held::pass) text += "    " + i.sentence + "\n";
  if (!i.at.empty() && i.value > 0) text += "    worst at " + clean(i.at) + "\n";
  if (!i.note.empty()) text += "    " + clean(i.note) + "\n";
  return text;
}

}  // namespace

std::string name_of(Held held) {
  switch (held) {
    case Held::pass:
      return "pass";
    case Held::fail:
      return "fail";
    case Held::undecided:
      return "undecided";
    case Held::not_applicable:
      return "not applicable";
    case Held::not_possible:
      return "not possible";
  }
  return "";
}

std::string table(const Invariants& result, bool colour) {
  Sources sources;
  std::string text = opening_line(result.outcome, result.why, colour);
  text += fmt::format(
      "checkpoint {}\nasked      {}, computed as {}\n"
      "tokens     {}, index_topk {}, seed {}; {:.1f} s\n\n"
      "{:<30} {:>8} {:>9} / {:<9} verdict\n",
      clean(result.checkpoint), clean(result.implementation), result.precision, result.length,
      result.topk == 0 ? "none" : std::to_string(result.topk), result.receipt.draws.seed,
      result.receipt.seconds, "invariant", "rows", "value", "limit");
  for (const Invariant& i : result.invariants) text += row(i, sources, colour);
  text += "\n";
  for (const auto& [letter, from] : sources.all()) text += fmt::format("[{}] {}\n", letter, from);
  return text + "\n" + closing_line(result.outcome, result.why, colour);
}

Json to_json(const Invariants& result) {
  Json rows = Json::array();
  for (const Invariant& i : result.invariants)
    rows.push_back({{"name", i.name},
                    {"sentence", i.sentence},
                    {"verdict", name_of(i.held)},
                    {"compared", i.n},
                    {"value", was_measured(i) ? json_of(i.value) : Json()},
                    {"limit", was_measured(i) ? json_of(i.limit) : Json()},
                    {"from", i.from},
                    {"at", i.at.empty() ? Json() : json_of(i.at)},
                    {"note", json_of(i.note)}});
  return {{"verdict", name_of(result.outcome)},
          {"why", json_of(result.why)},
          {"exit_code", exit_code(result.outcome)},
          {"checkpoint", json_of(result.checkpoint)},
          {"implementation", json_of(result.implementation)},
          {"precision", result.precision},
          {"length", result.length},
          {"topk", result.topk},
          {"invariants", rows},
          {"receipt", receipt_json(result.receipt)}};
}

}  // namespace dsa::verify
