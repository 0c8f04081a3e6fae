#include "verify/gradients/judge.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "core/checkpoint.hpp"
#include "reference/model/backward.hpp"
#include "reference/precision/rounder_backward.hpp"
#include "verify/gradients/distance.hpp"
#include "verify/gradients/gradient_file.hpp"
#include "verify/gradients/oddities.hpp"
#include "verify/measure/stats.hpp"
#include "verify/receipt.hpp"
#include "verify/report/text.hpp"

namespace dsa::verify {
namespace {

using reference::Precision;

/// What the file's numbers were computed from: the stage of training.
struct Stage {
  std::string words;
  Model model;
  Sequence sequence;
  KlSemantics semantics;
  bool is_sparse = true;
};

/// One backward pass of one loss.
struct Pass {
  double loss = 0;
  std::vector<std::pair<std::string, Values>> gradients;  // in backward order
};

reference::Objective<double> objective_of(const std::string& loss, const Stage& stage) {
  if (loss == "lm") return reference::lm_objective<double>(stage.sequence);
  if (loss == "kl") return reference::kl_objective<double>(stage.sequence, stage.semantics);
  reference::Objective<double> objective;
  if (loss == "mtp") {
    objective.mtp = reference::mean_over_targets<double>(reference::targets_of(stage.sequence, 2));
    objective.mtp.pop_back();
  } else if (loss == "balance") {
    objective.balance = 1e-4;  // V3's alpha
  } else {
    throw Error("there is no loss \"" + loss + "\"; choose lm, kl, mtp or balance");
  }
  return objective;
}

double value_of(const reference::Losses<double>& losses, const std::string& name) {
  return name == "lm"    ? losses.lm
         : name == "kl"  ? losses.kl
         : name == "mtp" ? losses.mtp
                         : losses.balance;
}

/// The roundings of one draw; no draw: the definition.
struct Roundings {
  Precision precision = Precision::fp64;
  std::optional<std::uint64_t> draw;
};

Pass backward(const std::string& loss, const Stage& stage, const Roundings& r) {
  using reference::Rounding;
  const Rounding rounding{r.draw ? Rounding::Mode::random : Rounding::Mode::nearest,
                          r.draw.value_or(0)};
  const Model model = r.draw ? reference::loaded_as(stage.model, r.precision) : stage.model;
  const auto ops = r.draw ? reference::ops_of(r.precision, rounding, model.config)
                          : reference::definition<double>();
  const auto backward_ops = r.draw ? reference::backward_ops_of(r.precision, rounding)
                                   : reference::backward_definition<double>();
  const reference::Objective<double> objective = objective_of(loss, stage);
  Pass pass;
  const reference::Pass<double> forward{model, ops};
  pass.loss = value_of(
      reference::backward<double>({forward, backward_ops, stage.sequence, objective,
                                   [&](const std::string& name, View<const double, 2> gradient) {
                                     pass.gradients.emplace_back(
                                         name, Values(gradient.begin(), gradient.end()));
                                   }}),
      loss);
  return pass;
}

/// The stage whose losses are nearest to the file's: sparse, dense (every visible key is chosen),
/// or a KL over all visible keys under a sparse forward pass.
Stage stage_of(const Model& model, const GradientFile& file, const KlSemantics& semantics) {
  std::vector<Sequence> sequences;
  for (const Sequence& one : file.sequences) sequences.push_back(seen_by(semantics, one));
  const Sequence sequence = reference::join(sequences);
  std::vector<Stage> stages = {{"sparse", model, sequence, semantics}};
  if (model.config.indexer) {
    Model dense = model;
    dense.config.indexer->topk = sequence.size();
    stages.push_back({"dense: every visible key is chosen", dense, sequence, semantics, false});
    stages.push_back({"warm-up: a KL over all visible keys under a sparse forward pass", model,
                      sequence, in_warmup(semantics)});
  }
  std::size_t best = 0;
  double nearest = std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < stages.size(); ++i) {
    double distance = 0;
    for (const auto& [name, value] : file.losses) {
      const auto objective = objective_of(name, stages[i]);
      const auto ops = reference::definition<double>();
      const double ours =
          value_of(reference::losses<double>({stages[i].model, ops}, sequence, objective), name);
      distance = std::max(distance, std::abs(value - ours) / std::abs(ours));
    }
    if (distance < nearest) nearest = distance, best = i;
    if (nearest < 1e-6) break;  // no other stage is so near
  }
  // Nearer than bf16 takes a loss; otherwise the loss is wrong or another reduction's, at any
  // stage.
  constexpr double near = 1e-2;
  return stages[nearest < near ? best : 0];
}

/// What the perturbed runs of one loss gave: of each parameter both distances, and those of the
/// loss.
struct Drawn {
  std::vector<std::vector<double>> whole, element;  // [parameter][run]
  std::vector<double> loss;                         // [run]
};

Drawn draw(const std::string& loss, const Stage& stage, const Pass& base, Precision precision,
           const GradientOptions& options) {
  Drawn draws{std::vector<std::vector<double>>(base.gradients.size()),
              std::vector<std::vector<double>>(base.gradients.size()),
              {}};
  for (int run = 0; run < options.runs; ++run) {
    const Pass other =
        backward(loss, stage, {precision, options.seed + static_cast<std::uint64_t>(run)});
    std::map<std::string, const Values*>
        by_name;  // an expert without tokens comes at another place
    for (const auto& [name, values] : other.gradients) by_name[name] = &values;
    for (std::size_t p = 0; p < base.gradients.size(); ++p) {
      const auto& [name, want] = base.gradients[p];
      if (norm(want) == 0) continue;
      const GradientDistance d = distance(*by_name.at(name), want);
      draws.whole[p].push_back(d.whole);
      draws.element[p].push_back(d.element);
    }
    draws.loss.push_back(other.loss - base.loss);
  }
  return draws;
}

/// "your loss.kl is exactly 150 times ours: a sum, where the mean was expected", where it is.
std::string other_reduction(const std::string& name, double ratio, const Stage& stage) {
  const auto& documents = stage.sequence.documents;
  const Index rows = std::count_if(documents.begin(), documents.end(),
                                   [](Index document) { return document >= 0; });
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
        const Stage& stage, const GradientOptions& options, Precision precision)
      : verdict_(verdict),
        file_(file),
        golden_(golden),
        stage_(stage),
        options_(options),
        precision_(precision) {}

  void judge(const std::string& loss, double tail) {
    const Pass base = backward(loss, stage_, {});
    const Drawn draws = draw(loss, stage_, base, precision_, options_);
    if (file_.losses.contains(loss)) judge_loss(loss, base, draws, tail);
    const auto found = file_.gradients.find(loss);
    if (found == file_.gradients.end()) {
      verdict_.notes.push_back("loss." + loss + " has no gradients beside it");
      return;
    }
    for (std::size_t p = 0; p < base.gradients.size(); ++p)
      judge_parameter(loss, base.gradients[p], draws, p, tail, found->second);
    if (left_out_[loss] > 0)
      verdict_.notes.push_back("the golden leaves out " + plural(left_out_[loss], "gradient") +
                               " of loss." + loss);
  }

 private:
  /// Of the formats that losses are computed in: HuggingFace's are float32 in bf16 runs, too.
  double unit() const { return precision_ == Precision::fp64 ? 0x1p-53 : 0x1p-24; }

  /// Standard deviation of a loss by the roundings of its own arithmetic, which the perturbed runs
  /// leave out. A row's terms are logarithms of at most ln(choices), rounded once each; rows round
  /// alone.
  double own_rounding(const std::string& loss) const {
    const auto objective = objective_of(loss, stage_);
    const std::vector<double>& weights = loss == "kl" ? objective.kl : objective.lm;
    const auto choices =
        static_cast<double>(loss == "kl" ? stage_.sequence.size() : stage_.model.config.vocab_size);
    return unit() * 2 * std::log(choices) * norm(weights);
  }

  void judge_loss(const std::string& loss, const Pass& base, const Drawn& draws, double tail) {
    double squares = 0;
    const auto M = static_cast<double>(draws.loss.size());
    for (double d : draws.loss) squares += d * d / M;
    LossResult r{loss, base.loss, file_.losses.at(loss), 0, false};
    if (golden_.losses.contains(loss)) r.golden = golden_.losses.at(loss);
    r.limit = student_quantile(M, tail) *
                  std::sqrt(squares * (1 + 1 / M) + std::pow(own_rounding(loss), 2)) +
              unit() * std::abs(base.loss);  // and what the file's own format takes
    r.ok = std::abs(r.other - base.loss) <= r.limit;
    if (!r.ok) {
      depart("loss." + loss);
      const std::string other = other_reduction(loss, r.other / base.loss, stage_);
      if (!other.empty()) verdict_.notes.push_back(other);
    }
    verdict_.losses.push_back(r);
  }

  void judge_parameter(const std::string& loss, const std::pair<std::string, Values>& base,
                       const Drawn& draws, std::size_t p, double tail,
                       const ByParameter& gradients) {
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
      const GradientDistance d = distance(got, want);
      const double stored = mine->second.dtype == Dtype::f32 ? 0x1p-24 : 0;
      r.distance_limit = DistanceLimits(draws.whole).of(p, tail) + stored;
      const double element_limit = DistanceLimits(draws.element).of(p, tail) + stored;
      r.distance = d.whole, r.at = d.at;
      r.norm_other = norm(got), r.cosine = cosine(got, want);
      const double ratios[] = {d.whole / r.distance_limit, d.element / element_limit};
      r.worst_over_allowed = std::isnan(ratios[0]) || std::isnan(ratios[1])
                                 ? std::numeric_limits<double>::infinity()
                                 : std::max(ratios[0], ratios[1]);
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
  const Stage& stage_;
  const GradientOptions& options_;
  Precision precision_;
  std::map<std::string, Index> left_out_;  // by loss
};

/// Does any row see more keys than are chosen?
bool sees_selection(const Stage& stage) {
  if (!stage.model.config.indexer || !stage.is_sparse) return true;
  const reference::Visibility visible{0, stage.sequence.documents};
  for (Index t = 0; t < visible.keys(); ++t) {
    Index keys = 0;
    for (Index s = 0; s <= t; ++s) keys += visible.sees(t, s);
    if (keys > stage.model.config.indexer->topk) return true;
  }
  return false;
}

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
    if (leaks > 0) v.why += "; " + plural(leaks, "gradient") + " must be zero and is not";
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

  const Stage stage = stage_of(model, trusted, semantics_named(options.semantics));
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
