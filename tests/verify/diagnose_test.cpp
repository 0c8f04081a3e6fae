// tests/verify/diagnose_test.cpp — broken runs of the reference, with fp32 roundings, are named.
#include "verify/diagnose/diagnose.hpp"

#include <algorithm>
#include <functional>

#include "tests/catch.hpp"
#include "tests/scratch.hpp"
#include "tests/verify/judge_helpers.hpp"
#include "verify/defects/defect.hpp"
#include "verify/diagnose/power.hpp"

namespace {

using namespace dsa;
using namespace dsa::test;
using namespace dsa::verify;
using reference::Precision;

/// Logits of sample v32's first sequence by an fp32 implementation with these defects.
void write_candidate(const std::filesystem::path& file, const std::vector<std::string>& defects) {
  const Model loaded = resident(
      reference::loaded_as(open_checkpoint(sample("v32") / "checkpoint"), Precision::hf_fp32),
      Index{1} << 30);
  Variant broken{loaded, reference::ops_of(Precision::hf_fp32,
                                           {reference::Rounding::Mode::random, 77}, loaded.config)};
  for (const std::string& name : defects) {
    const auto all = all_defects();
    const auto found =
        std::find_if(all.begin(), all.end(), [&](const Defect& d) { return d.name == name; });
    REQUIRE(found != all.end());
    found->variants.front().apply(broken);
  }
  TensorFile golden = golden_column("v32", "fp32");
  golden.cut(1, golden.at("tokens").shape[1]);
  golden.at("logits.fp32").name = "logits";
  const Column& tokens = golden.at("tokens");
  const reference::Pass<double> pass{broken.model, broken.ops};
  reference::Cache<double> cache;
  const auto logits =
      reference::forward(pass, plain_sequence({tokens.values.begin(), tokens.values.end()}), cache);
  golden.at("logits").values.assign(logits.begin(), logits.end());
  golden.write(file);
}

Diagnosis diagnosed(const std::vector<std::string>& defects) {
  const Scratch scratch;
  write_candidate(scratch / "candidate", defects);
  JudgeOptions options;
  options.runs = 4;
  return diagnose(sample("v32") / "checkpoint", scratch / "candidate", options);
}

}  // namespace

TEST_CASE("a right run is correct, and no defect is blamed", "[judge]") {
  const Diagnosis d = diagnosed({});
  CHECK(d.conclusion == "correct");
  CHECK(d.defects.empty());
  CHECK(exit_code(d) == 0);
}

TEST_CASE("a broken run is named by its defect", "[judge][slow]") {
  for (const auto& [name, number] :
       {std::pair{"indexer-rope-interleaved", 1}, std::pair{"indexer-relu-missing", 8}}) {
    const Diagnosis d = diagnosed({name});
    CAPTURE(name, d.why);
    CHECK(d.conclusion == "defect");
    REQUIRE(!d.defects.empty());
    CHECK(d.defects.front() == number);
    CHECK(d.ranking.front().name == name);
    CHECK(to_json(d)["ranking"][0]["explained"] == true);
  }
}

TEST_CASE("two defects at once are found as a pair", "[judge][slow]") {
  const Diagnosis d = diagnosed({"indexer-relu-missing", "indexer-rope-interleaved"});
  CAPTURE(d.why);
  CHECK(d.conclusion == "defect");
  std::vector<int> numbers = d.defects;
  std::sort(numbers.begin(), numbers.end());
  CHECK(numbers == std::vector<int>{1, 8});
}

/// The first T tokens of sample v32's golden as `alter` has the reference in double compute them.
void write_exact(const std::filesystem::path& file, const std::function<void(Variant&)>& alter,
                 Index T) {
  Variant broken{open_checkpoint(sample("v32") / "checkpoint"), reference::definition<double>()};
  alter(broken);
  TensorFile golden = golden_column("v32", "fp64");
  golden.cut(1, T);
  const Column& tokens = golden.at("tokens");
  const reference::Pass<double> pass{broken.model, broken.ops};
  reference::Cache<double> cache;
  const auto logits =
      reference::forward(pass, plain_sequence({tokens.values.begin(), tokens.values.end()}), cache);
  golden.at("logits.fp64").values.assign(logits.begin(), logits.end());
  golden.write(file);
}

TEST_CASE("a trace without logits is diagnosed, too", "[judge]") {
  const Scratch scratch;
  TensorFile trace = TensorFile::read(sample("v32") / "trace.fp64.safetensors");
  std::erase_if(trace.columns, [](const Column& c) { return c.name == "lm_head"; });
  trace.write(scratch / "right");
  JudgeOptions options;
  options.runs = 4;
  const Diagnosis right = diagnose(sample("v32") / "checkpoint", scratch / "right", options);
  CHECK(right.conclusion == "correct");
  CHECK(to_json(right)["kl_max_before"].is_null());
}

TEST_CASE("a constant that no variant has is fitted", "[judge][slow]") {
  const Scratch scratch;
  write_exact(
      scratch / "candidate", [](Variant& a) { a.model.config.latent_norm_eps = 0.07; }, 50);
  JudgeOptions options;
  options.runs = 4;
  const Diagnosis d = diagnose(sample("v32") / "checkpoint", scratch / "candidate", options);
  CAPTURE(d.why);
  CHECK(d.defects == std::vector<int>{68});
  CHECK(d.ranking.front().name == "latent-norm-eps");
  CHECK(d.ranking.front().variant == "eps=0.07");
}

TEST_CASE("defects that a candidate cannot tell apart are all named", "[judge][slow]") {
  const Scratch scratch;
  const auto all = all_defects();
  const auto lost = std::find_if(
      all.begin(), all.end(), [](const Defect& d) { return d.name == "indexer-prefix-keys-lost"; });
  write_exact(scratch / "candidate", lost->variants.front().apply, 44);  // half of it: top-k
  JudgeOptions options;
  options.runs = 4;
  const Diagnosis d = diagnose(sample("v32") / "checkpoint", scratch / "candidate", options);
  CAPTURE(d.why);
  CHECK(d.defects == std::vector<int>{95});
  CHECK(d.also == std::vector<int>{98});
  CHECK_THAT(d.why, Catch::Matchers::Contains("cannot tell it from 98"));
  CHECK(d.ranking[1].explained);
}

TEST_CASE("the power of a golden: a trace sees what logits cannot", "[judge][slow]") {
  JudgeOptions options;
  options.runs = 4;
  const Power logits =
      power(sample("v32") / "checkpoint", sample("v32") / "logits.safetensors", options);
  const Power trace =
      power(sample("v32") / "checkpoint", sample("v32") / "trace.fp64.safetensors", options);
  CHECK(logits.caught() > 0);
  CHECK(trace.caught() > logits.caught());
  const auto scale = std::find_if(trace.matrix.begin(), trace.matrix.end(),
                                  [](const PowerRow& r) { return r.name == "indexer-scale"; });
  REQUIRE(scale != trace.matrix.end());
  CHECK(scale->traces > 1);   // positive factors do not change a top-k,
  CHECK(scale->logits <= 1);  // so that the logits are right
}
