// What must hold of a trained model besides its gradients' values: who is left alone, what adds up,
// and that nothing depends on the number of threads.
#include <cstring>

#include "optimized/train/pipeline/evaluation.hpp"
#include "optimized/train/pipeline/names.hpp"
#include "tests/train/support.hpp"

using namespace dsa;
using namespace dsa::test;
using Catch::Matchers::Contains;
using reference::Precision;
using train::Batch;
using train::Compute;
using train::TrainedModel;

namespace {

struct Task {
  Model model;
  Sequence sequence;
  Objective<double> objective;
  train::Objective factors;
  Batch batch;

  explicit Task(const Model& from, const std::vector<Index>& documents, bool dense = false)
      : model(reference::loaded_as(from, Precision::hf_fp32)) {
    model.config.use_sparse_attention = !dense;
    sequence = documents_of(model.config, documents, 3);
    objective = every_loss(model, sequence, dense ? in_warmup({}) : KlSemantics{});
    factors = as_factors(objective, model.config, sequence, dense);
    batch = batch_of(sequence);
  }
};

bool same(const Gradients& a, const Gradients& b) {
  if (a.size() != b.size()) return false;
  for (const auto& [name, g] : a)
    if (std::memcmp(g.data(), b.at(name).data(), g.size() * sizeof(double)) != 0) return false;
  return true;
}

void fill(train::Parameters& parameters, const Config& config, float value) {
  for_each_tensor(parameters, config, [&](const std::string&, train::Leaf& leaf, const auto&) {
    std::fill(leaf.begin(), leaf.end(), value);
  });
}

bool all_are(const std::vector<double>& g, double value) {
  return std::all_of(g.begin(), g.end(), [&](double x) { return x == value; });
}

/// The rows of one document of a batch.
Batch part_of(const Batch& batch, Index begin, Index end) {
  Batch part;
  const auto cut = [&](auto& to, const auto& from) {
    to.assign(from.begin() + begin, from.begin() + end);
  };
  cut(part.tokens, batch.tokens);
  cut(part.positions, batch.positions);
  cut(part.begin, batch.begin);
  cut(part.target_weight, batch.target_weight);
  for (std::int32_t& b : part.begin) b -= static_cast<std::int32_t>(begin);
  return part;
}

double total(const train::Losses& losses, const train::Objective& factors) {
  double sum = losses.lm * factors.lm + losses.mtp * factors.mtp + losses.balance * factors.balance;
  for (const double kl : losses.kl) sum += kl * factors.kl;
  return sum;
}

}  // namespace

TEST_CASE("a step is the same bits for any number of threads", "[train]") {
  const Task sparse(golden_model("v32calm"), {70, 41}), mtp(random_model(with_mtp(), 5), {30, 17});
  for (const Task* task : {&sparse, &mtp})
    for (const Compute compute : {Compute::fp32, Compute::bf16}) {
      const Trained one = train_once(task->model, task->batch, task->factors, 1, compute);
      const Trained three = train_once(task->model, task->batch, task->factors, 3, compute);
      CHECK(same(one.gradients, three.gradients));
      CHECK(one.losses.lm == three.losses.lm);
      CHECK(one.losses.kl == three.losses.kl);
      CHECK(one.losses.balance == three.losses.balance);
      CHECK(one.losses.mtp == three.losses.mtp);
    }
}

TEST_CASE("micro-batches add up", "[train]") {
  const Task task(golden_model("v32calm"), {31, 26});
  const Defined want = define(task.model, task.sequence, task.objective);
  TrainedModel trained(task.model, Compute::fp32);
  const auto first = trained.run(part_of(task.batch, 0, 31), task.factors, everything);
  const auto second = trained.run(part_of(task.batch, 31, 57), task.factors, everything);
  const Noise noise = noise_of(task.model, task.sequence, task.objective, want);
  train::Losses both = first;
  both.lm += second.lm, both.lm_weight += second.lm_weight;
  both.mtp += second.mtp, both.mtp_weight += second.mtp_weight;
  both.balance += second.balance, both.kl_rows += second.kl_rows;
  for (std::size_t l = 0; l < both.kl.size(); ++l) both.kl[l] += second.kl[l];
  check_losses(both, task.factors, want, noise, task.model.config, task.sequence);
  check_gradients(values_of(trained.gradients(), task.model.config), want, noise);
}

TEST_CASE("a second run after other batches is the first, bit for bit", "[train]") {
  const Task task(golden_model("v32calm"), {31, 26});
  TrainedModel trained(task.model, Compute::fp32);
  trained.run(task.batch, task.factors, everything);
  const Gradients first = values_of(trained.gradients(), task.model.config);
  trained.run(part_of(task.batch, 0, 31), task.factors, everything);
  trained.logits(task.batch, Recipe::Attention::dense);
  fill(trained.gradients(), task.model.config, 0);
  trained.run(task.batch, task.factors, everything);
  CHECK(same(first, values_of(trained.gradients(), task.model.config)));
}

TEST_CASE("what is not trained is left alone", "[train]") {
  const Task task(random_model(with_mtp(), 5), {14, 11});
  const Gradients all = train_once(task.model, task.batch, task.factors).gradients;
  for (const std::string part : {"layers.1.self_attn.o_proj", "layers.0.mlp.up_proj", "lm_head",
                                 "embed_tokens", ".indexer.wk", "layers.2.eh_proj"}) {
    TrainedModel trained(task.model, Compute::fp32);
    fill(trained.gradients(), task.model.config, 7);
    trained.run(task.batch, task.factors,
                [&](const std::string& name) { return name.find(part) != std::string::npos; });
    for (const auto& [name, g] : values_of(trained.gradients(), task.model.config)) {
      INFO("of " << part << ": " << name);
      const bool is_trained = name.find(part) != std::string::npos;
      CHECK(all_are(g, 7) == (!is_trained || all_are(all.at(name), 0)));
    }
  }
}

TEST_CASE("the indexer's loss gives everything else exactly nothing, and the others nothing to it",
          "[train]") {
  const Task task(golden_model("v32calm"), {40, 25});
  train::Objective kl_only = task.factors, without_kl = task.factors;
  kl_only.lm = kl_only.balance = without_kl.kl = 0;
  const Trained by_kl = train_once(task.model, task.batch, kl_only),
                others = train_once(task.model, task.batch, without_kl);
  for (const auto& [name, g] : by_kl.gradients) {
    INFO(name);
    if (of_correction_bias(name)) continue;
    CHECK(all_are(g, 0) == !of_indexer(name));
    if (of_indexer(name)) CHECK(all_are(others.gradients.at(name), 0));
  }
  CHECK(by_kl.losses.kl.size() == 4);
  CHECK(by_kl.losses.kl_rows == 65);
  CHECK(others.losses.kl.empty());
}

TEST_CASE("without anything trained there are the same losses", "[train]") {
  const Task task(random_model(with_mtp(), 5), {14, 11});
  TrainedModel trained(task.model, Compute::fp32);
  const auto with = trained.run(task.batch, task.factors, everything);
  const auto without = trained.run(task.batch, task.factors, {});
  CHECK(total(with, task.factors) == total(without, task.factors));
  CHECK(with.load == without.load);
  REQUIRE(with.load.size() == 2);  // layer 1 and the prediction block
  CHECK(with.load[0][0] + with.load[0][1] + with.load[0][2] + with.load[0][3] == 2 * 25);
}

TEST_CASE("a step against the gradient lowers the loss by what the gradient says", "[train]") {
  const Task task(golden_model("v3"), {37, 29}, true);
  TrainedModel trained(task.model, Compute::fp32);
  const Config& config = task.model.config;
  const double before = total(trained.run(task.batch, task.factors, everything), task.factors);
  double squares = 0;
  for (const auto& [name, g] : values_of(trained.gradients(), config))
    squares += verify::norm(g) * verify::norm(g);
  const double expected = 1e-3;  // small beside the loss, large beside the rounding of its sum
  std::vector<train::Leaf*> gradients;
  for_each_tensor(
      trained.gradients(), config,
      [&](const std::string&, train::Leaf& g, const auto&) { gradients.push_back(&g); });
  auto next = gradients.begin();
  for_each_tensor(trained.parameters(), config,
                  [&](const std::string&, train::Leaf& p, const auto&) {
                    const train::Leaf& g = **next++;
                    for (Index i = 0; i < p.size(); ++i)
                      p.data()[i] -= static_cast<float>(expected / squares) * g.data()[i];
                  });
  trained.refresh();
  const double after = total(trained.run(task.batch, task.factors, {}), task.factors);
  CHECK(before - after > 0.9 * expected);
  CHECK(before - after < 1.1 * expected);
}

TEST_CASE("bf16 products: as far from the definition as a right bf16 run", "[train]") {
  const Task task(golden_model("v32calm"), {37, 29}, true);
  const Defined want = define(task.model, task.sequence, task.objective);
  const Model narrow = reference::loaded_as(task.model, Precision::hf_bf16);
  const Noise noise = noise_of(narrow, task.sequence, task.objective, want, Precision::hf_bf16);
  const Trained got = train_once(task.model, task.batch, task.factors, 1, Compute::bf16);
  check_gradients(got.gradients, want, noise);
  const Trained wide = train_once(task.model, task.batch, task.factors);
  CHECK_FALSE(same(got.gradients, wide.gradients));
}

TEST_CASE("logits are the definition's", "[train]") {
  const Task task(golden_model("v32calm"), {37, 29});
  const auto logits_with = [&](const reference::Ops<double>& ops) {
    const Threads scope(1);
    reference::Cache<double> cache;
    const auto z = reference::forward<double>({task.model, ops}, task.sequence, cache);
    return std::vector<double>(z.begin(), z.end());
  };
  const std::vector<double> want = logits_with(reference::definition<double>());
  std::vector<std::vector<double>> draws(1);
  for (std::uint64_t seed = 0; seed < 4; ++seed)
    draws[0].push_back(
        verify::distance(
            logits_with(reference::ops_of(
                Precision::hf_fp32, {reference::Rounding::Mode::random, seed}, task.model.config)),
            want)
            .whole);
  TrainedModel trained(task.model, Compute::fp32);
  const auto got = trained.logits(task.batch, Recipe::Attention::sparse);
  CHECK(verify::distance({got.begin(), got.end()}, want).whole <=
        verify::DistanceLimits(draws).of(0, 1e-6));
}

TEST_CASE("recall is measured over dense attention, layer by layer", "[train]") {
  const Task task(golden_model("glm"), {90, 40});
  TrainedModel trained(task.model, Compute::fp32);
  const auto recall = trained.recall(task.batch, 8);
  REQUIRE(recall.size() == 3);
  for (const Recall& r : recall) {
    CHECK(r.rows == (90 - 32) + (40 - 32));
    CHECK(r.oracle >= r.indexer);
    CHECK(r.oracle >= r.recent);
    CHECK(r.indexer > 0);
    CHECK(r.oracle < 1);
  }
  // The teacher does not change; what eight bits of q and k find of it does, by little.
  const auto rounded = trained.recall(task.batch, 8, train::IndexFormat::e4m3);
  for (std::size_t l = 0; l < recall.size(); ++l) {
    CHECK(rounded[l].oracle == recall[l].oracle);
    CHECK(rounded[l].indexer != recall[l].indexer);
    CHECK(rounded[l].indexer <= recall[l].oracle);
  }
  train::Objective objective = task.factors;
  objective.kl = 1;
  objective.index_format = train::IndexFormat::bf16;
  CHECK_THROWS_WITH(trained.run(task.batch, objective, {}), Contains("have no gradient"));
}

TEST_CASE("keys are rounded as well as queries where an indexer is run in a format", "[train]") {
  // Keys that differ by less than half a last place of bf16, and are 0 where they are rotated: in
  // bf16 they are one key, as where they do not differ.
  const Task task(golden_model("glm"), {90, 40});
  const auto recall = [&](float differ, train::IndexFormat format) {
    TrainedModel trained(task.model, Compute::fp32);
    const Index rotated = task.model.config.qk_rope_head_dim;
    for (const train::Trained& one : train::parameters_of(trained)) {
      const auto fill = [&](float value) {
        std::fill(one.value->begin(), one.value->begin() + rotated, 0.0f);
        std::fill(one.value->begin() + rotated, one.value->end(), value);
      };
      if (one.name.ends_with("indexer.k_norm.weight")) fill(differ);
      if (one.name.ends_with("indexer.k_norm.bias")) fill(1);
    }
    trained.refresh();
    return trained.recall(task.batch, 8, format);
  };
  const auto exact = recall(1e-4f, train::IndexFormat::exact),
             rounded = recall(1e-4f, train::IndexFormat::bf16),
             equal = recall(0, train::IndexFormat::exact);
  for (std::size_t l = 0; l < exact.size(); ++l) {
    CHECK(rounded[l].indexer == equal[l].indexer);
    CHECK(exact[l].indexer != equal[l].indexer);
  }
}

TEST_CASE("a score is the mean over all batches of weighted cross entropy and of right answers",
          "[train]") {
  const Task task(golden_model("v32calm"), {31, 26});
  std::vector<Batch> parts = {part_of(task.batch, 0, 31), part_of(task.batch, 31, 57)};
  parts[0].target_weight[3] = 2.5;
  parts[1].target_weight[7] = 0;
  TrainedModel trained(task.model, Compute::fp32);
  train::Objective objective;
  objective.lm = 1;
  double lm = 0, weight = 0, right = 0;
  Index targets = 0;
  for (Batch& part : parts) {
    // Every third target is what the model says.
    const auto logits = trained.logits(part, Recipe::Attention::sparse);
    for (Index t = 0; t < part.rows(); ++t) {
      const auto at = static_cast<std::size_t>(t);
      if (part.target_weight[at] == 0) continue;
      const auto row = logits.view()[t];
      const auto best = static_cast<Token>(std::max_element(row.begin(), row.end()) - row.begin());
      if (t % 3 == 0 && part.target_weight[at] == 1) part.tokens[at + 1] = best;
    }
  }
  for (const Batch& part : parts) {
    const train::Losses losses = trained.run(part, objective, {});
    lm += losses.lm, weight += losses.lm_weight;
    const auto logits = trained.logits(part, Recipe::Attention::sparse);
    for (Index t = 0; t < part.rows(); ++t) {
      const auto at = static_cast<std::size_t>(t);
      if (part.target_weight[at] == 0) continue;
      const auto row = logits.view()[t];
      const Index rank = std::count_if(row.begin(), row.end(),
                                       [&](float z) { return z > row(part.tokens[at + 1]); });
      right += rank == 0 ? 1 : 0;
      ++targets;
    }
  }
  ranks::Communicator alone;
  const train::Score score = score_of(trained, parts, {"sparse"}, alone);
  CHECK(score.targets == targets);
  CHECK(targets == 30 + 25 - 1);
  CHECK(right > 0);
  CHECK(right < static_cast<double>(targets));
  CHECK(score.accuracy == right / static_cast<double>(targets));
  // fp32 logits, of about 200 terms a row: the two sum them each in its own order.
  CHECK(std::abs(score.lm - lm / weight) < 57 * 200 * 0x1p-24);
}

TEST_CASE("a batch or an objective that does not fit is refused with a sentence", "[train]") {
  const Task task(golden_model("v3"), {6, 5}, true);
  TrainedModel trained(task.model, Compute::fp32);
  const auto run = [&](auto change) {
    Batch batch = task.batch;
    train::Objective objective = task.factors;
    change(batch, objective);
    trained.run(batch, objective, everything);
  };
  CHECK_THROWS_WITH(run([](Batch& b, auto&) { b = {}; }), Contains("has no rows"));
  CHECK_THROWS_WITH(run([](Batch& b, auto&) { b.positions.pop_back(); }),
                    Contains("10 positions, expected one for each of 11 tokens"));
  CHECK_THROWS_WITH(run([](Batch& b, auto&) { b.target_weight[5] = 1; }),
                    Contains("row 5 of a batch ends its document"));
  CHECK_THROWS_WITH(run([](Batch& b, auto&) { b.tokens[3] = 1000; }),
                    Contains("expected one of a vocabulary of 223"));
  CHECK_THROWS_WITH(run([](Batch&, auto& o) { o.kl = 1; }), Contains("has no indexer"));
  CHECK_THROWS_WITH(run([](Batch&, auto& o) { o.mtp = 1; }),
                    Contains("no multi-token-prediction block"));
  CHECK_THROWS_WITH(trained.recall(task.batch), Contains("has no indexer"));
}
