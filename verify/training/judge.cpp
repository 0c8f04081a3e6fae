#include "verify/training/judge.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "core/checkpoint.hpp"
#include "verify/receipt.hpp"
#include "verify/report/text.hpp"
#include "verify/training/defects.hpp"
#include "verify/training/recipe_of.hpp"
#include "verify/training/turned.hpp"

namespace dsa::verify {
namespace {

using reference::Precision;

/// Files and recipe fit each other.
void check_inputs(const Trajectory& trusted, const Trajectory& file, const Recipe& recipe,
                  const Model& model) {
  const auto tokens = [](const Trajectory& t) {
    std::vector<std::vector<Token>> all;
    for (const Sequence& batch : t.batches) all.push_back(batch.tokens);
    return all;
  };
  require(tokens(trusted) == tokens(file) && trusted.sequences == file.sequences,
          file.path.string() + " was trained on other tokens than " + trusted.path.string() +
              "; run it on those");
  require(recipe.kl == 0 || model.config.indexer,
          "the recipe has an indexer's KL and the model has no indexer; say \"kl\": 0");
  require(recipe.mtp == 0 || !model.weights.mtp.empty(),
          "the recipe has a multi-token-prediction loss and the checkpoint no such block; say "
          "\"mtp\": 0");
  require(trusted.sequences % recipe.accumulation == 0,
          "the recipe cuts a batch into " + std::to_string(recipe.accumulation) +
              " equal parts, and one has " + std::to_string(trusted.sequences) + " sequences");
}

void depart(TrainingVerdict& v) {
  const QuantityResult* first = nullptr;
  for (const QuantityResult& r : v.quantities)
    if (!r.ok() && (first == nullptr || r.first < first->first)) first = &r;
  if (first != nullptr) {
    v.first_departure = fmt::format("{} of step {}", first->name, first->first);
    return;
  }
  for (const FinalResult& r : v.finals)
    if (!r.missing && !r.ok()) {
      v.first_departure = "final " + r.name;
      return;
    }
}

/// Does any row of the batches see more keys than are chosen?
bool sees_selection(const Trajectory& t, const Recipe& recipe, const Config& config) {
  if (recipe.attention == Recipe::Attention::dense || !config.indexer) return true;
  return t.batches.front().size() / t.sequences > config.indexer->topk;
}

std::string names_of(const std::vector<KnownCause>& causes) {
  std::string all;
  for (const KnownCause& cause : causes) all += (all.empty() ? "" : ", or ") + cause.name;
  return all;
}

void conclude_departed(TrainingVerdict& v) {
  const auto wrong_finals = std::count_if(v.finals.begin(), v.finals.end(),
                                          [](const auto& r) { return !r.missing && !r.ok(); });
  const std::string where =
      fmt::format("the first departure from the recipe is {}; {} of {} depart", *v.first_departure,
                  wrong_finals, plural(static_cast<Index>(v.finals.size()), "final parameter"));
  if (!v.causes.empty()) {
    v.outcome = Outcome::fail;
    v.why = names_of(v.causes) + ": " + v.causes.front().sentence + "; " + where;
  } else if (v.undecided_from >= 0) {
    v.outcome = Outcome::inconclusive;
    v.why =
        fmt::format("{}; a decision of step {} lies within the noise and moves a right run as far",
                    where, v.undecided_from);
  } else {
    v.outcome = Outcome::fail;
    v.why = where + "; no known defect explains it";
  }
}

void conclude(TrainingVerdict& v, bool sees) {
  const auto missing = std::count_if(v.finals.begin(), v.finals.end(),
                                     [](const FinalResult& r) { return r.missing; });
  if (v.first_departure) return conclude_departed(v);
  if (missing > 0) {
    v.why = fmt::format("{} the trajectory has, and your file lacks; what is there is right",
                        plural(missing, "final parameter"));
  } else if (!sees) {
    v.why =
        "no row sees more keys than index_topk chooses, so every key is chosen: the sparse stage "
        "cannot be seen; take longer sequences";
  } else {
    v.outcome = Outcome::pass;
    v.why = fmt::format("{} and {} lie within their limits", plural(v.steps, "step"),
                        plural(static_cast<Index>(v.finals.size()), "final parameter"));
    if (!v.turned.empty())
      v.why += fmt::format(", once {} that rounding may turn {} turned",
                           plural(static_cast<Index>(v.turned.size()), "decision"),
                           v.turned.size() == 1 ? "is" : "are");
  }
}

/// Routed experts are most of a model, and often left out: the losses see them. What else is
/// missing counts.
void leave_out_experts(TrainingVerdict& v) {
  const auto missing_expert = [](const FinalResult& r) {
    return r.missing && r.name.find(".mlp.experts.") != r.name.npos;
  };
  const auto all = std::count_if(v.finals.begin(), v.finals.end(), [](const FinalResult& r) {
    return r.name.find(".mlp.experts.") != r.name.npos;
  });
  const auto missing = std::count_if(v.finals.begin(), v.finals.end(), missing_expert);
  if (missing == 0 || missing < all) return;
  std::erase_if(v.finals, missing_expert);
  v.notes.push_back("your file leaves the routed experts out: " + plural(missing, "parameter") +
                    " of the trajectory");
}

void judge(TrainingVerdict& v, const Model& model, const Trajectory& trusted,
           const Trajectory& file, Precision precision, const Draws& draws) {
  const Rehearsal rehearsal = rehearse(model, v.recipe, file, precision, draws);
  const TrainingLimits limits(rehearsal, model, v.recipe, file, precision, draws);
  const Comparison comparison(file, rehearsal, limits);
  v.quantities = comparison.quantities(rehearsal.base);
  v.finals = comparison.finals(*rehearsal.end, trusted.finals);
  depart(v);
  if (v.first_departure) {
    const Turned turned = turn_decisions(comparison, rehearsal, file.batches);
    if (turned.explains) {
      v.turned = turned.turns;
      v.quantities = comparison.quantities(turned.expected);
      v.finals = comparison.finals(*turned.end, trusted.finals);
      v.first_departure.reset();
    } else {
      v.causes = causes_of(comparison, model, v.recipe, file);
      if (turned.may_explain) v.undecided_from = turned.first;
    }
  }
  leave_out_experts(v);
  conclude(v, sees_selection(file, v.recipe, model.config));
}

}  // namespace

TrainingVerdict judge_training(const std::string& checkpoint, const std::string& trajectory,
                               const std::string& candidate, const TrainingOptions& options) {
  const MemoryWatch memory;
  const Model model = resident(open_checkpoint(checkpoint), Index{1} << 30);
  const Trajectory trusted =
      read_trajectory(trajectory, model.config, candidate.empty() ? options.names : "");
  const Trajectory file =
      candidate.empty() ? trusted : read_trajectory(candidate, model.config, options.names);
  const KnownRecipe known = recipe_of(trusted, model, options.recipe);
  check_inputs(trusted, file, known.recipe, model);
  const Precision precision =
      options.precision ? *options.precision : reference::precision_named(file.precision);
  require(precision == Precision::fp64 || precision == Precision::hf_fp32 ||
              precision == Precision::hf_bf16,
          "training is judged at fp64, hf-fp32 or hf-bf16, not at " +
              std::string(reference::name_of(precision)));

  TrainingVerdict v;
  v.checkpoint = checkpoint, v.trajectory = trajectory, v.candidate = candidate;
  v.precision = reference::name_of(precision);
  v.recipe = known.recipe, v.recipe_from = known.from;
  v.steps = file.size();
  judge(v, model, trusted, file, precision, options);
  if (known.assumed && candidate.empty())
    v.notes.push_back("the recipe is read from the run that it judges: give --recipe");
  v.receipt = make_receipt(
      checkpoint, trajectory,
      candidate.empty() ? std::nullopt : std::optional<std::filesystem::path>(candidate));
  v.receipt.draws = options;
  v.receipt.peak_memory_mib = memory.peak_mib();
  return v;
}

}  // namespace dsa::verify
