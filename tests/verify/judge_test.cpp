// tests/verify/judge_test.cpp — judge() end to end on the bundled samples: right goldens are not
// failed, right candidates raise no false alarm, and what cannot be decided is said so.
#include <cmath>
#include <filesystem>
#include <fstream>

#include "core/random.hpp"
#include "tests/catch.hpp"
#include "tests/scratch.hpp"
#include "tests/verify/judge_helpers.hpp"
#include "verify/judge/samples.hpp"

using Catch::Matchers::Contains;
using namespace dsa;
using namespace dsa::test;
using namespace dsa::verify;
using reference::Precision;

namespace {

Verdict judged(const std::string& name, const std::filesystem::path& golden,
               const JudgeOptions& options) {
  return judge(sample(name) / "checkpoint", golden, std::nullopt, options);
}

JudgeOptions four_runs() {
  JudgeOptions options;
  options.runs = 4;
  return options;
}

/// The column as an implementation in another language would hand it over: plain F32 logits.
TensorFile as_plain_f32(const std::string& dtype, Index T) {
  TensorFile file = golden_column("v32", dtype);
  file.cut(1, T);
  Column& logits = file.at("logits." + dtype);
  logits.name = "logits";
  logits.dtype = Dtype::f32;
  return file;
}

bool names_bf16(const Verdict& verdict) {
  return std::any_of(verdict.judged.notes.begin(), verdict.judged.notes.end(),
                     [](const std::string& note) {
                       return note.find("--precision hf-bf16") != std::string::npos;
                     });
}

}  // namespace

TEST_CASE("every golden of every sample is right or undecided", "[judge]") {
  const std::vector<Sample> samples = find_samples(sample(""));
  CHECK(samples.size() == 30);
  for (const Sample& s : samples) {
    JudgeOptions options = four_runs();
    options.dtype = s.dtype;
    const Verdict verdict = judge(s.checkpoint, s.golden, std::nullopt, options);
    CAPTURE(s.golden.string(), s.dtype, verdict.why);
    CHECK(verdict.outcome != Outcome::fail);
    // Large weights (glm), or a long chain of choices (v32), leave bf16 undecided.
    const std::string name = s.golden.parent_path().filename().string();
    if (s.dtype != "bf16" || (name != "glm" && name != "v32"))
      CHECK(verdict.outcome == Outcome::pass);
    if (s.dtype != "bf16" && name != "ties") CHECK(verdict.judged.logits->undecided() == 0);
    CHECK(!verdict.judged.first_departure);
    for (const TensorResult& tensor : verdict.judged.tensors) CHECK(tensor.ok());
  }
}

TEST_CASE("a golden no longer than top-k shows nothing about the indexer", "[judge]") {
  const Scratch scratch;
  for (const Index T : {Index{1}, Index{22}, Index{23}}) {
    TensorFile file = golden_column("v32", "fp64");
    file.cut(2, T);
    file.write(scratch / "short");
    const Verdict verdict = judged("v32", scratch / "short", quick(Precision::fp64));
    CAPTURE(T, verdict.why);
    CHECK(verdict.longest_visible == T);
    CHECK(verdict.outcome == (T <= 22 ? Outcome::inconclusive : Outcome::pass));
    if (T <= 22) CHECK_THAT(verdict.why, Contains("top-k"));
    if (T > 22) continue;
    file.at("logits.fp64").values[5] += 1;  // but a wrong one is wrong
    file.write(scratch / "wrong");
    CHECK(judged("v32", scratch / "wrong", quick(Precision::fp64)).outcome == Outcome::fail);
  }
}

TEST_CASE("goldens of other models and other tokens are refused", "[judge]") {
  const Scratch scratch;
  const auto v32 = sample("v32") / "logits.safetensors";
  CHECK_THROWS_WITH(judged("v3", v32, four_runs()), Contains("another model"));
  CHECK_THROWS_AS(judged("v3", sample("v32") / "trace.fp64.safetensors", four_runs()), Error);
  TensorFile file = golden_column("v32", "fp64");
  std::swap(file.at("tokens").values[3], file.at("tokens").values[4]);
  REQUIRE(file.at("tokens").values[3] != file.at("tokens").values[4]);
  file.write(scratch / "other");
  CHECK_THROWS_WITH(judge(sample("v32") / "checkpoint", v32, scratch / "other", four_runs()),
                    Contains("other tokens") && Contains("position 3"));
  file = golden_column("v32", "fp64");
  file.cut(2, 60);
  file.write(scratch / "short");
  CHECK_THROWS_AS(judge(sample("v32") / "checkpoint", v32, scratch / "short", four_runs()), Error);
  CHECK_THROWS_WITH(judge(sample("v32") / "checkpoint", scratch / "short", v32, four_runs()),
                    Contains("other tokens"));
}

TEST_CASE("the user's limits replace ours, but not the look at NaN", "[judge]") {
  const Scratch scratch;
  TensorFile file = golden_column("v32", "fp64");
  file.cut(1, 40);
  file.at("logits.fp64")(30, 4) += 1e-3;
  file.write(scratch / "off");
  JudgeOptions options = quick(Precision::fp64);
  CHECK(judged("v32", scratch / "off", options).outcome == Outcome::fail);
  options.max_kl_div = 1e-2;
  CHECK(judged("v32", scratch / "off", options).outcome == Outcome::pass);
  options.max_kl_div = 1e-12;
  CHECK(judged("v32", scratch / "off", options).outcome == Outcome::fail);
  options.max_kl_div = 1e-2;
  options.atol = 1e-4;
  CHECK(judged("v32", scratch / "off", options).outcome == Outcome::fail);
  options.atol = 2e-3;
  CHECK(judged("v32", scratch / "off", options).outcome == Outcome::pass);
  file.at("logits.fp64")(30, 4) = std::nan("");
  file.write(scratch / "off");
  CHECK(judged("v32", scratch / "off", options).outcome == Outcome::fail);
}

TEST_CASE("a bf16 run stored as F32 fails as fp32, and the notes say what to do", "[judge]") {
  const Scratch scratch;
  TensorFile file = as_plain_f32("bf16", 30);
  for (const double more : {0.0, 1e-6}) {  // logits in bf16, or a last layer kept in fp32
    Column& logits = file.at("logits");
    for (std::size_t i = 0; i < logits.values.size(); ++i)
      logits.values[i] += more * gaussian(1, i);
    file.write(scratch / "f32");
    const Verdict verdict = judged("v32", scratch / "f32", four_runs());
    CAPTURE(more, verdict.why);
    CHECK(verdict.outcome == Outcome::fail);
    CHECK(names_bf16(verdict));
    CHECK(judged("v32", scratch / "f32", quick(Precision::hf_bf16)).outcome != Outcome::fail);
  }
  TensorFile wrong = as_plain_f32("fp32", 30);
  for (double& x : wrong.at("logits").values) x *= -1;
  wrong.write(scratch / "wrong");
  const Verdict verdict = judged("v32", scratch / "wrong", four_runs());
  CHECK(verdict.outcome == Outcome::fail);
  CHECK(!names_bf16(verdict));  // no precision excuses it
}

TEST_CASE("every file is opened once, before anything is judged", "[judge]") {
  const Scratch scratch;
  std::filesystem::copy(sample("v32") / "checkpoint", scratch / "checkpoint");
  as_plain_f32("bf16", 30).write(scratch / "candidate");
  const auto mapped = [&](const std::string& file) {  // how often, now
    std::ifstream maps("/proc/self/maps");
    Index n = 0;
    for (std::string line; std::getline(maps, line);)
      n += line.ends_with((scratch / file).string());
    return n;
  };
  const JudgeOptions options = four_runs();
  TensorFile golden = golden_column("v32", "fp64");
  golden.cut(1, 30);
  golden.write(scratch / "golden");
  const Inputs alone =
      read_inputs(scratch / "checkpoint", scratch / "golden", std::nullopt, options);
  CHECK(mapped("checkpoint/model.safetensors") == 1);
  const Inputs both =
      read_inputs(scratch / "checkpoint", scratch / "golden", scratch / "candidate", options);
  CHECK(mapped("checkpoint/model.safetensors") == 2);
  std::filesystem::remove_all(scratch / "checkpoint");
  std::filesystem::remove(scratch / "golden");
  std::filesystem::remove(scratch / "candidate");
  CHECK(judge(alone, options).outcome == Outcome::pass);
  const Verdict verdict = judge(both, options);  // by the golden too, and tried again as bf16
  CHECK(verdict.outcome == Outcome::fail);
  REQUIRE(verdict.golden_judged);
  CHECK(verdict.golden_judged->outcome == Outcome::pass);
  CHECK(names_bf16(verdict));
}

TEST_CASE("a right run raises no alarm, whatever its seed", "[judge][slow]") {
  const Scratch scratch;
  const Model stored = open_checkpoint(sample("v32") / "checkpoint");
  for (const Precision precision : {Precision::hf_fp32, Precision::hf_bf16}) {
    const Model loaded = resident(reference::loaded_as(stored, precision), Index{1} << 30);
    for (std::uint64_t seed = 1000; seed < 1010; ++seed) {
      TensorFile file = golden_column("v32", "fp32");
      file.at("logits.fp32").name = "logits";
      Column& tokens = file.at("tokens");
      std::vector<double> values;
      for (Index b = 0; b < 2; ++b) {
        const Sequence sequence = plain_sequence({tokens.row(b), tokens.row(b) + 90});
        const auto logits = logits_of_run(loaded, sequence, precision, 2 * seed + b);
        values.insert(values.end(), logits.begin(), logits.end());
      }
      file.at("logits").values = values;
      file.write(scratch / "candidate");
      JudgeOptions options;
      options.precision = precision;
      const Verdict verdict =
          judge(sample("v32") / "checkpoint", sample("v32") / "logits.safetensors",
                scratch / "candidate", options);
      CAPTURE(name_of(precision), seed, verdict.why);
      CHECK(verdict.outcome != Outcome::fail);
    }
  }
}
