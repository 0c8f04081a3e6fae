// dsa-verify — the judge, from the command line.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>

#include "core/file.hpp"
#include "verify/diagnose.hpp"
#include "verify/judge.hpp"
#include "verify/power.hpp"
#include "verify/report.hpp"
#include "verify/samples.hpp"

namespace {

using namespace dsa;
using namespace dsa::verify;

constexpr const char* about = R"(dsa-verify: is this output what the model's definition says?

The definition is a double-precision reference of DeepSeek-V2, V3, V3.2 and GLM-5 with sparse
attention. Limits are derived from perturbed runs of it at the declared precision, never built in.

  dsa-verify golden CHECKPOINT GOLDEN                    is this golden right?
  dsa-verify golden CHECKPOINT GOLDEN --candidate FILE   is my implementation right?
  dsa-verify diagnose CHECKPOINT CANDIDATE               which known defect explains it?
  dsa-verify power CHECKPOINT GOLDEN                     which known defects could it see?
  dsa-verify samples DIR                                 judge every golden of a directory

Exit status: 0 pass, 1 fail, 2 usage or bad input, 3 inconclusive.)";

struct Arguments {
  std::string checkpoint, golden, candidate, samples, backend = "reference", precision, layers;
  std::string json, junit, html;
  double max_kl_div = 0, atol = 0, rtol = 0;
  JudgeOptions options;
};

void add_sampling(CLI::App& app, Arguments& a) {
  app.add_option("--runs", a.options.runs, "Perturbed runs of each kind, from which limits come")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--seed", a.options.seed, "Seed of the perturbed runs")->capture_default_str();
  app.add_option("--alpha", a.options.alpha,
                 "Probability of rejecting a right result, over all checks of a judgement")
      ->check(CLI::Range(1e-12, 0.5))
      ->capture_default_str();
}

void add_outputs(CLI::App& app, Arguments& a) {
  app.add_option("--json", a.json, "Write the verdict as JSON (docs/report.md) to this file");
  app.add_option("--junit", a.junit, "Write it as JUnit XML to this file");
  app.add_option("--html", a.html, "Write it as one self-contained HTML page to this file");
  add_sampling(app, a);
}

CLI::App* add_golden(CLI::App& app, Arguments& a) {
  CLI::App* golden = app.add_subcommand(
      "golden",
      "Judge GOLDEN (alone), or CANDIDATE by GOLDEN and by the definition.\n"
      "GOLDEN and FILE are safetensors (tokens, logits.fp64|fp32|bf16 or logits, attention_mask,\n"
      "traces under HuggingFace module names) or MaxText JSON lines; see data/README.md.");
  golden->add_option("CHECKPOINT", a.checkpoint, "Directory with config.json and safetensors")
      ->required();
  golden->add_option("GOLDEN", a.golden, "Token ids with HuggingFace's logits or trace")
      ->required();
  auto* candidate = golden->add_option("--candidate", a.candidate,
                                       "Logits or trace of the implementation to be judged");
  golden->add_option("--backend", a.backend, "Which of ours is held against GOLDEN: reference")
      ->check(CLI::IsMember({"reference"}))
      ->excludes(candidate);
  golden
      ->add_option("--dtype", a.options.dtype,
                   "Column of GOLDEN: fp64, fp32 or bf16 (default: the most precise)")
      ->check(CLI::IsMember({"fp64", "fp32", "bf16"}));
  golden->add_option("--precision", a.precision,
                     "How the judged side was computed: fp64, hf-fp32, hf-bf16 or official-fp8\n"
                     "(default: the dtype of its file; a bf16 run stored as F32 needs it)");
  golden->add_option("--layers", a.layers, "Verify the span A:B of layers only (needs a trace)");
  golden->add_option("--max-kl-div,--max_kl_div", a.max_kl_div,
                     "A limit of yours on the KL divergence of every row, in place of ours");
  golden->add_option("--atol", a.atol, "A limit of yours: |got - want| <= atol + rtol |want|");
  golden->add_option("--rtol", a.rtol, "See --atol");
  golden->add_flag("--own-error", a.options.own_error,
                   "Also run the reference in long double and state its own rounding error");
  add_outputs(*golden, a);
  return golden;
}

CLI::App* add_diagnose(CLI::App& app, Arguments& a) {
  CLI::App* diagnose =
      app.add_subcommand("diagnose",
                         "Run the reference with every known defect in turn (docs/defects.md), and "
                         "name the one, or the\n"
                         "pair, under which nothing of CANDIDATE is left beyond its noise. "
                         "CANDIDATE holds its tokens.\n"
                         "Exit status: 0 correct, 1 a defect or unknown, 2 usage or bad input.");
  diagnose->add_option("CHECKPOINT", a.checkpoint, "Directory with config.json and safetensors")
      ->required();
  diagnose->add_option("CANDIDATE", a.candidate, "Tokens with somebody's logits or trace")
      ->required();
  diagnose->add_option("--dtype", a.options.dtype, "Column of CANDIDATE: fp64, fp32 or bf16")
      ->check(CLI::IsMember({"fp64", "fp32", "bf16"}));
  diagnose->add_option("--precision", a.precision,
                       "How it was computed: fp64, hf-fp32, hf-bf16 or official-fp8\n"
                       "(default: the dtype of its file)");
  diagnose->add_option("--json", a.json, "Write the diagnosis as JSON to this file");
  add_sampling(*diagnose, a);
  return diagnose;
}

CLI::App* add_power(CLI::App& app, Arguments& a) {
  CLI::App* power = app.add_subcommand("power",
                                       "The detection matrix of GOLDEN: which known defects "
                                       "(docs/defects.md) it would catch, through\n"
                                       "logits, traces and decisions, and how far above the limit; "
                                       "and what to add to see the rest.\n"
                                       "Exit status: 0, 2 usage or bad input.");
  power->add_option("CHECKPOINT", a.checkpoint, "Directory with config.json and safetensors")
      ->required();
  power->add_option("GOLDEN", a.golden, "Token ids with HuggingFace's logits or trace")->required();
  power->add_option("--dtype", a.options.dtype, "Column of GOLDEN: fp64, fp32 or bf16")
      ->check(CLI::IsMember({"fp64", "fp32", "bf16"}));
  power->add_option("--json", a.json, "Write the matrix as JSON to this file");
  add_sampling(*power, a);
  return power;
}

std::pair<Index, Index> span_of(const std::string& text) {
  long long begin = 0, end = 0;
  char rest = 0;
  require(std::sscanf(text.c_str(), "%lld:%lld%c", &begin, &end, &rest) == 2,
          "--layers \"" + text + "\" is not a span; give A:B, e.g. 0:2");
  return {begin, end};
}

/// "golden, sequence 1 of 2  [#####     ] 12/32", over and over on one line of a terminal.
void show_progress(const std::string& what, int done, int of) {
  constexpr int width = 24;
  std::string bar(static_cast<std::size_t>(width * done / std::max(of, 1)), '#');
  bar.resize(width, ' ');
  std::fprintf(stderr, "\r\033[K%s  [%s] %d/%d", what.c_str(), bar.c_str(), done, of);
  std::fflush(stderr);
}

void clear_progress() {
  if (isatty(STDERR_FILENO)) std::fprintf(stderr, "\r\033[K");
}

void write_if_asked(const std::string& file, const std::string& text) {
  if (!file.empty()) write_text(file, text);
}

/// One line, whatever the message holds.
std::string one_line(std::string text) {
  for (char& c : text)
    if (c == '\n' || c == '\r') c = ' ';
  return text;
}

int run_golden(Arguments& a, const CLI::App& app, const std::string& command) {
  if (!a.precision.empty()) a.options.precision = reference::precision_named(a.precision);
  if (!a.layers.empty()) a.options.layers = span_of(a.layers);
  if (app.count("--max-kl-div")) a.options.max_kl_div = a.max_kl_div;
  if (app.count("--atol")) a.options.atol = a.atol;
  if (app.count("--rtol")) a.options.rtol = a.rtol;
  std::optional<std::filesystem::path> candidate;
  if (!a.candidate.empty()) candidate = a.candidate;
  Verdict verdict = judge(a.checkpoint, a.golden, candidate, a.options);
  verdict.receipt.command = command;
  clear_progress();
  std::cout << table(verdict, isatty(STDOUT_FILENO));
  write_if_asked(a.json, to_json(verdict).dump(2) + "\n");
  write_if_asked(a.junit, to_junit({verdict}));
  write_if_asked(a.html, to_html({verdict}));
  return exit_code(verdict.outcome);
}

int run_diagnose(Arguments& a, const std::string& command) {
  if (!a.precision.empty()) a.options.precision = reference::precision_named(a.precision);
  Diagnosis diagnosis = diagnose(a.checkpoint, a.candidate, a.options);
  diagnosis.receipt.command = command;
  clear_progress();
  std::cout << table(diagnosis);
  write_if_asked(a.json, to_json(diagnosis).dump(2) + "\n");
  return exit_code(diagnosis);
}

int run_power(Arguments& a, const std::string& command) {
  Power result = power(a.checkpoint, a.golden, a.options);
  result.receipt.command = command;
  clear_progress();
  std::cout << table(result);
  write_if_asked(a.json, to_json(result).dump(2) + "\n");
  return 0;
}

int run_samples(Arguments& a, const std::string& command) {
  std::vector<Verdict> verdicts;
  for (const Sample& sample : find_samples(a.samples)) {
    a.options.dtype = sample.dtype;
    verdicts.push_back(judge(sample.checkpoint, sample.golden, std::nullopt, a.options));
    verdicts.back().receipt.command = command;
    if (!sample.dtype.empty()) verdicts.back().golden += " (" + sample.dtype + ")";
  }
  clear_progress();
  std::cout << summary_table(verdicts, isatty(STDOUT_FILENO));
  write_if_asked(a.json, to_json(verdicts).dump(2) + "\n");
  write_if_asked(a.junit, to_junit(verdicts));
  write_if_asked(a.html, to_html(verdicts));
  return exit_code(outcome_of_samples(verdicts));
}

}  // namespace

int main(int argc, char** argv) {
  Arguments a;
  CLI::App app{about};
  app.require_subcommand(1);
  app.set_version_flag("--version", DSA_VERSION);
  CLI::App* golden = add_golden(app, a);
  CLI::App* diagnosing = add_diagnose(app, a);
  CLI::App* weighing = add_power(app, a);
  CLI::App* samples = app.add_subcommand(
      "samples",
      "Judge every golden under DIR: NAME/checkpoint with NAME/*.safetensors beside it.");
  samples->add_option("DIR", a.samples, "Directory of samples")->required();
  add_outputs(*samples, a);
  const std::vector<CLI::App*> commands = app.get_subcommands({});
  const auto is_named = [&](const CLI::App* c) { return c->get_name() == argv[1]; };
  if (argc > 1 && argv[1][0] != '-' && std::none_of(commands.begin(), commands.end(), is_named)) {
    std::cerr << "dsa-verify: there is no command \"" << argv[1] << "\"; see dsa-verify --help\n";
    return 2;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& e) {
    std::cerr << "dsa-verify: " << one_line(e.what()) << "; see dsa-verify --help\n";
    return 2;
  }
  std::string command = "dsa-verify";
  for (int i = 1; i < argc; ++i) command += " " + std::string(argv[i]);
  if (isatty(STDERR_FILENO)) a.options.progress = show_progress;
  try {
    if (golden->parsed()) return run_golden(a, *golden, command);
    if (diagnosing->parsed()) return run_diagnose(a, command);
    if (weighing->parsed()) return run_power(a, command);
    return run_samples(a, command);
  } catch (const std::exception& e) {
    clear_progress();
    std::cerr << "dsa-verify: " << one_line(e.what()) << "\n";
    return 2;
  }
}
