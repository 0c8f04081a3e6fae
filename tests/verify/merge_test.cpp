// Reports on spans of layers, joined into one.
#include "verify/report/merge.hpp"

#include "tests/catch.hpp"
#include "tests/verify/report_helpers.hpp"
#include "verify/judge/conclude.hpp"
#include "verify/report/report.hpp"

using namespace dsa;
using namespace dsa::test;
using Catch::Matchers::Contains;

namespace {

/// A report on layers [a, b) of 6; the worst error of the first, in units of what is allowed.
SpanReport report_of(Index a, Index b, double worst = 0.5) {
  Verdict v;
  v.layers = 6;
  v.positions = 40;
  v.span = {a, b};
  v.judged.title = "golden (fp64) against the definition";
  v.judged.precision = "fp64";
  for (Index l = a; l < b; ++l)
    v.judged.tensors.push_back(
        tensor_of("model.layers." + std::to_string(l), l == a ? worst : 0.25));
  if (b == 6) v.judged.logits = logits_of(9, 0);
  v.judged.notes = {"a note"};
  v.receipt.checkpoint_sha256 = "c0ffee";
  v.receipt.device = "processor " + std::to_string(a);
  v.receipt.seconds = 10;
  v.receipt.draws = {16, 1, 1e-3};
  conclude(v.judged);
  conclude(v);
  return {"r" + std::to_string(a) + ".json", to_json(v)};
}

SpanReport changed(SpanReport report, const char* field, const Json& value) {
  report.json.at(Json::json_pointer(field)) = value;
  return report;
}

std::string refusal(const std::vector<SpanReport>& reports) {
  try {
    merged(reports, "command");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("spans that cover all layers pass together", "[report]") {
  const Json json = merged({report_of(4, 6), report_of(0, 1), report_of(1, 4)}, "the command");
  CHECK(json["verdict"] == "pass");
  CHECK(json["exit_code"] == 0);
  CHECK(json["span"] == Json({0, 6}));
  CHECK(json["tensors"].size() == 6);
  CHECK(json["tensors"][5]["name"] == "model.layers.5");
  CHECK(json["logits"]["rows"] == 9);
  CHECK(json["spans"].size() == 3);
  CHECK(json["spans"][0]["report"] == "r0.json");
  CHECK(json["receipt"]["seconds"] == 30.0);
  CHECK(json["receipt"]["device"] == "processor 0, processor 1, processor 4");
  CHECK_THAT(json["notes"][0].get<std::string>(), Contains("layers 0:1: a note"));
  CHECK_THAT(table_of_merged(json, false),
             Contains("4:6") && Contains("PASS: 6 tensors and the decided logits lie within"));
}

TEST_CASE("one span that fails fails the model, and is named", "[report]") {
  const Json json = merged({report_of(0, 2), report_of(2, 4, 3), report_of(4, 6, 2)}, "");
  CHECK(json["verdict"] == "fail");
  CHECK(json["exit_code"] == 1);
  CHECK(json["first_departure"] == "model.layers.2");
  CHECK_THAT(json["why"].get<std::string>(), Contains("layers 2:4: model.layers.2 is the first"));
  const SpanReport undecided = changed(report_of(0, 4), "/verdict", "inconclusive");
  CHECK(merged({undecided, report_of(4, 6)}, "")["exit_code"] == 3);
  CHECK(merged({undecided, report_of(4, 6, 2)}, "")["exit_code"] == 1);
}

TEST_CASE("reports that do not make one verdict are refused", "[report]") {
  const SpanReport low = report_of(0, 3), high = report_of(3, 6);
  CHECK(refusal({low, high}).empty());
  CHECK_THAT(refusal({low}), Contains("no report judges layers 3:6; run") &&
                                 Contains("--layers 3:6, and merge again"));
  CHECK_THAT(refusal({high}), Contains("no report judges layers 0:3"));
  CHECK_THAT(refusal({low, report_of(4, 6)}), Contains("no report judges layers 3:4"));
  CHECK_THAT(refusal({low, report_of(2, 6)}),
             Contains("layer 2 is judged by r0.json (layers 0:3) and by r2.json (layers 2:6)"));
  CHECK_THAT(refusal({low, low, high}), Contains("layer 0 is judged by"));
  CHECK_THAT(refusal({low, changed(high, "/receipt/checkpoint_sha256", "tea")}),
             Contains("r3.json is of another checkpoint than r0.json: \"tea\", not \"c0ffee\""));
  CHECK_THAT(refusal({low, changed(high, "/receipt/golden_sha256", "x")}),
             Contains("of another golden"));
  CHECK_THAT(refusal({low, changed(high, "/precision", "hf-bf16")}),
             Contains("of another precision"));
  CHECK_THAT(refusal({changed(low, "/tensors", Json::array()), high}),
             Contains("did not compare model.layers.2, where r3.json begins"));
  CHECK_THAT(refusal({{"x.json", Json::object()}}),
             Contains("x.json is no report on a span of layers (it has no span)"));
  CHECK_THAT(refusal({changed(low, "/receipt/seconds", "ten")}), Contains("it has no seconds"));
  CHECK_THAT(refusal({}), Contains("there is no report to merge"));
}
