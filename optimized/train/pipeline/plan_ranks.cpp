#include "optimized/train/pipeline/plan_ranks.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "core/checkpoint_writer.hpp"
#include "optimized/train/pipeline/gradient_sum.hpp"

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

RankPlan rank_plan(const PlannedModel& model, const Stage& stage, int ranks,
                   const Network& network) {
  const std::vector<TrainedSize> trained = trained_sizes(model, stage);
  const Totals totals = totals_of(trained, ranks);
  const Index most = *std::max_element(totals.numbers.begin(), totals.numbers.end());
  const Index parts = stage.recipe.accumulation;
  RankPlan plan;
  plan.ranks = ranks;
  plan.rounds = rounded_up(parts, ranks);
  plan.sent = sent_bytes(trained, parts, ranks);
  const Index chunk = chunk_numbers(static_cast<int>(std::min<Index>(ranks, parts)));
  const double received =
      ranks * parts == 1 ? 0 : as_double(std::min(chunk, most) * std::min<Index>(ranks, parts));
  plan.state = 4 * (2 * as_double(most) + (plan.rounds > 1 ? as_double(most) : 0) + received);
  constexpr double small = 8;  // squares, values; losses, interruptions and their lengths
  plan.messages =
      (ranks - 1) * (as_double(plan.rounds) * as_double(rounded_up(most, chunk)) + small);
  const double flops = flops_a_token(model.config, size_of(model, stage), stage) *
                       as_double(stage.batch / parts * stage.seq);
  plan.compute = as_double(plan.rounds) * flops / (network.gflops * 1e9);
  plan.wire = *std::max_element(plan.sent.begin(), plan.sent.end()) / (network.gbytes * 1e9) +
              plan.messages * network.microseconds * 1e-6;
  return plan;
}

std::string ranks_text(const PlannedModel& model, const std::vector<Stage>& stages,
                       const std::vector<int>& ranks, const Network& network) {
  std::string all = fmt::format(
      "ranks at {:g} GFLOP/s, {:g} GB/s and {:g} microseconds a message; nothing overlaps\n",
      network.gflops, network.gbytes, network.microseconds);
  for (const Stage& stage : stages) {
    const Bytes b = bytes_of(model, size_of(model, stage), stage);
    const double everywhere = b.parameters + b.layouts + b.gradients + b.activations;
    all += fmt::format(
        "\n{}: {} steps of {} micro-batches\n"
        "  {:>5}  {:>6}  {:>9}  {:>9}  {:>9}  {:>9}  {:>9}  {:>8}  {:>7}\n",
        stage.name, stage.steps, stage.recipe.accumulation, "ranks", "rounds", "each has", "share",
        "sent", "compute s", "wire s", "speed-up", "of n");
    const RankPlan alone = rank_plan(model, stage, 1, network);
    for (const int n : ranks)
      all += line_of(rank_plan(model, stage, n, network), alone, everywhere);
  }
  return all;
}

}  // namespace dsa::train
