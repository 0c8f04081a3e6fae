#include "verify/training/defects.hpp"

#include <algorithm>

#include "core/threads.hpp"

namespace dsa::verify {
namespace {

using Defects = std::vector<TrainingDefect>;

/// The limits are those of the recipe's own run; another's may be somewhat wider.
constexpr double elsewhere = 4;

void add_clips(Defects& all) {
  all.push_back({"no-clip", "the gradient norm is computed, and nothing is clipped",
                 [](Procedure& p) { p.recipe.clip.max_norm = 0; }});
  all.push_back({"clip-per-parameter", "each parameter's gradient is clipped by its own norm",
                 [](Procedure& p) { p.clip_over = Procedure::ClipOver::parameter; }});
  all.push_back({"clip-by-value", "each number of the gradient is clipped, not its norm",
                 [](Procedure& p) { p.clip_over = Procedure::ClipOver::number; }});
  all.push_back({"norm-after-clip", "training is right; grad_norm is what the clip leaves",
                 [](Procedure& p) { p.clipped_norm_recorded = true; }});
}

void add_schedules(Defects& all) {
  all.push_back({"schedule-late", "step n uses the rate of step n - 1, the first step rate 0",
                 [](Procedure& p) { p.schedule_shift = -1; }});
  all.push_back({"schedule-early", "step n uses the rate of step n + 1",
                 [](Procedure& p) { p.schedule_shift = 1; }});
  all.push_back({"schedule-constant", "the rate never leaves its full value", [](Procedure& p) {
                   p.recipe.schedule.kind = Schedule::Kind::constant;
                   p.recipe.schedule.warmup = 0;
                 }});
  all.push_back({"no-warmup", "the schedule's steps of warm-up are left out",
                 [](Procedure& p) { p.recipe.schedule.warmup = 0; }});
  all.push_back({"no-rate-decay", "after the warm-up the rate stays at its full value",
                 [](Procedure& p) { p.recipe.schedule.kind = Schedule::Kind::constant; }});
  all.push_back({"decay-unscheduled",
                 "weight decay is taken at the full rate, not at the scheduled one",
                 [](Procedure& p) { p.decay_scheduled = false; }});
}

void add_moments(Defects& all) {
  all.push_back({"no-bias-correction", "the moments are used without their bias correction",
                 [](Procedure& p) { p.recipe.adamw.bias_correction = false; }});
  all.push_back({"bias-correction-late", "the bias correction counts one step more than were taken",
                 [](Procedure& p) { p.correction_shift = 1; }});
  all.push_back({"moments-lost", "the moments begin anew at every step",
                 [](Procedure& p) { p.moments_kept = false; }});
  all.push_back({"no-first-moment", "beta1 is 0: the update follows the last gradient alone",
                 [](Procedure& p) { p.recipe.adamw.beta1 = 0; }});
  all.push_back({"betas-swapped", "beta1 and beta2 change places",
                 [](Procedure& p) { std::swap(p.recipe.adamw.beta1, p.recipe.adamw.beta2); }});
  for (const double beta2 : {0.999, 0.98, 0.95, 0.99})
    all.push_back({"beta2-" + std::to_string(beta2).substr(0, 5),
                   "beta2 is " + std::to_string(beta2).substr(0, 5),
                   [=](Procedure& p) { p.recipe.adamw.beta2 = beta2; }});
  all.push_back({"eps-inside-root", "eps is added under the root: m / sqrt(v + eps)",
                 [](Procedure& p) { p.recipe.adamw.eps_inside_root = true; }});
  for (const auto& [eps, name] :
       {std::pair{1e-15, "1e-15"}, {1e-8, "1e-8"}, {1e-7, "1e-7"}, {1e-6, "1e-6"}, {1e-5, "1e-5"}})
    all.push_back({std::string("eps-") + name, std::string("eps is ") + name,
                   [=, eps = eps](Procedure& p) { p.recipe.adamw.eps = eps; }});
}

void add_decays(Defects& all) {
  all.push_back({"l2-decay",
                 "the decay is added to the gradient (L2), not taken from the parameter",
                 [](Procedure& p) { p.recipe.adamw.decoupled = false; }});
  all.push_back({"decay-on-all", "norms and biases decay, too",
                 [](Procedure& p) { p.recipe.adamw.decayed = AdamW::Decayed::all; }});
  all.push_back(
      {"no-decay", "nothing decays", [](Procedure& p) { p.recipe.adamw.weight_decay = 0; }});
  all.push_back({"decay-0.01", "weight decay is 0.01, torch's default",
                 [](Procedure& p) { p.recipe.adamw.weight_decay = 0.01; }});
}

void add_gradients(Defects& all, Index sequences) {
  const auto n = static_cast<double>(sequences);
  const auto factor = [](double by) { return [=](Procedure& p) { p.gradient_factor = by; }; };
  all.push_back({"gradient-summed",
                 "gradients are summed over the batch's sequences, where the mean was meant",
                 factor(n)});
  all.push_back({"gradient-averaged-twice",
                 "gradients are divided by the number of sequences once more", factor(1 / n)});
  const auto of_parts = [](bool sum) {
    return [=](Procedure& p) {
      const auto parts = static_cast<double>(p.recipe.accumulation);
      p.gradient_factor = sum ? parts : 1 / parts;
    };
  };
  all.push_back({"accumulation-summed",
                 "gradients are summed over micro-batches, where the mean was meant",
                 of_parts(true)});
  all.push_back({"accumulation-averaged-twice",
                 "gradients are divided by the number of micro-batches once more",
                 of_parts(false)});
  all.push_back({"embedding-not-trained", "the embedding stays as it was",
                 [](Procedure& p) { p.recipe.trained = {R"(^(?!model\.embed_tokens))"}; }, true});
}

void add_indexer(Defects& all) {
  all.push_back({"kl-coefficient-left-out", "the KL enters with coefficient 1",
                 [](Procedure& p) { p.recipe.kl = 1; }});
  all.push_back({"indexer-not-trained", "the indexer stays as it was",
                 [](Procedure& p) { p.recipe.trained = {R"(^(?!.*\.indexer\.))"}; }});
  all.push_back({"trunk-not-frozen", "what should be frozen is trained, too: it decays",
                 [](Procedure& p) { p.recipe.trained = {""}; }});
  all.push_back({"attention-sparse", "the main model attends to the chosen keys only",
                 [](Procedure& p) { p.recipe.attention = Recipe::Attention::sparse; }});
  all.push_back({"attention-dense", "the main model attends to every visible key",
                 [](Procedure& p) { p.recipe.attention = Recipe::Attention::dense; }});
  all.push_back({"kl-over-chosen", "the KL is over the chosen keys only", [](Procedure& p) {
                   using Keys = KlSemantics::Keys;
                   KlSemantics& s = p.recipe.semantics;
                   s.teacher_softmax = s.teacher_keys = s.student_keys = Keys::chosen;
                 }});
  all.push_back({"kl-over-visible", "the KL is over every visible key",
                 [](Procedure& p) { p.recipe.semantics = in_warmup(p.recipe.semantics); }});
  all.push_back({"indexer-input-not-detached", "the KL trains the main model, too",
                 [](Procedure& p) { p.recipe.semantics.detach = KlSemantics::Detach::nothing; }});
  all.push_back({"kl-summed-over-layers", "the KL is summed over layers",
                 [](Procedure& p) { p.recipe.semantics.layers = KlSemantics::Reduction::sum; }});
  all.push_back({"kl-summed-over-tokens", "the KL is summed over tokens",
                 [](Procedure& p) { p.recipe.semantics.tokens = KlSemantics::Reduction::sum; }});
}

/// One run held against every defect.
struct Suspects {
  const Comparison& comparison;
  const Model& model;
  const Recipe& recipe;
  const Trajectory& found;
  std::vector<std::string> recorded = {};
  BeforeUpdate first = {};  // the first step's losses and gradients, by the recipe

  /// A defect that ends in weights that are no numbers is not that of a run which goes on.
  bool explains(const TrainingDefect& defect) const {
    try {
      return follows(defect);
    } catch (const Error&) {
      return false;
    }
  }

 private:
  bool follows(const TrainingDefect& defect) const {
    Procedure procedure{recipe};
    defect.alter(procedure);
    Replay replay(model, procedure, recorded);
    const Rehearsal& own = comparison.rehearsal();
    double moved = 0;  // away from the recipe's own run
    for (Index n = 0; n < found.size(); ++n) {
      const auto i = static_cast<std::size_t>(n);
      const bool known = n == 0 && !defect.of_losses;
      const StepRecord record = known ? replay.step(first) : replay.step(found.batches[i]);
      if (comparison.of_step(n, record, elsewhere) > 1) return false;
      moved = std::max(moved, comparison.between(n, record, own.base[i]));
    }
    moved = std::max(moved, comparison.of_finals(*own.end, elsewhere));
    return moved > 1 && comparison.of_finals(replay, elsewhere) <= 1;
  }
};

}  // namespace

std::vector<TrainingDefect> training_defects(Index sequences, bool has_indexer) {
  Defects all;
  add_clips(all);
  add_schedules(all);
  add_moments(all);
  add_decays(all);
  add_gradients(all, sequences);
  if (!has_indexer) return all;
  const std::size_t others = all.size();
  add_indexer(all);
  for (std::size_t i = others; i < all.size(); ++i) all[i].of_losses = true;
  return all;
}

std::vector<KnownCause> causes_of(const Comparison& comparison, const Model& model,
                                  const Recipe& recipe, const Trajectory& found) {
  const Defects all = training_defects(found.sequences, model.config.indexer.has_value());
  Suspects suspects{comparison, model, recipe, found};
  for (const auto& [name, value] : found.steps.front()) suspects.recorded.push_back(name);
  suspects.first = Replay(model, {recipe}, suspects.recorded).before_update(found.batches.front());
  std::vector<char> explained(all.size());
  parallel_for(static_cast<Index>(all.size()), 1'000'000, [&](Index i) {
    const auto at = static_cast<std::size_t>(i);
    explained[at] = suspects.explains(all[at]);
  });
  std::vector<KnownCause> causes;
  for (std::size_t i = 0; i < all.size(); ++i)
    if (explained[i]) causes.push_back({all[i].name, all[i].sentence});
  return causes;
}

}  // namespace dsa::verify
