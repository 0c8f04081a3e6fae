#include "verify/diagnose/gradients.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <set>

#include "core/checkpoint.hpp"
#include "core/safetensors.hpp"
#include "verify/diagnose/gradient_search.hpp"
#include "verify/receipt.hpp"

namespace dsa::verify {
namespace {

std::string in_full(const RankedGradients& r) {
  return r.name + (r.variant.empty() ? "" : " (" + r.variant + ")");
}

/// The losses of which something departs, in the order of the verdict.
std::vector<std::string> departing(const GradientVerdict& v) {
  std::vector<std::string> losses;
  const auto add = [&](const std::string& loss) {
    if (std::find(losses.begin(), losses.end(), loss) == losses.end()) losses.push_back(loss);
  };
  for (const LossResult& r : v.losses)
    if (!r.ok) add(r.name);
  for (const ParameterResult& r : v.parameters)
    if (!r.missing && !r.ok()) add(r.loss);
  for (const MustBeZero& z : v.must_be_zero) add(z.loss);
  return losses;
}

double limit_of(const GradientVerdict& v, const std::string& loss) {
  for (const LossResult& r : v.losses)
    if (r.name == loss) return r.limit;
  return 0;
}

/// What others do by right goes before a defect that computes the same.
std::vector<RankedGradients> ranked(const GradientSearch& search) {
  std::vector<RankedGradients> ranking;
  for (const GradientArm& arm : search.arms())
    if (arm.has_run) ranking.push_back(arm.ranked);
  std::stable_partition(ranking.begin(), ranking.end(),
                        [](const RankedGradients& r) { return r.explained && r.convention; });
  return ranking;
}

/// "kl-reversed explains loss.kl to its noise (...): ..."
std::string explained(GradientDiagnosis& d, const std::vector<RankedGradients>& ranking,
                      double before) {
  const RankedGradients& best = ranking.front();
  std::set<int> others;
  for (const RankedGradients& r : ranking)
    if (r.explained && r.number != best.number) others.insert(r.number);
  d.defects.push_back(best.number);
  std::string why =
      fmt::format("{} explains loss.{} to its noise ({:.3g} of the distance {:.3g} remains): {}",
                  in_full(best), best.loss, best.distance, before, best.sentence);
  if (others.empty() || best.convention) return why;
  d.also.insert(d.also.end(), others.begin(), others.end());
  why += fmt::format(" This candidate cannot tell it from {}.", fmt::join(others, ", "));
  return why;
}

std::string unexplained(const std::string& loss, const std::vector<RankedGradients>& ranking,
                        double before) {
  const std::string none = "no known defect of training explains loss." + loss + "; ";
  if (ranking.empty() || !(ranking.front().distance < before))
    return none + "no variant comes nearer than the definition itself";
  const RankedGradients& nearest = ranking.front();
  return none + fmt::format(
                    "the nearest, {}, leaves more than its noise: {:.3g} of the distance "
                    "{:.3g} remains",
                    in_full(nearest), nearest.distance, before);
}

/// One departing loss; whether it is explained, and by a convention.
struct Explained {
  bool found = false, convention = false;
  std::string why;
};
Explained explain(GradientDiagnosis& d, const std::string& loss, const GradientStage& stage,
                  const GradientFile& file, const GradientFile& golden,
                  const GradientOptions& options) {
  FoundGradients found;
  if (const auto all = golden.gradients.find(loss); all != golden.gradients.end())
    found.golden = &all->second;
  if (const auto value = file.losses.find(loss); value != file.losses.end())
    found.loss = value->second;
  if (const auto all = file.gradients.find(loss); all != file.gradients.end())
    found.gradients = &all->second;
  GradientSearch search(loss, stage, found, reference::precision_named(d.precision), options,
                        limit_of(d.plain, loss));
  Explained result;
  result.found = search.run();
  const std::vector<RankedGradients> ranking = ranked(search);
  result.convention = result.found && ranking.front().convention;
  result.why = result.found ? explained(d, ranking, search.before())
                            : unexplained(loss, ranking, search.before());
  d.before.emplace_back(loss, search.before());
  d.variants += search.variants();
  d.ranking.insert(d.ranking.end(), ranking.begin(), ranking.end());
  return result;
}

void conclude(GradientDiagnosis& d, const std::vector<Explained>& losses) {
  bool all = true, conventions = true;
  for (const Explained& each : losses) {
    all &= each.found;
    conventions &= each.convention;
    d.why += (d.why.empty() ? "" : " ") + each.why;
  }
  for (const std::string& note : d.plain.notes)
    if (note.starts_with("your loss")) d.why += " (" + note + ")";
  d.conclusion = !all ? "unknown" : conventions ? "convention" : "defect";
  for (std::vector<int>* numbers : {&d.defects, &d.also}) {
    std::sort(numbers->begin(), numbers->end());
    numbers->erase(std::unique(numbers->begin(), numbers->end()), numbers->end());
  }
  if (!all) d.defects.clear(), d.also.clear();
}

}  // namespace

bool holds_gradients(const std::filesystem::path& path) {
  if (path.extension() != ".safetensors") return false;
  const SafetensorsFile file = SafetensorsFile::open(path);
  return std::any_of(file.tensors().begin(), file.tensors().end(), [](const StoredTensor& t) {
    return t.name.starts_with("loss.") || t.name.starts_with("lm.") || t.name.starts_with("kl.");
  });
}

GradientDiagnosis diagnose_gradients(const std::filesystem::path& checkpoint,
                                     const std::filesystem::path& golden,
                                     const std::filesystem::path& candidate,
                                     const GradientOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const MemoryWatch memory;
  GradientDiagnosis d;
  d.checkpoint = checkpoint.string(), d.golden = golden.string();
  d.candidate = candidate.string();
  d.plain = golden.empty() ? judge_gradients(checkpoint.string(), candidate.string(), "", options)
                           : judge_gradients(checkpoint.string(), golden.string(),
                                             candidate.string(), options);
  d.precision = d.plain.precision;
  if (d.plain.outcome == Outcome::fail) {
    const Model model = resident(open_checkpoint(checkpoint), Index{1} << 30);
    const GradientFile file = read_gradients(candidate, model.config, options.names);
    const GradientFile trusted = golden.empty() ? file : read_gradients(golden, model.config);
    const GradientStage stage = stage_of(model, trusted, semantics_named(options.semantics), file);
    std::vector<Explained> losses;
    for (const std::string& loss : departing(d.plain))
      losses.push_back(explain(d, loss, stage, file, trusted, options));
    conclude(d, losses);
  } else {
    d.conclusion = d.plain.outcome == Outcome::pass ? "correct" : "unknown";
    d.why = d.plain.why;
  }
  d.receipt =
      make_receipt(checkpoint, golden.empty() ? candidate : golden,
                   golden.empty() ? std::nullopt : std::optional<std::filesystem::path>(candidate));
  d.receipt.draws = options;
  d.receipt.peak_memory_mib = memory.peak_mib();
  d.receipt.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return d;
}

int exit_code(const GradientDiagnosis& d) {
  if (d.conclusion == "correct") return 0;
  return d.plain.outcome == Outcome::fail ? 1 : 3;
}

}  // namespace dsa::verify
