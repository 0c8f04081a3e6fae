#include "verify/commands/command.hpp"
#include "verify/kernels/files.hpp"
#include "verify/report/report.hpp"

namespace dsa::verify {
namespace {

using namespace kernels;

struct OpsArguments {
  Arguments common;
  OpsOptions options;
  std::string dump, against, layout, sums = "fp32";
};

int run(const OpsArguments& a, const std::string& command_line) {
  a.common.check_reports();
  OpsOptions options = a.options;
  options.progress = cli::progress();
  const PeerLayout* layout = a.layout.empty() ? nullptr : &peer_layout_named(a.layout);
  require(!layout || !a.dump.empty() || !a.against.empty(),
          "--layout says how --dump writes and --against reads files; give one of them");
  options.sums = a.sums == name_of(Sums::fp32) ? Sums::fp32 : Sums::hopper_fp8;
  require(options.sums == Sums::fp32 || !a.dump.empty() || !a.against.empty(),
          "--sums says what --dump allows and --against judges by; give one of them");
  if (layout && options.op.empty()) options.op = layout->op;
  if (!a.dump.empty()) {
    print(dump_cases(a.dump, options, layout));
    return 0;
  }
  OpsReport report =
      a.against.empty() ? check_kernels(options) : check_files(a.against, options, layout);
  report.receipt.command = command_line;
  write_if_asked(a.common.json, json_text(to_json(report)));
  print(table(report, is_coloured()));
  return exit_code(report.outcome);
}

}  // namespace

Command ops_command(CLI::App& parent) {
  const auto a = std::make_shared<OpsArguments>();
  CLI::App* app = parent.add_subcommand(
      "ops",
      "Judge kernels: every op of the model, by itself, on cases whose answers the reference "
      "knows\n"
      "and whose errors have derived bounds (docs/ops.md). Kernels of this build, or outputs that\n"
      "any other program wrote. Exit status: 0 all pass, 1 one fails, 2 usage or bad input,\n"
      "3 nothing could be run.");
  app->add_option("--op", a->options.op, "One op only, e.g. indexer_topk");
  CLI::Option* backend = app->add_option("--backend", a->options.backend, "One backend only")
                             ->check(CLI::IsMember({"cpu", "cuda"}));
  CLI::Option* rung =
      app->add_option("--rung,--isa", a->options.rung,
                      "One rung only: of cuda, e.g. v2; of cpu an instruction set, e.g. avx512");
  app->add_option("--dtype", a->options.dtype, "Kernels of one dtype only")
      ->check(CLI::IsMember({"fp32", "bf16", "fp8"}));
  CLI::Option* ran =
      app->add_option("--ran", a->options.ran,
                      "host: kernels that run on the processor; device: those built for a device")
          ->check(CLI::IsMember({"host", "device"}));
  CLI::Option* max_flops =
      cli::add_real(*app, "--max-flops", a->options.max_flops, {1, 1e18},
                    "Leave out cases of more operations (for sanitizers, which are slow)");
  CLI::Option* runs = cli::add_integer(*app, "--runs", a->options.runs, {1, 1000},
                                       "Runs of a case, which must give the same bits")
                          ->capture_default_str();
  cli::add_seed(*app, a->options.seed, "Seed of the inputs")->capture_default_str();
  add_json(*app, a->common, "the results");
  CLI::Option* dump =
      app->add_option("--dump", a->dump,
                      "Write every case to DIR instead: inputs, answers and allowed errors")
          ->excludes(backend, rung, ran, max_flops, runs, app->get_option("--json"));
  app->add_option("--against", a->against,
                  "Judge the outputs in DIR: safetensors files named as --dump names them")
      ->excludes(backend, rung, ran, max_flops, runs, dump);
  app->add_option("--layout", a->layout,
                  "Write and read the files as somebody's kernels are called")
      ->check(CLI::IsMember({"flashmla", "tilelang", "deepgemm"}));
  app->add_option(
         "--sums", a->sums,
         "How the kernel sums products of two e4m3 numbers (linear, indexer_scores,\n"
         "indexer_topk): in fp32, or in the FP8 tensor cores of Hopper, which keep 14 bits")
      ->check(CLI::IsMember({"fp32", "hopper-fp8"}))
      ->capture_default_str();
  return {app, [=](const std::string& command_line) { return run(*a, command_line); }};
}

}  // namespace dsa::verify
