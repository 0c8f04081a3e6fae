// The CPU backend before the judge: goldens of every family, every format, every tier; invariants.
#include "optimized/cpu/ops/tier.hpp"
#include "tests/catch.hpp"
#include "tests/verify/judge_helpers.hpp"
#include "verify/invariants/invariants.hpp"
#include "verify/runs/backends.hpp"

using namespace dsa;
using namespace dsa::test;
using namespace dsa::verify;
using Catch::Contains;

namespace {

Verdict judged(const std::string& family, const std::string& golden, const EngineOptions& options) {
  const auto checkpoint = sample(family) / "checkpoint";
  return judge(checkpoint, sample(family) / golden, open_backend(checkpoint, options),
               quick(precision_of(options)));
}

Invariants invariants_of(const std::string& family, const EngineOptions& options) {
  const auto checkpoint = sample(family) / "checkpoint";
  return check_invariants(checkpoint, open_backend(checkpoint, options),
                          {quick(precision_of(options)), 0});
}

}  // namespace

TEST_CASE("cpu passes the goldens of every family in every format and form of MLA",
          "[cpu-judged][slow]") {
  for (const char* family : {"v2", "v2lite", "v3", "v32", "glm", "ties", "fp8"})
    for (const char* format : {"fp32", "bf16", "fp8"})
      for (const char* mla : {"absorbed", "expanded"}) {
        const Verdict verdict = judged(family, "logits.safetensors", {"cpu", format, "", mla});
        INFO(family << " " << format << " " << mla << ": " << verdict.why);
        CHECK(verdict.outcome == Outcome::pass);
        CHECK(verdict.candidate.find(format) != std::string::npos);
        CHECK(verdict.candidate.find(mla) != std::string::npos);
        REQUIRE(verdict.judged.logits);
        CHECK(verdict.judged.logits->all.rows > 80);
        int decisions = 0;
        for (const TensorResult& tensor : verdict.judged.tensors)
          decisions += tensor.kind != TensorResult::Kind::tensor && tensor.n > 0;
        CHECK(decisions > 0);
      }
}

TEST_CASE("cpu chooses the form of MLA, and passes", "[cpu-judged]") {
  CHECK(judged("v32", "logits.safetensors", {"cpu", "bf16", ""}).outcome == Outcome::pass);
}

TEST_CASE("cpu passes in every tier of this machine", "[cpu-judged][slow]") {
  for (const cpu::Tier tier : cpu::usable_tiers())
    for (const char* format : {"fp32", "bf16", "fp8"}) {
      const Verdict verdict =
          judged("v32", "left-padded.safetensors", {"cpu", format, std::string(name_of(tier))});
      INFO(name_of(tier) << " " << format << ": " << verdict.why);
      CHECK(verdict.outcome == Outcome::pass);
    }
}

TEST_CASE("cpu judged by a trace, and by another golden than its own", "[cpu-judged][slow]") {
  CHECK(judged("glm", "trace.fp64.safetensors", {"cpu", "fp32", ""}).outcome == Outcome::pass);
  CHECK(judged("v3", "golden.jsonl", {"cpu", "fp32", ""}).outcome == Outcome::pass);

  const auto checkpoint = sample("v32") / "checkpoint";
  const Implementation bf16 = open_backend(checkpoint, {"cpu", "bf16", ""});
  const Verdict as_fp32 = judge(checkpoint, sample("v32") / "logits.safetensors", bf16,
                                quick(reference::Precision::hf_fp32));
  CHECK(as_fp32.outcome == Outcome::fail);  // the limits of fp32 are too narrow for bf16
}

TEST_CASE("cpu keeps the invariants", "[cpu-judged][slow]") {
  for (const char* family : {"v2lite", "v3", "v32", "glm"})
    for (const char* format : {"fp32", "bf16"}) {
      const Invariants result = invariants_of(family, {"cpu", format, ""});
      INFO(family << " " << format << ": " << result.why);
      CHECK(result.outcome == Outcome::pass);
      int held = 0;
      for (const Invariant& i : result.invariants)
        held +=
            (i.name == "packed = separate" || i.name == "prefill = decode") && i.held == Held::pass;
      CHECK(held == 2);
    }
}

TEST_CASE("a backend that is not there is refused in a sentence", "[cpu-judged]") {
  const auto checkpoint = sample("v32") / "checkpoint";
  CHECK_THROWS_WITH(open_backend(checkpoint, {"tpu"}),
                    Contains("no backend \"tpu\"; choose reference") && Contains("cpu"));
  CHECK_THROWS_WITH(open_backend(checkpoint, {"cpu", "fp64", ""}),
                    Contains("no format \"fp64\"; choose fp32, bf16 or fp8"));
  CHECK_THROWS_WITH(open_backend(checkpoint, {"cpu", "bf16", "sse"}), Contains("no instruction set \"sse\""));
  CHECK_THROWS_WITH(open_backend(checkpoint, {"reference", "fp64", "avx2"}), Contains("--isa"));
  CHECK_THROWS_WITH(open_backend(checkpoint, {"reference", "fp64", "", "expanded"}),
                    Contains("--mla"));
  CHECK_THROWS_WITH(open_backend(checkpoint, {"cpu", "bf16", "", "naive"}), Contains("no form"));
  CHECK_THROWS_WITH(open_backend(checkpoint, {"reference", "bf16"}), Contains("choose fp64"));
  CHECK(open_backend(checkpoint, {"reference", "fp64"}).ours);
}
