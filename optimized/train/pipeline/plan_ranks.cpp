#include "optimized/train/pipeline/plan_ranks.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "core/check.hpp"
#include "core/checkpoint_writer.hpp"
#include "optimized/train/pipeline/gradient_sum.hpp"
#include "optimized/train/pipeline/names.hpp"

namespace dsa::train {
namespace {

double as_double(Index n) { return static_cast<double>(n); }

Index rounded_up(Index n, Index by) { return (n + by - 1) / by; }

struct Totals {
  std::vector<Index> numbers, blocks;  // by rank
};

Totals totals_of(const std::vector<TrainedSize>& trained, int ranks) {
  const auto n = static_cast<std::size_t>(ranks);
  Totals totals{std::vector<Index>(n), std::vector<Index>(n)};
  for (const TrainedSize& one : trained) {
    const std::vector<Index> sizes = share_sizes(one.name, one.size, ranks);
    for (std::size_t r = 0; r < n; ++r) {
      totals.numbers[r] += sizes[r];
      totals.blocks[r] += rounded_up(sizes[r], numbers_of_a_block);
    }
  }
  return totals;
}

std::string bytes(double n) { return bytes_text(static_cast<Index>(n)); }

/// Operations of a token that every rank does for the keys of all rows: heads are made of latents.
double shared_flops(const Config& c, const Stage& stage) {
  const double factors = as_double(c.num_hidden_layers) * as_double(c.kv_lora_rank) *
                         as_double(c.num_attention_heads) *
                         as_double(c.qk_nope_head_dim + c.v_head_dim);
  return 2 * factors * (stage.recipe.lm > 0 ? 4 : 1);
}

std::string line_of(const RankPlan& plan, const RankPlan& alone, double parameters) {
  const double most = *std::max_element(plan.sent.begin(), plan.sent.end());
  const double speedup = alone.seconds() / plan.seconds();
  return fmt::format(
      "  {:>5}  {:>6}  {:>9}  {:>9}  {:>9}  {:>9.4g}  {:>9.4g}  {:>8.4g}  {:>5.1f} %\n", plan.ranks,
      plan.rounds, bytes(parameters), bytes(plan.state), bytes(most), plan.compute, plan.wire,
      speedup, 100 * speedup / plan.ranks);
}

}  // namespace

std::vector<double> sent_bytes(const std::vector<TrainedSize>& trained, Index parts, int ranks) {
  const Totals totals = totals_of(trained, ranks);
  Index all = 0;
  for (const Index numbers : totals.numbers) all += numbers;
  std::vector<double> sent;
  for (int r = 0; r < ranks; ++r) {
    const auto i = static_cast<std::size_t>(r);
    const Index mine = r < parts ? rounded_up(parts - r, ranks) : 0;
    sent.push_back(as_double(mine * 4 * (all - totals.numbers[i]) +
                             (ranks - 1) * (4 * totals.numbers[i] + 8 * totals.blocks[i])));
  }
  return sent;
}

double context_bytes(const PlannedModel& model, const Stage& stage, int context) {
  const Config& c = model.config;
  const Recipe& recipe = stage.recipe;
  const bool flows = recipe.kl > 0 && recipe.semantics.detach != KlSemantics::Detach::inputs;
  const bool goes_back = recipe.lm > 0 || flows, learns = recipe.kl > 0;
  const bool has_index = learns || recipe.attention == Recipe::Attention::sparse;
  const Index main =
      c.num_hidden_layers * (c.kv_lora_rank + c.qk_rope_head_dim) * (goes_back ? 3 : 1);
  const Index index = has_index && c.indexer ? index_layers(c) * c.indexer->head_dim *
                                                   (1 + (learns ? 1 : 0) + (flows ? 1 : 0))
                                             : 0;
  const Index T = stage.batch / recipe.accumulation * stage.seq;
  return 4 * as_double(T) * (context - 1) / context * as_double(main + index);
}

RankPlan rank_plan(const PlannedModel& model, const Stage& stage, int ranks, const Network& network,
                   int context) {
  require(ranks % context == 0, "a job of " + std::to_string(ranks) +
                                    " ranks cannot have run.context_ranks=" +
                                    std::to_string(context) + "; plan for a multiple of it");
  const std::vector<TrainedSize> trained = trained_sizes(model, stage);
  const Totals totals = totals_of(trained, ranks);
  const Index most = *std::max_element(totals.numbers.begin(), totals.numbers.end());
  const Index parts = stage.recipe.accumulation * context;
  RankPlan plan;
  plan.ranks = ranks;
  plan.rounds = rounded_up(parts, ranks);
  plan.sent = sent_bytes(trained, parts, ranks);
  const double to_context = context_bytes(model, stage, context);
  for (int r = 0; r < ranks; ++r)
    plan.sent[static_cast<std::size_t>(r)] +=
        r < parts ? to_context * as_double(rounded_up(parts - r, ranks)) : 0;
  const Index chunk = chunk_numbers(static_cast<int>(std::min<Index>(ranks, parts)));
  const double received =
      ranks * parts == 1 ? 0 : as_double(std::min(chunk, most) * std::min<Index>(ranks, parts));
  plan.state = 4 * (2 * as_double(most) + (plan.rounds > 1 ? as_double(most) : 0) + received);
  constexpr double small = 8;  // squares, values; losses, interruptions and their lengths
  plan.messages =
      (ranks - 1) * (as_double(plan.rounds) * as_double(rounded_up(most, chunk)) + small);
  const double of_all = shared_flops(model.config, stage),
               a_token =
                   (flops_a_token(model.config, size_of(model, stage), stage) - of_all) / context +
                   of_all;
  const double flops = a_token * as_double(stage.batch / stage.recipe.accumulation * stage.seq);
  plan.compute = as_double(plan.rounds) * flops / (network.gflops * 1e9);
  plan.wire = *std::max_element(plan.sent.begin(), plan.sent.end()) / (network.gbytes * 1e9) +
              plan.messages * network.microseconds * 1e-6;
  return plan;
}

std::string ranks_text(const PlannedModel& model, const std::vector<Stage>& stages,
                       const std::vector<int>& ranks, const Network& network, int context) {
  std::string all = fmt::format(
      "ranks at {:g} GFLOP/s, {:g} GB/s and {:g} microseconds a message; nothing overlaps\n",
      network.gflops, network.gbytes, network.microseconds);
  for (const Stage& stage : stages) {
    const Bytes b = bytes_of(model, size_of(model, stage), stage);
    const double everywhere =
        b.parameters + b.layouts + b.gradients + (b.activations - b.keys) / context + b.keys;
    all += fmt::format(
        "\n{}: {} steps of {} micro-batches{}\n"
        "  {:>5}  {:>6}  {:>9}  {:>9}  {:>9}  {:>9}  {:>9}  {:>8}  {:>7}\n",
        stage.name, stage.steps, stage.recipe.accumulation,
        context > 1 ? fmt::format(", each on {} ranks, which send each other {} of it", context,
                                  bytes(context_bytes(model, stage, context)))
                    : "",
        "ranks", "rounds", "each has", "share", "sent", "compute s", "wire s", "speed-up", "of n");
    const RankPlan alone = rank_plan(model, stage, 1, network);
    for (const int n : ranks)
      all += line_of(rank_plan(model, stage, n, network, context), alone, everywhere);
  }
  return all;
}

}  // namespace dsa::train
