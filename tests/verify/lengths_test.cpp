// tests/verify/lengths_test.cpp — prompts of one kind of length that alone depart.
#include "tests/catch.hpp"
#include "tests/verify/judge_helpers.hpp"
#include "verify/defects/defect.hpp"
#include "verify/judge/against_definition.hpp"

using Catch::Matchers::Contains;
using namespace dsa;
using namespace dsa::test;
using namespace dsa::verify;

namespace {

constexpr Index K = 22;  // of sample v32

/// Logits of prompts of these lengths of one text; those that `wrong` says lack the router's
/// factor.
Recording prompts(const std::vector<Index>& lengths, const std::function<bool(Index T)>& wrong) {
  const Model model = resident(open_checkpoint(sample("v32") / "checkpoint"), Index{1} << 30);
  Variant right{model, reference::definition<double>()}, broken = right;
  for (const Defect& d : all_defects())
    if (d.name == "router-scaling-factor") d.variants.front().apply(broken);
  const std::vector<Token> text =
      read_recording(sample("v32") / "logits.safetensors", "fp64", 0).sequences.front().tokens;
  Recording side;
  side.path = "prompts", side.dtype = "fp64";
  for (const Index T : lengths) {
    side.sequences.push_back(plain_sequence({text.begin(), text.begin() + T}));
    const Variant& used = wrong(T) ? broken : right;
    const reference::Pass<double> pass{used.model, used.ops};
    reference::Cache<double> cache;
    side.logits.push_back(reference::forward(pass, side.sequences.back(), cache));
  }
  return side;
}

std::string notes(const Recording& side) {
  JudgeOptions options;
  options.runs = 2;
  const ModelPair models = open_models(sample("v32") / "checkpoint", reference::Precision::fp64);
  std::string all;
  for (const std::string& note :
       hold_against_definition(models, side, "candidate", options).judgement.notes)
    all += note + "\n";
  return all;
}

}  // namespace

TEST_CASE("prompts of one kind of length that alone depart are another path", "[judge]") {
  const std::vector<Index> lengths = {K - 1, K, K + 1, 30};
  CHECK_THAT(notes(prompts(lengths, [](Index T) { return T > K; })),
             Contains("in prompts of more than index_topk = 22 tokens, and in no other"));
  CHECK_THAT(notes(prompts(lengths, [](Index T) { return T <= K; })),
             Contains("in prompts of at most index_topk = 22 tokens, and in no other"));
  for (const auto& wrong : std::vector<std::function<bool(Index)>>{
           [](Index) { return true; }, [](Index) { return false; }, [](Index T) { return T == 30; },
           [](Index T) { return T == K; }})
    CHECK_THAT(notes(prompts(lengths, wrong)), !Contains("another path"));
  CHECK_THAT(notes(prompts({24, 30}, [](Index) { return true; })), !Contains("another path"));
}
