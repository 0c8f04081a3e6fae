#include "verify/gradients/report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "verify/report/report.hpp"
#include "verify/report/text.hpp"
#include "verify/report/values.hpp"

namespace dsa::verify {
namespace {

constexpr std::size_t shown = 12;  // parameters in the table; the JSON has all

const char* word(const ParameterResult& r) {
  return r.missing ? "missing" : r.ok() ? "pass" : "fail";
}

}  // namespace

std::string table(const GradientVerdict& v, bool colour) {
  std::string out = opening_line(v.outcome, v.why, colour);
  out += fmt::format("{} ({}, semantics {})\n", clean(v.candidate.empty() ? v.golden : v.candidate),
                     v.precision, v.semantics);
  for (const std::string& note : v.notes) out += "  " + clean(note) + "\n";
  out += fmt::format("\n{:<14}{:>24}{:>24}{:>12}\n", "loss", "golden", "other", "limit");
  for (const LossResult& r : v.losses)
    out += fmt::format("{:<14}{:>24.16g}{:>24.16g}{:>12}  {}\n", "loss." + r.name, r.golden,
                       r.other, number(r.limit), r.ok ? "pass" : "FAIL");

  std::vector<const ParameterResult*> worst;
  for (const ParameterResult& r : v.parameters) worst.push_back(&r);
  std::stable_sort(worst.begin(), worst.end(), [](const auto* a, const auto* b) {
    return a->missing != b->missing ? a->missing : a->worst_over_allowed > b->worst_over_allowed;
  });
  out += fmt::format("\n{:<62}{:>12}{:>12}{:>14}\n", "worst gradients", "distance", "limit",
                     "over allowed");
  for (std::size_t i = 0; i < std::min(shown, worst.size()); ++i)
    out += fmt::format("{:<62}{:>12}{:>12}{:>14}  {}\n", worst[i]->loss + "." + worst[i]->name,
                       number(worst[i]->distance), number(worst[i]->distance_limit),
                       number(worst[i]->worst_over_allowed), word(*worst[i]));
  for (const MustBeZero& z : v.must_be_zero)
    out += fmt::format("{}.{} must be zero, its norm is {}\n", z.loss, z.name, number(z.found));
  return out + "\n" + closing_line(v.outcome, v.why, colour);
}

Json to_json(const GradientVerdict& v) {
  Json losses = Json::array(), parameters = Json::array(), zeros = Json::array(),
       notes = Json::array();
  for (const LossResult& r : v.losses)
    losses.push_back({{"name", r.name},
                      {"golden", json_of(r.golden)},
                      {"other", json_of(r.other)},
                      {"limit", json_of(r.limit)},
                      {"verdict", r.ok ? "pass" : "fail"}});
  for (const ParameterResult& r : v.parameters)
    parameters.push_back(
        {{"name", r.name},
         {"loss", r.loss},
         {"norm_golden", json_of(r.norm_golden)},
         {"norm_other", r.missing ? Json() : json_of(r.norm_other)},
         {"cosine", r.missing ? Json() : json_of(r.cosine)},
         {"distance", r.missing ? Json() : json_of(r.distance)},
         {"distance_limit", r.missing ? Json() : json_of(r.distance_limit)},
         {"worst_over_allowed", r.missing ? Json() : json_of(r.worst_over_allowed)},
         {"at", r.at < 0 ? Json() : Json(r.at)},
         {"verdict", word(r)}});
  for (const MustBeZero& z : v.must_be_zero)
    zeros.push_back({{"name", z.name}, {"loss", z.loss}, {"found", json_of(z.found)}});
  for (const std::string& note : v.notes) notes.push_back(json_of(note));
  return {{"verdict", std::string(name_of(v.outcome))},
          {"why", json_of(v.why)},
          {"exit_code", exit_code(v.outcome)},
          {"checkpoint", json_of(v.checkpoint)},
          {"golden", json_of(v.golden)},
          {"candidate", v.candidate.empty() ? Json() : json_of(v.candidate)},
          {"precision", v.precision},
          {"semantics", v.semantics},
          {"losses", losses},
          {"parameters", parameters},
          {"first_departure", v.first_departure ? json_of(*v.first_departure) : Json()},
          {"must_be_zero", zeros},
          {"notes", notes},
          {"receipt", receipt_json(v.receipt)}};
}

}  // namespace dsa::verify
