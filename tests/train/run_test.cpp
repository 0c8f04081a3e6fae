#include <sys/resource.h>

#include <cmath>
#include <csignal>

#include "core/checkpoint.hpp"
#include "optimized/train/pipeline/failed_step.hpp"
#include "optimized/train/pipeline/merge.hpp"
#include "optimized/train/pipeline/start.hpp"
#include "tests/catch.hpp"
#include "tests/models.hpp"
#include "tests/train/run_support.hpp"

using namespace dsa;
using namespace dsa::test;
using namespace dsa::train;
using Catch::Matchers::Contains;

namespace {

constexpr Index all_steps = 15;

/// Names of the parameters that differ between two checkpoints.
std::vector<std::string> changed(const std::filesystem::path& a, const std::filesystem::path& b) {
  const SafetensorsFile x = SafetensorsFile::open(a / "model.safetensors"),
                        y = SafetensorsFile::open(b / "model.safetensors");
  std::vector<std::string> names;
  for (const StoredTensor& t : x.tensors())
    if (std::memcmp(t.data, y.at(t.name).data, static_cast<std::size_t>(t.bytes())) != 0)
      names.push_back(t.name);
  return names;
}

}  // namespace

TEST_CASE("a run is the same twice, and for any number of threads", "[train]") {
  const Scratch scratch;
  CHECK(run_short(scratch / "a") == Outcome::completed);
  CHECK(run_short(scratch / "b") == Outcome::completed);
  CHECK(run_short(scratch / "c", {}, -1, 3) == Outcome::completed);
  CHECK(newest_bytes(scratch / "a") == newest_bytes(scratch / "b"));
  CHECK(newest_bytes(scratch / "a") == newest_bytes(scratch / "c"));
  CHECK(metrics_of(scratch / "a") == metrics_of(scratch / "c"));
  CHECK(metrics_of(scratch / "a").size() == static_cast<std::size_t>(all_steps));
}

TEST_CASE("a resumed run is the uninterrupted one, at every step and border", "[train]") {
  const Scratch scratch;
  run_short(scratch / "whole");
  for (Index at = 1; at < all_steps; ++at) {
    INFO("interrupted after step " << at);
    const auto out = scratch / ("at" + std::to_string(at));
    CHECK(run_short(out, {}, at) == Outcome::interrupted);
    CHECK(run_short(out) == Outcome::completed);
    CHECK(newest_bytes(out) == newest_bytes(scratch / "whole"));
    CHECK(metrics_of(out) == metrics_of(scratch / "whole"));
  }
}

TEST_CASE("checkpoints in between change nothing", "[train]") {
  const Scratch scratch;
  run_short(scratch / "a");
  run_short(scratch / "b", {"run.save_every=1", "run.keep_last=2", "run.major_every=4"});
  CHECK(newest_bytes(scratch / "a") == newest_bytes(scratch / "b"));
  std::vector<Index> kept;
  for (const auto& [step, path] : checkpoints_of(scratch / "b" / "ckpt")) kept.push_back(step);
  CHECK(kept == std::vector<Index>{4, 8, 12, 14, 15});
}

TEST_CASE("each stage changes what it trains, and no other byte", "[train]") {
  const Scratch scratch;
  run_short(scratch / "a");
  const auto at = [&](Index step) {
    return scratch / "a" / "ckpt" / ("step-" + std::to_string(step));
  };
  for (const std::string& name : changed(at(3), at(6))) {  // the warm-up
    INFO(name);
    CHECK(name.find(".indexer.") != name.npos);
  }
  CHECK(!changed(at(3), at(6)).empty());
  CHECK(changed(at(9), at(12)).empty());  // adapters lie beside the base
  CHECK(!changed(at(12), at(15)).empty());
}

TEST_CASE("a checkpoint with adapters merges into what the model ran with", "[train]") {
  const Scratch scratch;
  run_short(scratch / "a", {"run.steps=12"});
  const auto checkpoint = scratch / "a" / "ckpt" / "step-12";
  merge_adapters(checkpoint, scratch / "merged");
  const std::vector<std::string> names = changed(checkpoint, scratch / "merged");
  CHECK(names.size() == 4);  // o_proj and indexer.wk of two layers
  CHECK(open_checkpoint(scratch / "merged").config.num_hidden_layers == 2);
  CHECK_THROWS_WITH(merge_adapters(checkpoint, scratch / "merged"), Contains("exists already"));
  run_short(scratch / "plain", {"run.steps=3"});
  CHECK_THROWS_WITH(merge_adapters(scratch / "plain" / "ckpt" / "step-3", scratch / "x"),
                    Contains("has no adapters"));
}

TEST_CASE("run.steps ends a run that can go on", "[train]") {
  const Scratch scratch;
  run_short(scratch / "whole");
  CHECK(run_short(scratch / "a", {"run.steps=5"}) == Outcome::stopped);
  CHECK(run_short(scratch / "a") == Outcome::completed);
  CHECK(newest_bytes(scratch / "a") == newest_bytes(scratch / "whole"));
}

TEST_CASE("a resume with another configuration prints the difference and refuses", "[train]") {
  const Scratch scratch;
  run_short(scratch / "a", {"run.steps=2"});
  CHECK_THROWS_WITH(run_short(scratch / "a", {"stage[0].lr=0.5"}),
                    Contains("stage[0].lr: 0.5, was 0.0003") && Contains("run.allow_change=true"));
  CHECK(run_short(scratch / "a", {"stage[0].lr=0.5", "run.allow_change=true", "run.steps=3"}) ==
        Outcome::stopped);
}

TEST_CASE("what run.resume may mean", "[train]") {
  const Scratch scratch;
  run_short(scratch / "a", {"run.steps=4", "run.save_every=2"});
  CHECK_THROWS_WITH(run_short(scratch / "a", {"run.resume=never"}), Contains("holds checkpoints"));
  CHECK_THROWS_WITH(run_short(scratch / "a", {"run.resume=2"}), Contains("beyond step 2"));
  CHECK_THROWS_WITH(run_short(scratch / "b", {"run.resume=9"}), Contains("there is no checkpoint"));
  const std::string from = (scratch / "a" / "ckpt" / "step-2").string();
  run_short(scratch / "c", {"run.resume=" + from});
  run_short(scratch / "whole");
  CHECK(newest_bytes(scratch / "c") == newest_bytes(scratch / "whole"));
}

TEST_CASE("foreign, cut and mismatched checkpoints are sentences", "[train]") {
  const Scratch scratch;
  CHECK_THROWS_WITH(
      run_short(scratch / "a", {"run.resume=" + (sample("v32") / "checkpoint").string()}),
      Contains("has no state.safetensors"));
  run_short(scratch / "b", {"run.steps=1"});
  const auto file = scratch / "b" / "ckpt" / "step-1" / "state.safetensors";
  const std::string bytes = read_text(file);
  write_text(file, bytes.substr(0, bytes.size() / 2));
  CHECK_THROWS_AS(run_short(scratch / "b"), Error);
}

TEST_CASE("two runs in one directory are refused", "[train]") {
  const Scratch scratch;
  const RunDirectory held(scratch / "a");
  CHECK_THROWS_WITH(run_short(scratch / "a"), Contains("another run writes to"));
}

TEST_CASE("a full disk leaves the last checkpoint", "[train]") {
  const Scratch scratch;
  run_short(scratch / "a", {"run.steps=2"});
  const std::string before = newest_bytes(scratch / "a");
  struct rlimit old {};
  getrlimit(RLIMIT_FSIZE, &old);
  const auto ignored = std::signal(SIGXFSZ, SIG_IGN);
  const struct rlimit small { 4096, old.rlim_max };  // logs fit, weights do not
  setrlimit(RLIMIT_FSIZE, &small);
  std::string sentence;
  try {
    run_short(scratch / "a", {"run.steps=3"});
  } catch (const Error& error) {
    sentence = error.what();
  }
  setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, ignored);
  CHECK_THAT(sentence, Contains("cannot write"));
  CHECK(newest_bytes(scratch / "a") == before);
  CHECK(run_short(scratch / "a", {"run.steps=3"}) == Outcome::stopped);
}

TEST_CASE("a loss that is no number ends the run and leaves the batch", "[train]") {
  const Scratch scratch;
  const std::vector<std::string> hot = {"stage[0].lr=1e3", "optimizer.clip=0", "stage[0].steps=60",
                                        "optimizer.eps=1e-30", "optimizer.weight_decay=1e12"};
  CHECK_THROWS_WITH(run_short(scratch / "a", hot),
                    Contains("is no finite number") && Contains("--replay"));
  const auto failed = scratch / "a" / "failed";
  CHECK(std::filesystem::exists(failed));
  const auto directory = std::filesystem::directory_iterator(failed)->path();
  CHECK(!read_batches(directory / "batch.safetensors").empty());
}

TEST_CASE("a stage that does not reach its accuracy ends the run", "[train]") {
  const Scratch scratch;
  CHECK(run_short(scratch / "a", {"stage[0].until_accuracy=0.99"}) == Outcome::gate_not_reached);
  CHECK(read_json(scratch / "a" / "summary.json").at("completed") == false);
  CHECK(run_short(scratch / "a", {"stage[0].until_accuracy=0.99"}) == Outcome::gate_not_reached);
  CHECK(metrics_of(scratch / "a").size() == 3);
}

TEST_CASE("what cannot be trained is named before the first step", "[train]") {
  const Scratch scratch;
  const auto refused = [&](const std::vector<std::string>& overrides, const std::string& with) {
    CHECK_THROWS_WITH(run_short(scratch / "a", overrides), Contains(with));
  };
  refused({"stage[3].kl=0"}, "indexer.wk.weight gets no gradient in this stage");
  refused({"stage[3].lora_targets=[\"q_proj\"]"}, "matches no matrix");
  refused({"stage[0].trained=[\"\\\\.indexer\\\\.\"]"}, "which no parameter matches that a loss");
  refused({"model.family=deepseek_v3"}, "needs an indexer");
  refused({"stage[4].mtp=0.1"}, "has no multi-token-prediction block");
  refused({"data.source=synthetic:sort"}, "there is no synthetic task");
}

TEST_CASE("a dense checkpoint with a fresh indexer keeps its logits", "[train]") {
  const std::string dense = (sample("v3") / "checkpoint").string();
  const Settings settings = settings_of_short_run(
      "unused", {"model.init=" + dense, "model.init_indexer=true", "model.index_head_dim=16"});
  const Start start = start_of(settings);
  REQUIRE(start.model.config.indexer.has_value());
  const Model before = open_checkpoint(dense);
  Batch batch;
  for (const Token token : some_tokens(before, 30)) {
    batch.tokens.push_back(token);
    batch.positions.push_back(batch.rows() - 1);
    batch.begin.push_back(0);
    batch.target_weight.push_back(0);
  }
  TrainedModel a(before, Compute::fp32), b(start.model, Compute::fp32);
  const auto x = a.logits(batch, Recipe::Attention::dense),
             y = b.logits(batch, Recipe::Attention::dense);
  CHECK(std::equal(x.begin(), x.end(), y.begin(), y.end()));
  CHECK_THROWS_WITH(start_of(settings_of_short_run("unused", {"model.init_indexer=true"})),
                    Contains("model.init names none"));
}

TEST_CASE("a run directory is complete", "[train]") {
  const Scratch scratch;
  run_short(scratch / "a");
  const auto out = scratch / "a";
  for (const char* name : {"config.toml", "receipt.json", "metrics.jsonl", "metrics.csv",
                           "summary.json", "tb", "ckpt/step-15/model.safetensors"})
    CHECK(std::filesystem::exists(out / name));
  const std::vector<Json> lines = metrics_of(out);
  for (const char* key :
       {"step", "stage", "tokens", "loss.lm", "grad_norm", "lr", "eval.kl", "recall.indexer",
        "recall.random", "recall.recent", "recall.oracle", "recall.teacher_entropy", "recall.dead",
        "eval.synthetic:recall.accuracy"})
    CHECK(lines[2].contains(key));      // the last step of the first stage, evaluated
  CHECK(lines[8].contains("loss.kl"));  // of the sparse stage
  CHECK(read_text(out / "metrics.csv").starts_with("step,"));
  const Json summary = read_json(out / "summary.json");
  CHECK(summary.at("completed") == true);
  const Json& source = summary.at("sources").at("synthetic:recall");
  for (const char* key : {"sparse, fresh indexer", "sparse, fp8 indexer", "recall, bf16 indexer",
                          "recall, fp8 indexer, no Hadamard"})
    CHECK(source.contains(key));
}
