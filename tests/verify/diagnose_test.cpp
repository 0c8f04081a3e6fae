// tests/verify/diagnose_test.cpp — broken runs of the reference, with fp32 roundings, are named.
#include "verify/diagnose/diagnose.hpp"

#include <algorithm>
#include <cmath>
#include <functional>

#include "core/random.hpp"
#include "tests/catch.hpp"
#include "tests/scratch.hpp"
#include "tests/verify/localise_helpers.hpp"
#include "verify/defects/defect.hpp"
#include "verify/diagnose/lower_precision.hpp"
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

namespace {

/// Sample v32 in double, and what the reference traces of its first sequence.
struct Traced {
  ModelPair models = open_models(sample("v32") / "checkpoint", Precision::fp64);
  Sequence sequence =
      read_recording(sample("v32") / "logits.safetensors", "fp64", 0).sequences.front();

  Recording dump(const std::function<void(Variant&)>& alter,
                 const std::function<bool(const std::string&)>& keeps) const {
    Variant broken = models.exact();
    alter(broken);
    return dump_of(broken, sequence, keeps);
  }
  Diagnosis diagnosed(const Recording& candidate) const {
    return diagnose(models, candidate, quick(Precision::fp64));
  }
};

bool selections(const std::string& name) { return name.ends_with("self_attn.indexer"); }
bool selections_and_scores(const std::string& name) {
  return selections(name) || name.ends_with("indexer.scores");
}

/// Rows from `first` on select among the keys that `visible` lets through, drawn by `seed`.
void select_at_random(Variant& altered, Index first, Index below, std::uint64_t seed) {
  auto& op = altered.ops.topk_select;
  op = [inner = op, first, below, seed](const std::string& name, View<Index, 2> chosen,
                                        View<const double, 2> scores) {
    Tensor<double, 2> drawn(scores.shape);
    std::copy(scores.begin(), scores.end(), drawn.begin());
    if (name.ends_with("self_attn.indexer"))
      for (Index t = first; t < scores.shape[0]; ++t)
        for (Index s = 0; s <= t; ++s) {
          const auto i = static_cast<std::uint64_t>(layer_of(name) << 32 | t << 16 | s);
          drawn(t, s) = uniform(seed, i) + (s < below ? 1 : 0);
        }
    inner(name, chosen, drawn);
  };
}

}  // namespace

TEST_CASE("keys drawn at random are no known defect in bfloat16 either", "[judge][slow]") {
  const Traced v32;
  const ModelPair models = open_models(sample("v32") / "checkpoint", Precision::hf_bf16);
  const Diagnosis d =
      diagnose(models, v32.dump([](Variant& a) { select_at_random(a, 33, 33, 5); }, selections),
               quick(Precision::hf_bf16));
  CAPTURE(d.why);
  CHECK(d.conclusion == "unknown");
  CHECK_THAT(d.why, Catch::Matchers::Contains("would be by chance"));
}

TEST_CASE("a variant under which any selection would pass explains nothing", "[judge][slow]") {
  const Traced v32;
  const Index first = v32.sequence.size() - 24;
  for (const Index below : {40, 0}) {
    const Diagnosis d = v32.diagnosed(
        v32.dump([&](Variant& a) { select_at_random(a, first, below, 7); }, selections));
    CAPTURE(below, d.why);
    CHECK(d.conclusion == "unknown");
    CHECK(d.defects.empty());
    CHECK(d.suspects == std::vector<std::string>{"model.layers.0.self_attn.indexer"});
    CHECK_THAT(d.why, Catch::Matchers::Contains(below == 0 ? "leaves more than its noise"
                                                           : "explains nothing: 72 of the 72"));
  }
}

TEST_CASE("one row of one selection is no known defect, beside right scores", "[judge]") {
  const Traced v32;
  const Diagnosis d = v32.diagnosed(v32.dump(
      [](Variant& altered) {
        auto& op = altered.ops.topk_select;
        op = [inner = op](const std::string& name, View<Index, 2> chosen,
                          View<const double, 2> scores) {
          inner(name, chosen, scores);
          if (name != "model.layers.0.self_attn.indexer") return;
          for (Index i = 0; i < chosen.shape[1]; ++i) chosen(70, i) = 3 * i;
        };
      },
      [](const std::string& name) {
        return name.starts_with("model.layers.0.") && selections_and_scores(name);
      }));
  CAPTURE(d.why);
  CHECK(d.conclusion == "unknown");
  CHECK(d.suspects == std::vector<std::string>{"model.layers.0.self_attn.indexer"});
  CHECK_THAT(d.why, !Catch::Matchers::Contains("nan"));
  CHECK_THAT(table(d, false), !Catch::Matchers::Contains("nan"));
}

TEST_CASE("a shard's causal bound is named, with its offset", "[judge]") {
  const Traced v32;
  for (const auto& keeps : {selections, selections_and_scores}) {
    const Diagnosis d = v32.diagnosed(v32.dump(
        [](Variant& altered) {
          auto& op = altered.ops.indexer_scores;
          op = [inner = op](const std::string& name, View<double, 2> scores, auto&&... rest) {
            inner(name, scores, rest...);
            for (Index t = 61; t < scores.shape[0]; ++t)
              for (Index s = t - 37 + 1; s < scores.shape[1]; ++s)
                scores(t, s) = -std::numeric_limits<double>::infinity();
          };
        },
        keeps));
    CAPTURE(d.why);
    CHECK(d.defects == std::vector<int>{111});
    CHECK_THAT(d.ranking.front().variant, Catch::Matchers::Contains("offset=37"));
  }
}

TEST_CASE("a factor of all index scores is fitted, and named where the config has it",
          "[judge][slow]") {
  const Traced v32;
  const auto scaled = [&](double factor) {
    return v32.diagnosed(
        v32.dump([=](Variant& a) { a.model.config.indexer->dot_scale *= factor; }, everything));
  };
  const Diagnosis odd = scaled(0.123456789);
  CAPTURE(odd.why);
  CHECK(odd.defects == std::vector<int>{24});
  CHECK_THAT(odd.ranking.front().variant, Catch::Matchers::Contains("times=0.123457"));
  const Config& c = v32.models.definition.config;
  const Diagnosis of_mla = scaled(c.attention_scale() / c.indexer->dot_scale);
  CAPTURE(of_mla.why);
  CHECK(of_mla.defects == std::vector<int>{24});
  CHECK(of_mla.ranking.front().variant == "MLA's scale for D^-1/2");
}

TEST_CASE("further settings of the catalogue are named where they are planted", "[judge][slow]") {
  const Traced v32;
  const Config& config = v32.models.definition.config;
  int planted = 0;
  for (const Defect& defect : all_defects()) {
    if (!defect.applies(config) || !defect.more || defect.number == 111) continue;
    const auto variants = defect.more(config, {v32.sequence.size(), 30});
    const DefectVariant& variant = variants.at(variants.size() / 2);
    const Diagnosis d = v32.diagnosed(v32.dump(variant.apply, everything));
    CAPTURE(defect.name, variant.name, d.why);
    CHECK(d.defects == std::vector<int>{defect.number});
    ++planted;
  }
  CHECK(planted > 10);
}

TEST_CASE("the latent norms' eps of the config is a convention, not a defect", "[judge]") {
  const Traced v32;
  const Diagnosis d = v32.diagnosed(
      v32.dump([](Variant& a) { a.model.config.latent_norm_eps = a.model.config.rms_norm_eps; },
               everything));
  CAPTURE(d.why);
  CHECK(d.conclusion == "convention");
  CHECK(d.defects == std::vector<int>{109});
  CHECK(exit_code(d) == 1);

  // And the reverse, where the definition follows the config.
  Traced engines;
  JudgeOptions of_config;
  of_config.latent_eps_of_config = true;
  const Checkpoint checkpoint(sample("v32") / "checkpoint", of_config);
  CHECK(checkpoint.stored.config.latent_norm_eps == checkpoint.stored.config.rms_norm_eps);
  const Recording of_transformers = engines.dump([](Variant&) {}, everything);
  engines.models = open_models(checkpoint.stored, Precision::fp64);
  const Diagnosis reverse = engines.diagnosed(of_transformers);
  CAPTURE(reverse.why);
  CHECK(reverse.conclusion == "convention");
  CHECK(reverse.defects == std::vector<int>{109});
}

TEST_CASE("a trace without logits says nothing of KL, and is taken for its own precision",
          "[judge]") {
  const Scratch scratch;
  TensorFile trace = TensorFile::read(sample("v32") / "trace.fp64.safetensors");
  std::erase_if(trace.columns, [](const Column& c) { return c.name == "lm_head"; });
  Column& norm = trace.at("model.layers.1.self_attn.indexer.k_norm");
  for (double& x : norm.values) x *= 1.0001;
  trace.write(scratch / "scaled");
  const Diagnosis d =
      diagnose(sample("v32") / "checkpoint", scratch / "scaled", quick(Precision::fp64));
  CAPTURE(d.why);
  CHECK(d.conclusion == "unknown");
  CHECK(d.precision == "fp64");
  CHECK(d.suspects == std::vector<std::string>{"model.layers.1.self_attn.indexer.k_norm"});
  CHECK_THAT(table(d, false), !Catch::Matchers::Contains("nan"));
  JudgeOptions unsaid;
  unsaid.runs = 4;
  CHECK(localise(sample("v32") / "checkpoint", scratch / "scaled", unsaid).precision == "fp64");
  const Verdict verdict =
      judge(sample("v32") / "checkpoint", scratch / "scaled", std::nullopt, unsaid);
  CHECK(verdict.judged.precision == "fp64");
}

TEST_CASE("a run in TF32 is right by its own precision, and diagnose says so", "[judge][slow]") {
  const auto checkpoint = sample("v32") / "checkpoint",
             golden = sample("v32") / "logits.safetensors",
             candidate = std::filesystem::path(source_dir()) / "data/tf32/v32.safetensors";
  JudgeOptions options;
  options.runs = 8;
  options.precision = Precision::hf_fp32;
  CHECK(judge(checkpoint, golden, candidate, options).judged.outcome == Outcome::fail);
  const Diagnosis d = diagnose(checkpoint, candidate, options);
  CAPTURE(d.why);
  CHECK(d.conclusion == "unknown");
  CHECK_THAT(d.why, Catch::Matchers::Contains("computed in TF32") &&
                        Catch::Matchers::Contains("--precision hf-tf32"));
  options.precision = Precision::hf_tf32;
  CHECK(judge(checkpoint, golden, candidate, options).judged.outcome == Outcome::pass);
}

TEST_CASE("fp32 that was computed in fewer bits is named as such", "[judge][slow]") {
  const Scratch scratch;
  TensorFile bf16 = golden_column("v32", "bf16");
  bf16.at("logits.bf16").dtype = Dtype::f32;
  bf16.at("logits.bf16").name = "logits";
  bf16.cut(1, bf16.at("tokens").shape[1]);
  bf16.write(scratch / "hf-bf16");
  const ModelPair half = open_models(sample("v32") / "checkpoint", Precision::hf_fp16);
  const Variant sums = half.rounded({reference::Rounding::Mode::random, 99});
  TensorFile fp16 = bf16;
  const Column& tokens = fp16.at("tokens");
  RunOptions run;
  run.span = {0, half.loaded.config.num_hidden_layers};
  const Run mine = run_reference(
      sums.model, plain_sequence({tokens.values.begin(), tokens.values.end()}), sums.ops, run);
  fp16.at("logits").values.assign(mine.logits.begin(), mine.logits.end());
  fp16.write(scratch / "hf-fp16");
  JudgeOptions options;
  options.runs = 8;
  const Diagnosis d = diagnose(sample("v32") / "checkpoint", scratch / "hf-bf16", options);
  CAPTURE(d.why);
  CHECK(d.conclusion == "precision");
  CHECK(d.computed_in == "hf-bf16");
  CHECK(exit_code(d) == 1);
  const auto lower = lower_precision(  // the answer alone, without the search before it
      half.stored, read_recording(scratch / "hf-fp16", "", half.loaded.config.vocab_size),
      Precision::hf_fp32, options);
  REQUIRE(lower);
  CHECK(lower->precision == Precision::hf_fp16);
  CHECK(lower->shown);
}
