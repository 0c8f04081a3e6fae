// tests/verify/values_test.cpp — one dialect of numbers and texts in the report of every command.
#include "verify/report/values.hpp"

#include <cmath>
#include <limits>

#include "core/outputs.hpp"
#include "tests/catch.hpp"
#include "verify/diagnose/diagnose.hpp"
#include "verify/diagnose/power.hpp"
#include "verify/invariants/invariants.hpp"
#include "verify/kernels/suite.hpp"
#include "verify/localise/localise.hpp"
#include "verify/report/report.hpp"

using Catch::Matchers::Contains;
using Catch::Matchers::EndsWith;
using namespace dsa;
using namespace dsa::verify;

namespace {

constexpr double inf = std::numeric_limits<double>::infinity();
constexpr double no_number = std::numeric_limits<double>::quiet_NaN();
const std::string latin = "caf\xE9", shown = "caf\xEF\xBF\xBD";

Diagnosis diagnosis() {
  Diagnosis d;
  d.checkpoint = d.candidate = d.why = latin;
  d.conclusion = "defect";
  d.plain.outcome = Outcome::fail;
  d.plain.logits.emplace();
  d.plain.why = d.plain.first_departure.emplace(latin);
  d.suspects = {latin};
  d.kl_max_before = inf, d.distance_before = no_number;
  Ranked ranked;
  ranked.numbers = {7}, ranked.distance = inf, ranked.kl_max_after = no_number;
  d.ranking = {ranked};
  return d;
}

Power power() {
  Power p;
  p.checkpoint = p.golden = latin;
  p.matrix = {{7, "name", "variant", no_number, inf, 0}};
  p.add = {latin};
  return p;
}

Invariants invariants() {
  Invariants all;
  all.checkpoint = all.implementation = all.why = latin;
  all.outcome = Outcome::fail;
  Invariant one;
  one.name = "causality", one.n = 3, one.value = no_number, one.limit = -inf;
  one.held = Held::fail, one.at = one.note = latin;
  all.invariants = {one};
  return all;
}

kernels::OpsReport ops() {
  kernels::OpsReport report;
  report.outcome = Outcome::fail, report.why = latin;
  kernels::KernelResult row;
  row.op = "rope", row.dtype = "fp32", row.backend = row.rung = row.why = latin;
  row.cases = row.failed = 1, row.worst = no_number;
  row.verdict = kernels::KernelVerdict::fail;
  row.reasons[latin] = 1;
  report.rows = {row};
  return report;
}

Localisation localisation() {
  Localisation l;
  l.checkpoint = l.candidate = l.why = latin;
  l.outcome = Outcome::fail;
  l.first_departure = latin;
  l.unmapped = l.inherited = l.dump_next = l.grafted.unjudged = {latin};
  FaultyOp faulty;
  faulty.tensor.name = latin, faulty.tensor.got = no_number, faulty.tensor.worst = inf;
  faulty.ops = {latin};
  l.grafted.wrong = {faulty};
  return l;
}

/// Every text and key is UTF-8, and no number turned into null: dump() would throw, or lie.
void check_written(const Json& json) {
  const std::string text = json.dump();  // throws on other bytes
  CHECK(parse_json(text, "the report") == json);
  CHECK_THAT(text, Contains(shown));
}

}  // namespace

TEST_CASE("numbers that JSON does not have are docs/report.md's strings", "[report]") {
  CHECK(json_of(no_number) == "NaN");
  CHECK(json_of(inf) == "Infinity");
  CHECK(json_of(-inf) == "-Infinity");
  CHECK(json_of(0.1) == 0.1);
  CHECK(json_of(std::optional<double>()).is_null());
  CHECK(json_of(std::optional(no_number)) == "NaN");
  CHECK(json_of(latin) == shown);
  CHECK(json_of(std::vector<std::string>{latin, "a"}) == Json({shown, "a"}));
  CHECK(json_text(Json{{"path", latin}}) == "{\n  \"path\": \"" + shown + "\"\n}\n");
}

TEST_CASE("NaN and a path that is not UTF-8 through every report's JSON", "[report]") {
  Json json = to_json(diagnosis());
  check_written(json);
  CHECK(json["kl_max_before"] == "Infinity");
  CHECK(json["distance_before"] == "NaN");
  CHECK(json["ranking"][0]["distance_after"].is_null());  // it ended early
  CHECK(json["ranking"][0]["kl_max_after"] == "NaN");
  Diagnosis traced = diagnosis();
  traced.plain.logits.reset();
  CHECK(to_json(traced)["kl_max_before"].is_null());  // there were no logits

  json = to_json(std::vector<Power>{power()});
  check_written(json);
  CHECK(json["matrix"][0]["logits"] == "NaN");
  CHECK(json["matrix"][0]["traces"] == "Infinity");
  check_written(to_json(std::vector<Power>{power(), power()}));

  json = to_json(invariants());
  check_written(json);
  CHECK(json["invariants"][0]["value"] == "NaN");
  CHECK(json["invariants"][0]["limit"] == "-Infinity");

  json = to_json(ops());
  check_written(json);
  CHECK(json["ops"][0]["worst_over_allowed"] == "NaN");

  json = to_json(localisation());
  check_written(json);
  CHECK(json["wrong"][0]["got"] == "NaN");
  CHECK(json["wrong"][0]["worst_over_allowed"] == "Infinity");
}

TEST_CASE("every report that is no pass begins and ends with its sentence", "[report]") {
  const auto check = [](const std::string& text, const std::string& why) {
    INFO(text);
    CHECK(text.starts_with("FAIL: " + why));
    CHECK_THAT(text, EndsWith(" -> exit 1\n") && Contains("\nFAIL: " + why));
    CHECK(parse_json(Json(text).dump(), "the table") == text);  // UTF-8 throughout
  };
  check(table(diagnosis(), false), "defect: " + shown);
  check(table(invariants(), false), shown);
  check(kernels::table(ops(), false), shown);
  check(table(localisation(), false), shown);
  CHECK_THAT(table(std::vector<Power>{power()}, false), EndsWith("PASS: 1 of 1 variants of known "
                                                                 "defects caught (100.0 %) -> exit "
                                                                 "0\n"));
  CHECK_THAT(table(diagnosis(), true), Contains("\x1b[1;31mFAIL\x1b[0m"));
  CHECK(opening_line(Outcome::pass, "why", true).empty());
  CHECK(closing_line(Outcome::pass, "all is well", false) == "PASS: all is well -> exit 0\n");
}
