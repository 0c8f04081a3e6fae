// experiments/rates/visibility.cpp — how large a defect must be to be seen.
//
// Continuous defects of a size s, right at s = 0, are put into a correct run of a precision (its
// roundings drawn at random), and the smallest s that the judge catches is found by bisection of
// its logarithm: once through the logits, once through a trace of every tensor.
#include <cstdio>
#include <iostream>
#include <mutex>

#include "cli/program.hpp"
#include "core/random.hpp"
#include "core/threads.hpp"
#include "experiments/rates/common.hpp"
#include "reference/ops/norms.hpp"
#include "verify/defects/alter.hpp"
#include "verify/measure/selection.hpp"

namespace {

using namespace dsa;
using experiments::Setting;
using verify::ends;
using verify::Variant;

constexpr const char* what =
    "The smallest relative size of a defect that the judge catches in a run of this precision, "
    "through logits and through a trace of every tensor of sequence 0; the median over candidates. "
    "null: not caught at the largest size tried";

/// A defect of any size.
struct Scaled {
  std::string name, meaning;
  double largest;
  std::function<bool(const Config&)> applies;
  std::function<void(Variant&, double size)> apply;
};

void scale_softmax(Variant& a, double s) {
  verify::around_attention(a,
                           [s](verify::Name, verify::AttentionTold& told) { told.scale *= 1 + s; });
}

void scale_gain(Variant& a, double s) {
  verify::around(
      a.ops.rmsnorm, ends("layers.1.post_attention_layernorm"),
      [s](const auto& inner, verify::Name name, verify::Out y, verify::In x, auto&&... r) {
        inner(name, y, x, r...);
        for (double& value : y) value *= 1 + s;
      });
}

/// (1 - s) LayerNorm + s RMSNorm of the index keys.
void blend_key_norm(Variant& a, double s) {
  verify::around(a.ops.index_key_norm, verify::anywhere(),
                 [s](const auto& inner, verify::Name name, verify::Out y, verify::In x,
                     const IndexerWeights& w, const Indexer& indexer) {
                   inner(name, y, x, w, indexer);
                   Tensor<double, 2> wrong(y.shape);
                   reference::definition<double>().rmsnorm(name, wrong, x, w.k_norm,
                                                           indexer.key_norm_eps);
                   for (Index i = 0; i < y.size(); ++i)
                     y.data[i] += s * (wrong.data()[i] - y.data[i]);
                 });
}

std::vector<Scaled> scaled_defects() {
  const auto any = verify::any_model;
  return {
      {"softmax scale", "scale (1+s)", 1, any, scale_softmax},
      {"norm eps", "rms_norm_eps (1+s)", 1e6, any,
       [](Variant& a, double s) { a.model.config.rms_norm_eps *= 1 + s; }},
      {"rope theta", "theta (1+s)", 1, any,
       [](Variant& a, double s) { a.model.config.rope.theta *= 1 + s; }},
      {"norm gain", "layer 1's post_attention_layernorm (1+s)", 1, any, scale_gain},
      {"router scale", "routed_scaling_factor (1+s)", 1, verify::has_router,
       [](Variant& a, double s) { a.model.config.routed_scaling_factor *= 1 + s; }},
      {"index key norm", "LayerNorm + s (RMSNorm - LayerNorm)", 1, verify::has_indexer,
       blend_key_norm},
  };
}

/// What is the same for every candidate of a setting.
struct Judge {
  Setting setting;
  verify::ModelPair models;
  Recording side;
  verify::JudgeOptions options;
  std::vector<verify::SequenceResult> measured;
  verify::Run base;       // sequence 0 with all of its tensors
  verify::Limits limits;  // of base
};

bool keeps_all(const std::string&) { return true; }

verify::RunOptions whole(const verify::ModelPair& models) {
  verify::RunOptions options;
  options.span = {0, models.definition.config.num_hidden_layers};
  return options;
}

Judge prepared(const Setting& setting, const verify::JudgeOptions& options) {
  Judge judge{setting,
              verify::open_models(setting.checkpoint, setting.precision),
              experiments::without_logits(setting),
              options,
              {},
              {},
              {}};
  judge.measured = verify::measure_sequences(judge.models, judge.side.sequences, options);
  verify::RunOptions run = whole(judge.models);
  run.keep = keeps_all;
  const Variant definition = judge.models.exact();
  const Sequence& sequence = judge.side.sequences[0];
  judge.base = verify::run_reference(definition.model, sequence, definition.ops, run);
  judge.limits = verify::measure_limits(
      [&](std::uint64_t draw) {
        return judge.models.rounded({reference::Rounding::Mode::random, draw});
      },
      sequence, judge.base, run, [](const std::string&) { return false; },
      verify::noise_options(options, judge.models));
  return judge;
}

/// The run that is to be judged.
verify::Run candidate(const Judge& judge, const Scaled& defect, double size, std::uint64_t seed,
                      const Sequence& sequence, bool traced) {
  Variant draw = judge.models.rounded({reference::Rounding::Mode::random, seed});
  defect.apply(draw, size);
  verify::RunOptions run = whole(judge.models);
  if (traced) run.keep = keeps_all;
  return verify::run_reference(draw.model, sequence, draw.ops, run);
}

bool seen_in_logits(const Judge& judge, const Scaled& defect, double size, std::uint64_t seed) {
  Recording side = judge.side;
  for (std::size_t b = 0; b < side.sequences.size(); ++b)
    side.logits.push_back(
        candidate(judge, defect, size, random_bits(seed, b), side.sequences[b], false).logits);
  return verify::hold_against_definition(judge.models, side, "candidate", judge.options,
                                         &judge.measured)
             .judgement.outcome == verify::Outcome::fail;
}

/// The candidate's decisions are judged by the definition's scores, and replayed where the noise
/// explains them; then its tensors are compared with those of the replay.
bool seen_in_trace(const Judge& judge, const Scaled& defect, double size, std::uint64_t seed) {
  const Sequence& sequence = judge.side.sequences[0];
  const verify::Run theirs = candidate(judge, defect, size, seed, sequence, true);
  bool refused = false;
  verify::RunOptions replay = whole(judge.models);
  replay.keep = keeps_all;
  replay.decide = [&](const std::string& name, View<const double, 2> scores,
                      View<Index, 2> chosen) {
    const Tensor<Index, 2>& told = theirs.find(name)->chosen;
    for (Index t = 0; t < scores.shape[0]; ++t) {
      const auto set = verify::sorted_set(told.view()[t]);
      if (verify::is_explained(set, scores[t], judge.limits.scores.at(name).view()[t],
                               chosen.shape[1]))
        std::copy(told.view()[t].begin(), told.view()[t].end(), chosen[t].begin());
      else
        refused = true;
    }
  };
  const Variant definition = judge.models.exact();
  const verify::Run ours =
      verify::run_reference(definition.model, sequence, definition.ops, replay);
  for (const Trace::Entry& entry : ours.trace.entries()) {
    const Tensor<double, 2> got = theirs.trace.at(entry.name).values(), want = entry.values();
    const Tensor<double, 2>& allowed = judge.limits.tensors.at(entry.name);
    for (Index i = 0; i < got.size(); ++i)
      if (!(verify::in_units_of(allowed.data()[i], got.data()[i], want.data()[i]) <= 1))
        return true;
  }
  return refused;
}

/// The smallest size that is seen, to 10 %; infinity where the largest is not, 0 where a right run
/// already raises an alarm.
double smallest(const std::function<bool(double)>& seen, double largest) {
  if (seen(0)) return 0;
  if (!seen(largest)) return std::numeric_limits<double>::infinity();
  double below = std::log(1e-17), above = std::log(largest);
  while (above - below > std::log(1.1)) {
    const double middle = (below + above) / 2;
    (seen(std::exp(middle)) ? above : below) = middle;
  }
  return std::exp(above);
}

double median(std::vector<double> x) {
  std::sort(x.begin(), x.end());
  return x[x.size() / 2];
}

Json measure(const Judge& judge, int candidates) {
  std::vector<Scaled> defects = scaled_defects();
  std::erase_if(defects,
                [&](const Scaled& d) { return !d.applies(judge.models.definition.config); });
  const int n = static_cast<int>(defects.size());
  std::vector<std::vector<double>> logits(defects.size()), traces(defects.size());
  std::mutex appending;
  parallel_for(n * candidates, shared_loop_ns, [&](Index at) {
    const int d = static_cast<int>(at / candidates), c = static_cast<int>(at % candidates);
    const Scaled& defect = defects[static_cast<std::size_t>(d)];
    const std::uint64_t seed = 0xDEFEC7 + static_cast<std::uint64_t>(c);
    const double by_logits =
        smallest([&](double s) { return seen_in_logits(judge, defect, s, seed); }, defect.largest);
    const double by_trace =
        smallest([&](double s) { return seen_in_trace(judge, defect, s, seed); }, defect.largest);
    const std::lock_guard lock(appending);
    logits[static_cast<std::size_t>(d)].push_back(by_logits);
    traces[static_cast<std::size_t>(d)].push_back(by_trace);
  });
  const auto number = [](double x) { return std::isfinite(x) ? Json(x) : Json(nullptr); };
  Json list = Json::array();
  for (std::size_t d = 0; d < defects.size(); ++d) {
    const double l = median(logits[d]), t = median(traces[d]);
    std::printf("%-18s %-16s %-40s logits %8.1e  trace %8.1e\n", judge.setting.name().c_str(),
                defects[d].name.c_str(), defects[d].meaning.c_str(), l, t);
    list.push_back({{"defect", defects[d].name},
                    {"size", defects[d].meaning},
                    {"largest", defects[d].largest},
                    {"logits", number(l)},
                    {"trace", number(t)}});
  }
  std::fflush(stdout);
  return {{"setting", judge.setting.name()}, {"candidates", candidates}, {"defects", list}};
}

int run(const std::vector<std::string>& names, const std::string& samples, int candidates,
        const std::string& json, const verify::JudgeOptions& options,
        const std::string& command_line) {
  std::vector<Setting> settings;
  for (const std::string& name : names)
    settings.push_back(experiments::setting_named(samples, name));
  experiments::measure_each(
      settings,
      [&](const Setting& setting) { return measure(prepared(setting, options), candidates); }, json,
      what, options, command_line);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "visibility: how large must a defect be to be seen?\n\n"
      "Exit status: 0, 2 usage or bad input."};
  std::vector<std::string> names;
  std::string samples = "data/samples", json;
  int candidates = 3;
  verify::JudgeOptions options;
  options.runs = 8;
  app.add_option("SETTING", names, "SAMPLE:PRECISION, e.g. v32:hf-bf16")->required();
  app.add_option("--samples", samples, "Directory of samples")->capture_default_str();
  app.add_option("--candidates", candidates, "Over how many the median is taken")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--runs", options.runs, "Perturbed runs of each kind, of the judge")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--seed", options.seed, "Seed of the judge's runs")->capture_default_str();
  app.add_option("--json", json, "Put the rows into this file; rows of other settings stay");
  CLI11_PARSE(app, argc, argv);
  const std::string command_line = cli::command_line_of("visibility", argc, argv);
  try {
    return run(names, samples, candidates, json, options, command_line);
  } catch (const std::exception& e) {
    std::cerr << "visibility: " << e.what() << "\n";
    return 2;
  }
}
