#include "verify/gradients/judge.hpp"

#include <algorithm>
#include <cmath>
#include <map>

#include "core/checkpoint.hpp"
#include "verify/gradients/limits.hpp"
#include "verify/gradients/oddities.hpp"
#include "verify/receipt.hpp"
#include "verify/report/text.hpp"

namespace dsa::verify {
namespace {

using reference::Precision;

/// "your loss.kl is exactly 150 times ours: a sum, where the mean was expected", where it is.
std::string other_reduction(const std::string& name, double ratio, const GradientStage& stage) {
  Index rows = 0;
  for (const Sequence& one : stage.sequences)
    rows += one.size() - std::count(one.documents.begin(), one.documents.end(), -1);
  const Config& config = stage.model.config;
  Index layers = 1;
  if (config.indexer)
    layers = std::count(config.indexer->computes.begin(), config.indexer->computes.end(), true);
  const std::pair<Index, const char*> known[] = {
      {rows, "tokens"}, {layers, "layers"}, {rows * layers, "tokens and layers"}};
  for (const auto& [n, what] : known) {
    if (n < 2) continue;
    const bool sum = std::abs(ratio / static_cast<double>(n) - 1) < 1e-4;
    const bool mean = std::abs(ratio * static_cast<double>(n) - 1) < 1e-4;
    if (sum)
      return "your loss." + name + " is exactly " + std::to_string(n) + " times ours: a sum over " +
             what + ", where the mean was expected";
    if (mean)
      return "your loss." + name + " is ours divided by " + std::to_string(n) + ": a mean over " +
             what + ", where the sum was expected";
  }
  return "";
}

class Judge {
 public:
  Judge(GradientVerdict& verdict, const GradientFile& file, const GradientFile& golden,
        const GradientStage& stage, const GradientOptions& options, Precision precision)
      : verdict_(verdict),
        file_(file),
        golden_(golden),
        stage_(stage),
        options_(options),
        precision_(precision) {}

  void judge(const std::string& loss, double tail) {
    const GradientVariant right = variant_of(loss, stage_);
    const GradientPass base = run_backward(right);
    const GradientLimits limits(
        right, base, draw_gradients(loss, stage_, base, precision_, options_), precision_, tail);
    if (file_.losses.contains(loss)) judge_loss(loss, base, limits);
    const auto found = file_.gradients.find(loss);
    if (found == file_.gradients.end()) {
      verdict_.notes.push_back("loss." + loss + " has no gradients beside it");
      return;
    }
    for (std::size_t p = 0; p < base.gradients.size(); ++p)
      judge_parameter(loss, base.gradients[p], limits, p, found->second);
    if (left_out_[loss] > 0)
      verdict_.notes.push_back("the golden leaves out " + plural(left_out_[loss], "gradient") +
                               " of loss." + loss);
  }

 private:
  void judge_loss(const std::string& loss, const GradientPass& base, const GradientLimits& limits) {
    LossResult r{loss, base.loss, file_.losses.at(loss), 0, false};
    if (golden_.losses.contains(loss)) r.golden = golden_.losses.at(loss);
    r.limit = limits.of_loss();
    r.ok = std::abs(r.other - base.loss) <= r.limit;
    if (!r.ok) {
      depart("loss." + loss);
      const std::string other = other_reduction(loss, r.other / base.loss, stage_);
      if (!other.empty()) verdict_.notes.push_back(other);
    }
    verdict_.losses.push_back(r);
  }

  void judge_parameter(const std::string& loss, const std::pair<std::string, Values>& base,
                       const GradientLimits& limits, std::size_t p, const ByParameter& gradients) {
    const auto& [name, want] = base;
    const auto mine = gradients.find(name);
    const double size = norm(want);
    if (size == 0) {
      if (mine == gradients.end() || norm(mine->second.values) == 0) return;
      verdict_.must_be_zero.push_back({name, loss, norm(mine->second.values)});
      return depart(name);
    }
    ParameterResult r;
    r.name = name, r.loss = loss, r.norm_golden = size;
    r.missing = mine == gradients.end();
    if (r.missing && !golden_has(loss, name)) {  // nobody promised it
      ++left_out_[loss];
      return;
    }
    if (!r.missing) {
      const Values& got = mine->second.values;
      const GradientLimits::Measured m = limits.measured(p, mine->second);
      r.distance = m.distance.whole, r.at = m.distance.at;
      r.distance_limit = m.limit, r.worst_over_allowed = m.worst_over_allowed;
      r.norm_other = norm(got), r.cosine = cosine(got, want);
      if (!r.ok()) depart(name);
      if (!r.ok()) note_oddity(loss, name, {got, want, 0, 0, r.distance_limit});
    }
    verdict_.parameters.push_back(std::move(r));
  }

  void note_oddity(const std::string& loss, const std::string& name, Departure d) {
    for_each_tensor(stage_.model.weights, stage_.model.config,
                    [&](const std::string& its, const Parameter& p, auto&&) {
                      if (its == name) d.rows = p.rows(), d.columns = p.columns();
                    });
    const std::string what = oddity(d);
    if (!what.empty()) verdict_.notes.push_back("your " + loss + "." + name + " " + what);
  }

  bool golden_has(const std::string& loss, const std::string& name) const {
    const auto found = golden_.gradients.find(loss);
    return found != golden_.gradients.end() && found->second.contains(name);
  }

  void depart(const std::string& name) {
    if (!verdict_.first_departure) verdict_.first_departure = name;
  }

  GradientVerdict& verdict_;
  const GradientFile& file_;
  const GradientFile& golden_;
  const GradientStage& stage_;
  const GradientOptions& options_;
  Precision precision_;
  std::map<std::string, Index> left_out_;  // by loss
};

std::string losses_in_words(Index n) { return std::to_string(n) + (n == 1 ? " loss" : " losses"); }

void conclude(GradientVerdict& v, bool sees) {
  Index wrong = 0, missing = 0, compared = 0;
  for (const ParameterResult& r : v.parameters) {
    missing += r.missing;
    wrong += !r.missing && !r.ok();
    compared += !r.missing;
  }
  const auto wrong_losses =
      std::count_if(v.losses.begin(), v.losses.end(), [](const LossResult& r) { return !r.ok; });
  const auto leaks = static_cast<Index>(v.must_be_zero.size());
  if (wrong + wrong_losses + leaks > 0) {
    v.outcome = Outcome::fail;
    v.why = plural(wrong, "gradient") + " and " + losses_in_words(wrong_losses) +
            " lie beyond what rounding explains";
    if (leaks > 0)
      v.why += "; " + plural(leaks, "gradient") + " must be zero and " +
               (leaks == 1 ? "is" : "are") + " not";
    v.why += "; the first in backward order is " + *v.first_departure;
    for (const std::string& note : v.notes)
      if (note.starts_with("your ")) v.why = note;
  } else if (missing > 0) {
    v.outcome = Outcome::inconclusive;
    const auto first = std::find_if(v.parameters.begin(), v.parameters.end(),
                                    [](const ParameterResult& r) { return r.missing; });
    v.why = "the golden has " + plural(missing, "gradient") + " that your file lacks, the first " +
            first->loss + "." + first->name + "; what is there is right";
  } else if (compared + static_cast<Index>(v.losses.size()) == 0) {
    v.why = "nothing was compared";
  } else if (!sees) {
    v.outcome = Outcome::inconclusive;
    v.why =
        "no row sees more keys than index_topk chooses, so every key is chosen: the sparse "
        "stage cannot be seen; take longer sequences";
  } else {
    v.outcome = Outcome::pass;
    v.why = plural(compared, "gradient") + " and " +
            losses_in_words(static_cast<Index>(v.losses.size())) + " lie within their limits";
  }
}

}  // namespace

GradientVerdict judge_gradients(const std::string& checkpoint, const std::string& golden,
                                const std::string& candidate, const GradientOptions& options) {
  const MemoryWatch memory;
  const Model model = resident(open_checkpoint(checkpoint), Index{1} << 30);
  const GradientFile trusted =
      read_gradients(golden, model.config, candidate.empty() ? options.names : "");
  const GradientFile file =
      candidate.empty() ? trusted : read_gradients(candidate, model.config, options.names);
  const Sequence ours = reference::join(file.sequences),
                 theirs = reference::join(trusted.sequences);
  require(
      ours.tokens == theirs.tokens && ours.documents == theirs.documents,
      candidate + " holds gradients for other tokens than " + golden + "; run it on the golden's");

  const GradientStage stage = stage_of(model, trusted, semantics_named(options.semantics), file);
  const Precision precision =
      options.precision ? *options.precision : reference::precision_named(file.precision);
  std::vector<std::string> losses = options.losses;
  if (losses.empty())
    for (const char* loss : {"lm", "kl", "mtp", "balance"})
      if (file.has(loss)) losses.push_back(loss);
  for (const std::string& loss : losses)
    require(file.has(loss), file.path.string() + " has neither loss." + loss +
                                " nor gradients of it; it has other losses");

  GradientVerdict v;
  v.checkpoint = checkpoint, v.golden = golden, v.candidate = candidate;
  v.precision = reference::name_of(precision), v.semantics = options.semantics;
  v.notes.push_back("stage: " + stage.words);
  Index parameters = 0;
  for_each_tensor(model.weights, model.config, [&](auto&&...) { ++parameters; });
  const double tail =
      options.alpha / static_cast<double>(2 * parameters * static_cast<Index>(losses.size()));
  Judge judge(v, file, trusted, stage, options, precision);
  for (const std::string& loss : losses) judge.judge(loss, tail);
  conclude(v, sees_selection(stage));
  v.receipt = make_receipt(
      checkpoint, golden,
      candidate.empty() ? std::nullopt : std::optional<std::filesystem::path>(candidate));
  v.receipt.draws = options;
  v.receipt.peak_memory_mib = memory.peak_mib();
  return v;
}

}  // namespace dsa::verify
