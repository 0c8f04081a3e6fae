// tests/verify/noise_test.cpp — the noise floor: limits measured once serve many sides, right runs
// stay below them as often as alpha says, and rows that decisions reach are told from wrong ones.
#include "core/random.hpp"
#include "tests/catch.hpp"
#include "tests/verify/judge_helpers.hpp"
#include "verify/judge/against_definition.hpp"
#include "verify/measure/divergence.hpp"
#include "verify/measure/stats.hpp"

using namespace dsa;
using namespace dsa::test;
using namespace dsa::verify;
using reference::Precision;

namespace {

Recording tokens_of(const std::string& name) {
  Recording golden = read_recording(sample(name) / "logits.safetensors", "fp64", 0);
  golden.logits.clear();
  return golden;
}

Recording drawn(const std::string& name, const ModelPair& models, std::uint64_t seed) {
  Recording side = tokens_of(name);
  for (std::size_t b = 0; b < side.sequences.size(); ++b)
    side.logits.push_back(
        logits_of_run(models.loaded, side.sequences[b], models.precision, random_bits(seed, b)));
  return side;
}

}  // namespace

TEST_CASE("limits measured once give the verdict that measuring again gives", "[judge]") {
  for (const Precision precision : {Precision::hf_fp32, Precision::hf_bf16}) {
    const ModelPair models = open_models(sample("v32") / "checkpoint", precision);
    const Recording side = drawn("v32", models, 900);
    const JudgeOptions options = quick(precision);
    const auto measured = measure_sequences(models, side.sequences, options);
    const Judgement once =
        hold_against_definition(models, side, "candidate", options, &measured).judgement;
    const Judgement again = hold_against_definition(models, side, "candidate", options).judgement;
    CHECK(once.outcome == again.outcome);
    CHECK(once.why == again.why);
    CHECK(once.logits->kl.got == again.logits->kl.got);
    CHECK(once.logits->kl.allowed == again.logits->kl.allowed);
    CHECK(once.logits->flips.size() == again.logits->flips.size());
  }
}

TEST_CASE("right runs raise alarms no more often than alpha says", "[judge]") {
  const ModelPair models = open_models(sample("v3") / "checkpoint", Precision::hf_fp32);
  JudgeOptions options = quick(Precision::hf_fp32, 8);
  options.alpha = 0.1;  // large, so that few candidates tell
  const auto measured = measure_sequences(models, tokens_of("v3").sequences, options);
  int alarms = 0;
  constexpr int candidates = 60;
  for (std::uint64_t c = 0; c < candidates; ++c)
    alarms += hold_against_definition(models, drawn("v3", models, 5000 + c), "candidate", options,
                                      &measured)
                  .judgement.outcome == Outcome::fail;
  CHECK(alarms <= 12);  // 6 are expected at most; 12 and more once in a hundred
}

TEST_CASE("a row that turned decisions moved is limited by the free runs, others by the held",
          "[judge]") {
  const ModelPair models = open_models(sample("v32") / "checkpoint", Precision::hf_bf16);
  const auto measured =
      measure_sequences(models, tokens_of("v32").sequences, quick(Precision::hf_bf16, 8));
  int beyond = 0, felt = 0, untouched = 0;
  for (const SequenceResult& sequence : measured)
    for (std::size_t t = 0; t < sequence.free.reach.size(); ++t) {
      const Reach& reach = sequence.free.reach[t];
      double largest = 0;
      for (const auto& run : sequence.free.kl) largest = std::max(largest, run[t]);
      const bool moved = largest > sequence.limits.kl[t];
      beyond += std::isinf(reach.kl), felt += reach.kl > 0 && std::isfinite(reach.kl);
      untouched += reach.kl == 0;
      CAPTURE(t, reach.kl, largest, sequence.limits.kl[t]);
      if (std::isinf(reach.kl)) CHECK(moved);
      if (reach.kl > 0) {
        CHECK(reach.kl > largest / 8);  // eight runs' mean is at least that
        CHECK(reach.first.margin <= reach.first.noise);
      }
    }
  CAPTURE(beyond, felt, untouched);
  CHECK(beyond > 0);
  CHECK(felt > 0);
  CHECK(untouched > 0);  // the first rows see no more keys than are kept
}

TEST_CASE("the larger of the two directions of KL", "[judge]") {
  const std::vector<double> flat = {0, 0, 0}, sharp = {9, 0, 0};
  const View<const double, 1> a{flat.data(), {3}}, b{sharp.data(), {3}};
  CHECK(kl_divergence(a, b) > 2 * kl_divergence(b, a));
  CHECK(larger_kl(a, b) == kl_divergence(a, b));
  CHECK(larger_kl(b, a) == kl_divergence(a, b));
  CHECK(larger_kl(a, a) == 0);
}

TEST_CASE("the bound of a rate, by Clopper and Pearson", "[judge]") {
  CHECK(most_probable(200, 0, 0.95) == Approx(1 - std::pow(0.05, 1.0 / 200)));
  CHECK(most_probable(1, 0, 0.95) == Approx(0.95));
  CHECK(most_probable(10, 10, 0.95) == 1);
  CHECK(most_probable(20, 1, 0.95) == Approx(0.2161).epsilon(1e-3));
}
