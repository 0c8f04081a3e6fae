// The CUDA backend, executed on the host, before the judge: goldens, a trace, passes cut into
// chunks.
#include "tests/catch.hpp"
#include "tests/scratch.hpp"
#include "tests/verify/judge_helpers.hpp"
#include "verify/runs/backends.hpp"

using namespace dsa;
using namespace dsa::test;
using namespace dsa::verify;

namespace {

/// A golden of the family's sample, by its name; or of another path.
Verdict judged(const std::string& family, const std::filesystem::path& golden,
               const std::string& format) {
  const auto checkpoint = sample(family) / "checkpoint";
  const EngineOptions options{"cuda-host", format};
  return judge(checkpoint, sample(family) / golden, open_backend(checkpoint, options),
               quick(precision_of(options)));
}

/// The definition's logits of one sequence, as a golden.
void write_golden(const std::filesystem::path& path, const Model& model, const Sequence& s) {
  const Tensor<double, 2> logits = logits_of(model, s);
  TensorFile file;
  file.columns.push_back({"tokens", Dtype::i64, {1, s.size()}, {s.tokens.begin(), s.tokens.end()}});
  file.columns.push_back({"logits.fp64",
                          Dtype::f64,
                          {1, s.size(), logits.shape()[1]},
                          {logits.begin(), logits.end()}});
  file.write(path);
}

/// The same, `step` tokens a pass; logits only.
Implementation in_chunks(const Implementation& whole, Index step) {
  Implementation cut = whole;
  cut.run_traced = nullptr;
  cut.run = [run = whole.run_in_chunks, step](const std::vector<Sequence>& batch) {
    Recording all;
    for (const Sequence& sequence : batch) {
      std::vector<Index> ends;
      for (Index end = step; end < sequence.size(); end += step) ends.push_back(end);
      Recording one = run(sequence, ends);
      all.logits.push_back(std::move(one.logits[0]));
      all.dtype = one.dtype;
    }
    return all;
  };
  return cut;
}

}  // namespace

// One sequence of each golden; several at once are the tests' below.
TEST_CASE("cuda-host passes the goldens of every family in every format", "[cuda-judged][slow]") {
  const Scratch scratch;
  for (const char* family : {"v2", "v3", "v32", "glm"})
    for (const char* format : {"fp32", "bf16", "fp8"}) {
      TensorFile golden = TensorFile::read(sample(family) / "logits.safetensors");
      golden.cut(1, golden.at("tokens").shape[1]);
      golden.write(scratch / "golden.safetensors");
      const Verdict verdict = judged(family, scratch / "golden.safetensors", format);
      INFO(family << " " << format << ": " << verdict.why);
      CHECK(verdict.outcome == Outcome::pass);
      CHECK(verdict.candidate == "cuda-host (" + std::string(format) + ")");
      REQUIRE(verdict.judged.logits);
      CHECK(verdict.judged.logits->all.rows > 60);
      int decisions = 0;  // of the indexer, where there is one: all samples go beyond top-k
      for (const TensorResult& tensor : verdict.judged.tensors)
        decisions += tensor.kind != TensorResult::Kind::tensor && tensor.n > 0;
      CHECK(decisions > 0);
    }
}

TEST_CASE("cuda-host judged by a trace, with padding, and by limits too narrow",
          "[cuda-judged][slow]") {
  CHECK(judged("v32", "trace.fp64.safetensors", "fp32").outcome == Outcome::pass);
  CHECK(judged("v32", "left-padded.safetensors", "bf16").outcome == Outcome::pass);

  const auto checkpoint = sample("v32") / "checkpoint";
  const Implementation bf16 = open_backend(checkpoint, {"cuda-host", "bf16"});
  const Verdict as_fp32 = judge(checkpoint, sample("v32") / "logits.safetensors", bf16,
                                quick(reference::Precision::hf_fp32));
  CHECK(as_fp32.outcome == Outcome::fail);
}

// In bf16 the keys of a query are split over blocks by how many queries there are: chunks and steps
// are equal to a prefill but for rounding, and are judged as it is.
TEST_CASE("cuda-host passes in chunks, and token by token", "[cuda-judged][slow]") {
  const auto checkpoint = sample("v32") / "checkpoint";
  const EngineOptions options{"cuda-host", "bf16"};
  const Implementation backend = open_backend(checkpoint, options);
  for (const Index step : {Index{1}, Index{31}}) {
    const Verdict verdict = judge(checkpoint, sample("v32") / "logits.safetensors",
                                  in_chunks(backend, step), quick(precision_of(options)));
    INFO(step << " tokens at a time: " << verdict.why);
    CHECK(verdict.outcome == Outcome::pass);
  }
}

// A page has 256 rows: the second pass begins the second page, or goes on from one to the other.
TEST_CASE("cuda-host passes beyond one page of its caches", "[cuda-judged][slow]") {
  const Scratch scratch;
  const std::filesystem::path golden = scratch / "long.safetensors";
  const Model model = sample_model("v32");
  write_golden(golden, model, plain_sequence(some_tokens(model, 270)));
  for (const auto& [format, step] :
       {std::pair<const char*, Index>{"fp32", 200}, {"bf16", 256}, {"fp8", 256}}) {
    const auto checkpoint = sample("v32") / "checkpoint";
    const EngineOptions options{"cuda-host", format};
    const Implementation backend = open_backend(checkpoint, options);
    const Verdict verdict =
        judge(checkpoint, golden, in_chunks(backend, step), quick(precision_of(options)));
    INFO(format << ": " << verdict.why);
    CHECK(verdict.outcome == Outcome::pass);
    CHECK(verdict.judged.logits->all.rows == 270);
  }
}
