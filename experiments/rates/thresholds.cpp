// experiments/rates/thresholds.cpp — what fixed thresholds on logits accept and reject.
//
// Right runs: the bf16 columns of samples, by HuggingFace, against its fp64 column. Broken runs:
// the reference in double with one published bug of the catalogue each, on the same tokens, and
// twins that somebody made of a sample (--twins). Prints the tables of docs/thresholds.md.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iostream>

#include "cli/program.hpp"
#include "core/recording.hpp"
#include "core/threads.hpp"
#include "verify/defects/defect.hpp"
#include "verify/measure/divergence.hpp"
#include "verify/runs/models.hpp"
#include "verify/runs/reference_run.hpp"

namespace {

using namespace dsa;
namespace fs = std::filesystem;

constexpr int order_of_ties = 36;     // either order is right by itself
constexpr int first_plausible = 201;  // numbers above have no report
constexpr double noticeable = 1e-6;   // the least mean KL of a bug that deserves the name here

/// How far a run's logits lie from those of fp64, over all rows that are no padding.
struct Figures {
  double relative_l2 = 0, cosine = 0;  // of all logits as one vector
  double top1 = 0, kl_mean = 0, kl_max = 0, perplexity_ratio = 0;
};

struct Run {
  std::string name;
  Figures figures;
};

/// One sample: right runs and broken ones.
struct Sample {
  std::string name;
  std::vector<Run> right, broken;
};

struct Threshold {
  const char *words, *report;
  bool (*accepts)(const Figures&);
};

constexpr Threshold thresholds[] = {
    {"relative L2 at most 0.64 %", "NVIDIA-NeMo/Automodel#3752",
     [](const Figures& f) { return f.relative_l2 <= 0.0064; }},
    {"cosine at least 0.9998", "ISEEKYAN/Megatron-LM#66",
     [](const Figures& f) { return f.cosine >= 0.9998; }},
    {"top-1 at least 96.6 %", "NVIDIA-NeMo/Automodel#3752",
     [](const Figures& f) { return f.top1 >= 0.966; }},
    {"perplexity at most 1.003 times", "ggml-org/llama.cpp#25407",
     [](const Figures& f) { return f.perplexity_ratio <= 1.003; }},
    {"KL of every row at most 2e-4", "AI-Hypercomputer/maxtext: its guide",
     [](const Figures& f) { return f.kl_max <= 2e-4; }},
    {"KL of every row at most 0.3", "AI-Hypercomputer/maxtext: its check of V3.2",
     [](const Figures& f) { return f.kl_max <= 0.3; }},
};

Figures compare(const Recording& golden, const std::vector<Tensor<double, 2>>& got) {
  double difference = 0, want_size = 0, got_size = 0, both = 0;
  std::vector<verify::LogitsRow> rows;
  for (std::size_t b = 0; b < got.size(); ++b) {
    const Sequence& s = golden.sequences[b];
    for (Index t = 0; t < s.size(); ++t) {
      const auto i = static_cast<std::size_t>(t);
      if (s.documents[i] < 0) continue;
      const bool has_next = t + 1 < s.size() && s.documents[i + 1] == s.documents[i];
      const auto want = golden.logits[b].view()[t], mine = got[b].view()[t];
      rows.push_back({{static_cast<Index>(b), t},
                      want,
                      mine,
                      s.tokens[i],
                      has_next ? s.tokens[i + 1] : Token{-1}});
      for (Index v = 0; v < want.size(); ++v) {
        difference += (mine(v) - want(v)) * (mine(v) - want(v));
        want_size += want(v) * want(v), got_size += mine(v) * mine(v), both += want(v) * mine(v);
      }
    }
  }
  const verify::LogitsMetrics m = verify::measure(rows);
  return {std::sqrt(difference / want_size),
          both / std::sqrt(want_size * got_size),
          m.top1,
          m.kl_mean,
          m.kl_max,
          m.perplexity_got.value_or(1) / m.perplexity_want.value_or(1)};
}

/// The sample's tokens by the reference with a defect. Error: it cannot run there.
std::vector<Tensor<double, 2>> logits_of(const verify::Variant& altered, const Recording& golden) {
  std::vector<Tensor<double, 2>> logits;
  verify::RunOptions run;
  run.span = {0, altered.model.config.num_hidden_layers};
  run.record_decisions = false;
  for (const Sequence& sequence : golden.sequences)
    logits.push_back(verify::run_reference(altered.model, sequence, altered.ops, run).logits);
  return logits;
}

void add_broken(Sample& sample, const fs::path& checkpoint, const Recording& golden) {
  const verify::ModelPair models =
      verify::open_models(checkpoint, reference::Precision::fp64, true);
  std::vector<const verify::Defect*> defects;
  for (const verify::Defect& d : verify::all_defects())
    if (d.number < first_plausible && d.number != order_of_ties && !d.convention &&
        d.applies(models.definition.config))
      defects.push_back(&d);
  std::vector<Run> runs(defects.size());
  parallel_for(static_cast<int>(defects.size()), models.in_memory ? shared_loop_ns : 0, [&](int i) {
    const auto at = static_cast<std::size_t>(i);
    verify::Variant altered = models.exact();
    defects[at]->variants.front().apply(altered);
    runs[at] = {defects[at]->name, compare(golden, logits_of(altered, golden))};
  });
  for (Run& run : runs)
    if (!(run.figures.kl_mean < noticeable)) sample.broken.push_back(std::move(run));
}

void add_twins(Sample& sample, const fs::path& folder, const Recording& golden) {
  std::vector<fs::path> files;
  if (fs::is_directory(folder))
    for (const fs::directory_entry& file : fs::directory_iterator(folder))
      if (const std::string name = file.path().filename().string();
          name.starts_with("twin-") && !name.ends_with(".trace.safetensors"))
        files.push_back(file.path());
  std::sort(files.begin(), files.end());
  for (const fs::path& file : files) {
    const Recording twin = read_recording(file, "", 0);
    if (!twin.logits.empty())
      sample.broken.push_back({file.stem().string(), compare(golden, twin.logits)});
  }
}

std::vector<Sample> samples_under(const fs::path& directory, const fs::path& twins) {
  require(twins.empty() || fs::is_directory(twins),
          "--twins " + twins.string() +
              " is no directory; expected one with SAMPLE/twin-*.safetensors");
  std::vector<fs::path> folders;
  for (const fs::directory_entry& folder : fs::directory_iterator(directory))
    if (fs::exists(folder.path() / "logits.safetensors")) folders.push_back(folder.path());
  std::sort(folders.begin(), folders.end());
  std::vector<Sample> samples;
  for (const fs::path& folder : folders) {
    const Recording golden = read_recording(folder / "logits.safetensors", "", 0);
    if (std::find(golden.columns.begin(), golden.columns.end(), "bf16") == golden.columns.end())
      continue;
    Sample sample{folder.filename().string(), {}, {}};
    const Recording bf16 = read_recording(folder / "logits.safetensors", "bf16", 0);
    sample.right.push_back({"right, in bf16", compare(golden, bf16.logits)});
    add_broken(sample, folder / "checkpoint", golden);
    if (!twins.empty()) add_twins(sample, twins / sample.name, golden);
    samples.push_back(std::move(sample));
  }
  require(!samples.empty(), directory.string() +
                                " has no folder with a logits.safetensors that holds logits in "
                                "bf16; expected one of samples, as data/samples");
  return samples;
}

std::string row_of(const std::string& sample, const Run& run) {
  const Figures& f = run.figures;
  return fmt::format("| {} | {} | {:.3g} % | {:.5f} | {:.1f} % | {:.2g} | {:.2g} | {:.4f} |\n",
                     sample, run.name, 100 * f.relative_l2, f.cosine, 100 * f.top1, f.kl_mean,
                     f.kl_max, f.perplexity_ratio);
}

/// Right runs, and of the broken ones the nearest to fp64, or all of them.
std::string table_of_runs(const std::vector<Sample>& samples, bool all) {
  constexpr std::size_t nearest = 3;
  std::string text =
      "| sample | run | relative L2 | cosine | top-1 | KL mean | KL max | perplexity, times |\n"
      "|---|---|---|---|---|---|---|---|\n";
  for (const Sample& sample : samples) {
    for (const Run& run : sample.right) text += row_of(sample.name, run);
    std::vector<Run> broken = sample.broken;
    std::stable_sort(broken.begin(), broken.end(), [](const Run& a, const Run& b) {
      return a.figures.kl_mean < b.figures.kl_mean;
    });
    if (!all && broken.size() > nearest) broken.resize(nearest);
    for (Run& run : broken) {
      run.name = "`" + run.name + "`";
      text += row_of(sample.name, run);
    }
  }
  return text;
}

std::string table_of_thresholds(const std::vector<Sample>& samples) {
  std::string text =
      "| threshold | in use at | right bf16 runs that it rejects | broken runs that it passes |\n"
      "|---|---|---|---|\n";
  for (const Threshold& threshold : thresholds) {
    std::string rejected, passed;
    std::size_t all_passed = 0, all_broken = 0;
    for (const Sample& sample : samples) {
      for (const Run& run : sample.right)
        if (!threshold.accepts(run.figures))
          rejected += (rejected.empty() ? "" : ", ") + sample.name;
      const auto count =
          std::count_if(sample.broken.begin(), sample.broken.end(),
                        [&](const Run& run) { return threshold.accepts(run.figures); });
      all_passed += static_cast<std::size_t>(count), all_broken += sample.broken.size();
      passed += fmt::format("{}{} {}", passed.empty() ? "" : ", ", sample.name, count);
    }
    text += fmt::format("| {} | {} | {} | {} of {}: {} |\n", threshold.words, threshold.report,
                        rejected.empty() ? "none" : rejected, all_passed, all_broken, passed);
  }
  return text;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "thresholds: which right runs do fixed thresholds on logits reject, and which broken ones do "
      "they pass?\n\nPrints the tables of docs/thresholds.md. Exit status: 0, or 2 for bad input."};
  std::string samples = "data/samples", twins;
  bool all = false;
  app.add_option("--samples", samples, "Directory of samples")->capture_default_str();
  app.add_option("--twins", twins,
                 "A directory with DIR/SAMPLE/twin-*.safetensors: broken runs of the samples");
  app.add_flag("--all", all, "List every broken run, not the three nearest of a sample");
  CLI11_PARSE(app, argc, argv);
  try {
    const std::vector<Sample> measured = samples_under(samples, twins);
    std::cout << table_of_thresholds(measured) << "\n" << table_of_runs(measured, all);
    return 0;
  } catch (const std::exception& e) {
    std::cerr << "thresholds: " << e.what() << "\n";
    return 2;
  }
}
