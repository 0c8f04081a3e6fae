#include "verify/training/report.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "verify/report/report.hpp"
#include "verify/report/text.hpp"
#include "verify/report/values.hpp"

namespace dsa::verify {
namespace {

constexpr std::size_t shown = 8;  // final parameters in the table; the JSON has all

const char* word(const FinalResult& r) {
  return r.missing ? "missing" : r.ok() ? "pass" : r.frozen ? "moved" : "fail";
}

std::string table_of_steps(const TrainingVerdict& v) {
  std::string out = fmt::format("\n{:<14}{:>14}{:>10}{:>24}{:>24}{:>12}\n", "quantity",
                                "over allowed", "of step", "expected", "found", "limit");
  for (const QuantityResult& r : v.quantities) {
    const auto n = static_cast<std::size_t>(r.ok() ? r.worst : r.first);
    out +=
        fmt::format("{:<14}{:>14}{:>10}{:>24.16g}{:>24.16g}{:>12}  {}\n", r.name,
                    number(r.worst_over_allowed), n, r.expected[n], r.found[n], number(r.limit[n]),
                    r.ok() ? "pass" : fmt::format("FAIL from step {}", r.first));
  }
  return out;
}

std::string worst_finals(const TrainingVerdict& v) {
  if (v.finals.empty()) return "";
  std::vector<const FinalResult*> worst;
  for (const FinalResult& r : v.finals) worst.push_back(&r);
  std::stable_sort(worst.begin(), worst.end(), [](const auto* a, const auto* b) {
    return a->missing != b->missing ? a->missing : a->worst_over_allowed > b->worst_over_allowed;
  });
  std::string out = fmt::format("\n{:<62}{:>12}{:>12}{:>14}\n", "worst final parameters",
                                "distance", "limit", "over allowed");
  for (std::size_t i = 0; i < std::min(shown, worst.size()); ++i)
    out += fmt::format("{:<62}{:>12}{:>12}{:>14}  {}\n", worst[i]->name, number(worst[i]->distance),
                       number(worst[i]->distance_limit), number(worst[i]->worst_over_allowed),
                       word(*worst[i]));
  return out;
}

Json json_of_quantity(const QuantityResult& r) {
  const auto list = [](const std::vector<double>& values) {
    Json all = Json::array();
    for (const double value : values) all.push_back(json_of(value));
    return all;
  };
  return {{"name", r.name},
          {"expected", list(r.expected)},
          {"found", list(r.found)},
          {"limit", list(r.limit)},
          {"worst_over_allowed", json_of(r.worst_over_allowed)},
          {"first_departure", r.ok() ? Json() : Json(r.first)},
          {"verdict", r.ok() ? "pass" : "fail"}};
}

Json json_of_final(const FinalResult& r) {
  return {{"name", r.name},
          {"trained", !r.frozen},
          {"distance", r.missing ? Json() : json_of(r.distance)},
          {"distance_limit", r.missing ? Json() : json_of(r.distance_limit)},
          {"worst_over_allowed", r.missing ? Json() : json_of(r.worst_over_allowed)},
          {"at", r.at < 0 ? Json() : Json(r.at)},
          {"verdict", word(r)}};
}

}  // namespace

std::string table(const TrainingVerdict& v, bool colour) {
  std::string out = opening_line(v.outcome, v.why, colour);
  out += fmt::format("{} ({}, {})\n", clean(v.candidate.empty() ? v.trajectory : v.candidate),
                     plural(v.steps, "step"), v.precision);
  out += wrapped("recipe: " + clean(v.recipe_from), 2);
  for (const std::string& note : v.notes) out += wrapped(clean(note), 2);
  out += table_of_steps(v) + worst_finals(v);
  if (!v.turned.empty() || !v.causes.empty()) out += "\n";
  for (const NearDecision& d : v.turned) out += wrapped("turned by rounding: " + in_words(d), 2);
  for (const KnownCause& cause : v.causes)
    out += wrapped("explained by " + cause.name + ": " + cause.sentence, 2);
  return out + "\n" + closing_line(v.outcome, v.why, colour);
}

Json to_json(const TrainingVerdict& v) {
  Json quantities = Json::array(), finals = Json::array(), turned = Json::array(),
       causes = Json::array();
  for (const QuantityResult& r : v.quantities) quantities.push_back(json_of_quantity(r));
  for (const FinalResult& r : v.finals) finals.push_back(json_of_final(r));
  for (const NearDecision& d : v.turned)
    turned.push_back({{"step", d.step},
                      {"decision", d.name},
                      {"row", d.row},
                      {"margin", json_of(d.margin)},
                      {"noise", json_of(d.noise)},
                      {"sentence", in_words(d)}});
  for (const KnownCause& cause : v.causes)
    causes.push_back({{"name", cause.name}, {"sentence", cause.sentence}});
  return {{"verdict", std::string(name_of(v.outcome))},
          {"why", json_of(v.why)},
          {"exit_code", exit_code(v.outcome)},
          {"checkpoint", json_of(v.checkpoint)},
          {"trajectory", json_of(v.trajectory)},
          {"candidate", v.candidate.empty() ? Json() : json_of(v.candidate)},
          {"precision", v.precision},
          {"recipe", dsa::to_json(v.recipe)},
          {"recipe_from", json_of(v.recipe_from)},
          {"steps", v.steps},
          {"quantities", quantities},
          {"finals", finals},
          {"first_departure", v.first_departure ? json_of(*v.first_departure) : Json()},
          {"turned", turned},
          {"undecided_from", v.undecided_from < 0 ? Json() : Json(v.undecided_from)},
          {"explained_by", causes},
          {"notes", json_of(v.notes)},
          {"receipt", receipt_json(v.receipt)}};
}

}  // namespace dsa::verify
