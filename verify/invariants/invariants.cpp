#include "verify/invariants/invariants.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/checkpoint.hpp"
#include "core/random.hpp"
#include "verify/invariants/parts.hpp"
#include "verify/measure/divergence.hpp"
#include "verify/receipt.hpp"

namespace dsa::verify {
namespace {

/// Outputs that are compared, at most about so many: alpha is split over them.
constexpr Index outputs = 64;

constexpr Index shortest = 48, longest = 256;  // of the default sequence

/// The reason where nothing is known to be wrong, and too little to be right.
std::string what_is_missing(const Invariants& result) {
  if (result.topk > 0 && result.length <= result.topk)
    return fmt::format(
        "{} tokens are no more than index_topk = {}: every selection is the same, right or wrong; "
        "give --length {}",
        result.length, result.topk, 2 * result.topk);
  for (const Invariant& i : result.invariants)
    if (i.held == Held::undecided)
      return i.name +
             " hangs on decisions that rounding may turn; a higher precision, or smaller "
             "weights, would decide it";
  return "";
}

void conclude(Invariants& result) {
  Index held = 0, broken = 0;
  const Invariant* first = nullptr;
  for (const Invariant& i : result.invariants) {
    held += i.held == Held::pass;
    broken += i.held == Held::fail;
    if (i.held == Held::fail && first == nullptr) first = &i;
  }
  if (first != nullptr) {
    result.outcome = Outcome::fail;
    result.why = fmt::format("{} of {} invariants do not hold; the first: {}", broken,
                             held + broken, first->name);
    return;
  }
  const std::string missing = what_is_missing(result);
  result.outcome = missing.empty() && held > 0 ? Outcome::pass : Outcome::inconclusive;
  result.why = result.outcome == Outcome::pass ? fmt::format("all {} invariants hold", held)
               : missing.empty()               ? "nothing could be tested"
                                               : missing;
}

}  // namespace

struct Noise::Measured {
  ModelPair models;
  RunOptions span;
  Run base;
  Limits limits;
  std::optional<FreeRuns> free;
};

Noise::Noise(std::filesystem::path checkpoint, Sequence main, JudgeOptions options)
    : checkpoint_(std::move(checkpoint)), main_(std::move(main)), options_(std::move(options)) {}

Noise::~Noise() = default;

NoiseOptions Noise::told() const {
  NoiseOptions noise = noise_options(options_, measured_->models);
  noise.share = outputs;
  if (options_.progress)
    noise.progress = [this](int done, int of) { options_.progress("limits", done, of); };
  return noise;
}

Variant Noise::drawn(std::uint64_t draw) const {
  return measured_->models.rounded({reference::Rounding::Mode::random, draw});
}

const Limits& Noise::limits() {
  if (measured_) return measured_->limits;
  measured_ = std::make_unique<Measured>();
  Measured& m = *measured_;
  m.models = open_models(checkpoint_, precision());
  m.span.span = {0, m.models.definition.config.num_hidden_layers};
  const Variant definition = m.models.exact();
  m.base = run_reference(definition.model, main_, definition.ops, m.span);
  m.limits = measure_limits([this](std::uint64_t draw) { return drawn(draw); }, main_, m.base,
                            m.span, [](const std::string&) { return false; }, told());
  return m.limits;
}

const Reach& Noise::reach(Index row) {
  limits();
  Measured& m = *measured_;
  if (!m.free)
    m.free = measure_reach([this](std::uint64_t draw) { return drawn(draw); }, main_, m.base,
                           m.span, [](const std::string&) { return false; }, m.limits, told());
  return m.free->reach[static_cast<std::size_t>(row)];
}

std::string Noise::origin() const {
  return fmt::format(
      "1 = twice the KL, or sqrt 2 times the error, that {} perturbed runs ({}) allow",
      options_.runs, name_of(precision()));
}

Index default_length(const Config& config) {
  const Index topk = config.indexer ? config.indexer->topk : 0;
  return std::clamp(2 * topk + topk / 4, shortest, longest);
}

std::vector<Index> points(Index T, Index topk, Index all) {
  std::vector<Index> chosen;
  if (T - 1 <= all) {
    for (Index t = 1; t < T; ++t) chosen.push_back(t);
    return chosen;
  }
  for (const Index t : {Index{1}, topk - 1, topk, topk + 1, T - 1})
    if (1 <= t && t < T) chosen.push_back(t);
  const Index rest = std::max<Index>(1, all - static_cast<Index>(chosen.size()));
  for (Index i = 1; i <= rest; ++i) chosen.push_back(std::max<Index>(1, i * (T - 1) / (rest + 1)));
  std::sort(chosen.begin(), chosen.end());
  chosen.erase(std::unique(chosen.begin(), chosen.end()), chosen.end());
  return chosen;
}

std::string told(const std::vector<Index>& chosen, Index T, const std::string& noun) {
  if (static_cast<Index>(chosen.size()) == T - 1) return fmt::format("all {} {}", T - 1, noun);
  return fmt::format("{} of {} {}: {}", chosen.size(), T - 1, noun, fmt::join(chosen, ", "));
}

Invariants check_invariants(const std::filesystem::path& checkpoint,
                            const Implementation& implementation, const InvariantOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const Config config = read_config(checkpoint);
  require(
      options.length == 0 || options.length >= 2,
      "--length " + std::to_string(options.length) + " leaves nothing to compare; give 2 or more");
  const Index T = options.length > 0 ? options.length : default_length(config);
  const std::uint64_t seed = options.judge.seed;
  std::vector<Token> tokens;
  for (Index t = 0; t < T; ++t)
    tokens.push_back(static_cast<Token>(random_bits(seed, static_cast<std::uint64_t>(t)) %
                                        static_cast<std::uint64_t>(config.vocab_size)));
  const Sequence main = plain_sequence(tokens);
  const Recording output = implementation.run({main});
  JudgeOptions judge = options.judge;
  if (!judge.precision) judge.precision = precision_of_dtype(output.dtype);
  Noise noise(checkpoint, main, judge);
  const Asked asked{config, implementation, main, output.logits.front(), seed, judge.progress};

  Invariants result{checkpoint.string(),
                    implementation.name,
                    std::string(name_of(*judge.precision)),
                    T,
                    asked.topk(),
                    logits_invariants(asked, noise)};
  for (Invariant& i : inside_invariants(asked, noise)) result.invariants.push_back(std::move(i));
  conclude(result);
  result.receipt = make_receipt(checkpoint, checkpoint / "config.json", std::nullopt);
  result.receipt.golden_sha256.clear();
  result.receipt.draws = judge;
  result.receipt.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace dsa::verify
