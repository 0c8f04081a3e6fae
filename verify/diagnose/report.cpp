// The diagnosis as a table and as JSON.
#include "verify/report/report.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "verify/diagnose/diagnose.hpp"
#include "verify/report/text.hpp"
#include "verify/report/values.hpp"

namespace dsa::verify {
namespace {

constexpr std::size_t most_shown = 12;

std::string numbers_of(const Ranked& r) {
  std::string text;
  for (int number : r.numbers) text += (text.empty() ? "" : "+") + std::to_string(number);
  return text;
}

/// A KL, or null: there were no logits.
Json kl_json(const Diagnosis& d, double kl) { return d.plain.logits ? json_of(kl) : Json(); }

/// What the exit status stands for.
Outcome outcome_of(const Diagnosis& d) {
  for (const Outcome outcome : {Outcome::pass, Outcome::fail})
    if (exit_code(outcome) == exit_code(d)) return outcome;
  return Outcome::inconclusive;
}

std::string row(const Ranked& r) {
  return fmt::format("{:<8} {:<40} {:<26} {:>10.3g} {:>10}  {}\n", numbers_of(r), r.name, r.variant,
                     r.distance,
                     std::isfinite(r.kl_max_after) ? fmt::format("{:.3g}", r.kl_max_after) : "-",
                     r.explained              ? "yes"
                     : !r.no_evidence.empty() ? "no evidence"
                     : r.tried                ? "no"
                                              : "-");
}

}  // namespace

std::string table(const Diagnosis& d, bool colour) {
  const std::string why = d.conclusion + ": " + d.why;
  std::string text = opening_line(outcome_of(d), why, colour) +
                     fmt::format("checkpoint {}\ncandidate  {}, computed as {}\n",
                                 clean(d.checkpoint), clean(d.candidate), d.precision);
  text += fmt::format("against the definition: {} ({})\n", std::string(name_of(d.plain.outcome)),
                      clean(d.plain.why));
  if (!d.ranking.empty()) {
    text += fmt::format(
        "\n{} variants of known defects; before: {}distance {:.3g}\n", d.variants,
        std::isfinite(d.kl_max_before) ? fmt::format("KL max {:.3g}, ", d.kl_max_before) : "",
        d.distance_before);
    text += fmt::format("{:<8} {:<40} {:<26} {:>10} {:>10}  {}\n", "defect", "name", "variant",
                        "remains", "KL max", "explained");
    std::size_t shown = 0;
    for (const Ranked& r : d.ranking)  // what ended early cannot explain the candidate
      if (std::isfinite(r.distance) && shown++ < most_shown) text += row(r);
    if (shown == 0) text += "none of them can explain the candidate\n";
    if (d.ranking.front().explained) {
      if (!d.ranking.front().first.empty())
        text += fmt::format("\nfirst to diverge: {}\n", d.ranking.front().first);
      if (!d.ranking.front().link.empty())
        text += fmt::format("reported at:      {}\n", d.ranking.front().link);
    }
  }
  return text + "\n" + closing_line(outcome_of(d), why, colour);
}

Json to_json(const Diagnosis& d) {
  Json ranking = Json::array();
  for (const Ranked& r : d.ranking)
    ranking.push_back({{"defect", r.numbers.front()},
                       {"defects", r.numbers},
                       {"name", r.name},
                       {"variant", r.variant},
                       {"sentence", r.sentence},
                       {"link", r.link},
                       {"first", r.first},
                       {"distance_after", std::isfinite(r.distance) ? json_of(r.distance) : Json()},
                       {"kl_max_before", kl_json(d, d.kl_max_before)},
                       {"kl_max_after", kl_json(d, r.kl_max_after)},
                       {"tried", r.tried},
                       {"differing_rows", r.differing},
                       {"open_rows", r.open},
                       {"no_evidence", r.no_evidence},
                       {"explained", r.explained}});
  return {{"conclusion", d.conclusion},
          {"why", json_of(d.why)},
          {"exit_code", exit_code(d)},
          {"defects", d.defects},
          {"computed_in", d.computed_in},
          {"also", d.also},
          {"suspects", json_of(d.suspects)},
          {"ranking", ranking},
          {"checkpoint", json_of(d.checkpoint)},
          {"candidate", json_of(d.candidate)},
          {"precision", d.precision},
          {"verdict", name_of(d.plain.outcome)},
          {"distance_before", json_of(d.distance_before)},
          {"kl_max_before", kl_json(d, d.kl_max_before)},
          {"first_departure", d.plain.first_departure ? json_of(*d.plain.first_departure) : Json()},
          {"receipt", receipt_json(d.receipt)}};
}

}  // namespace dsa::verify
