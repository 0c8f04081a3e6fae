// Every op of the suite timed at bench-mid's sizes, against the roofline of this machine.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <memory>
#include <regex>

#include "core/file.hpp"
#include "core/outputs.hpp"
#include "core/temporary.hpp"
#include "experiments/bench/bench.hpp"
#include "experiments/bench/shapes.hpp"
#include "optimized/cpu/ops/peaks.hpp"
#include "verify/kernels/suite.hpp"
#include "verify/receipt.hpp"

namespace dsa::bench {
namespace {

using namespace dsa::verify;
using namespace dsa::verify::kernels;

struct OpsArguments {
  std::string op, tier = std::string(name_of(cpu::usable_tiers().back())), dtype, filter, json;
  double min_time = 0.5;
};

/// The limits of this machine: operations and bytes a second.
struct Roof {
  double flops = 0, bytes = 0;
  double seconds(const Case& c) const { return std::max(c.flops / flops, c.bytes / bytes); }
};

/// Empty, or what is wrong: a fast wrong answer is not a result.
std::string judged(const Kernel& kernel) {
  const Op& op = op_named(kernel.op);
  KernelResult result;
  result.op = kernel.op;
  result.dtype = kernel.dtype;
  for (const auto& pose : op.cases(1)) {
    const Case c = pose();
    if (c.dtype == kernel.dtype && c.inputs == Inputs::gaussian) result.add(c, run_case(kernel, c));
  }
  result.conclude();
  return result.verdict == KernelVerdict::pass ? "" : result.why;
}

void time_op(benchmark::State& state, const Kernel& kernel, const Shape& shape, const Roof& roof) {
  if (const std::string why = judged(kernel); !why.empty()) return state.SkipWithError(why.c_str());
  const Case c = shape.pose(kernel.dtype);
  Arrays out = c.out;
  const Launch launch = kernel.prepare(c, out);
  for (auto _ : state) launch.run();
  if (launch.fetch) launch.fetch();
  using benchmark::Counter;
  if (c.flops > 0) state.counters["flop/s"] = Counter(c.flops, Counter::kIsIterationInvariantRate);
  state.counters["B/s"] = Counter(c.bytes, Counter::kIsIterationInvariantRate);
  state.counters["of_roof"] = Counter(roof.seconds(c), Counter::kIsIterationInvariantRate);
}

struct Problem {
  std::string name;  // OP/DTYPE/TIER/SHAPE
  Kernel kernel;
  Shape shape;
};

/// Error: there are none, or the filter is no regular expression.
std::vector<Problem> problems(const OpsArguments& a) {
  std::regex filter;
  try {
    filter = std::regex(a.filter, std::regex::extended);
  } catch (const std::regex_error&) {
    throw Error("--filter " + a.filter + " is no regular expression");
  }
  std::vector<Problem> all;
  for (const Kernel& kernel : all_kernels())
    if (kernel.backend == "cpu" && kernel.rung == a.tier && (a.op.empty() || a.op == kernel.op) &&
        (a.dtype.empty() || a.dtype == kernel.dtype))
      for (const Shape& shape : bench_mid_shapes()) {
        const std::string name =
            kernel.op + "/" + kernel.dtype + "/" + kernel.rung + "/" + shape.label;
        if (shape.op == kernel.op && std::regex_search(name, filter))
          all.push_back({name, kernel, shape});
      }
  require(!all.empty(),
          "no problem of these names; `dsa-verify ops` lists ops and dtypes, and "
          "--filter is searched for in OP/DTYPE/TIER/SHAPE");
  return all;
}

/// Google Benchmark over the problems registered; its JSON, too, where a path is given.
void run_benchmarks(const std::string& json) {
  const TemporaryDirectory folder;
  const std::string written = folder.path() / "benchmark.json";
  std::vector<std::string> words = {"dsa-bench"};
  if (!json.empty()) {
    words.push_back("--benchmark_out=" + written);
    words.push_back("--benchmark_out_format=json");
  }
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  int argc = static_cast<int>(argv.size());
  benchmark::Initialize(&argc, argv.data());
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  if (!json.empty()) write_text(json, read_text(written));
}

int run(const OpsArguments& a, const std::string& command_line) {
  check_outputs({a.json}, {});
  const cpu::Cpu on{cpu::tier_named(a.tier)};
  const std::vector<Problem> all = problems(a);
  const double bandwidth = cpu::read_bandwidth(on);
  const Roof fp32{cpu::matrix_peak(on, Dtype::f32), bandwidth},
      bf16{cpu::matrix_peak(on, Dtype::bf16), bandwidth};
  const Receipt receipt = make_receipt();
  for (const auto& [key, value] : std::vector<std::pair<std::string, std::string>>{
           {"dsa", receipt.version},
           {"commit", receipt.commit},
           {"command", command_line},
           {"compiler", receipt.compiler},
           {"device", receipt.device},
           {"tier", a.tier},
           {"peak fp32, Gflop/s", std::to_string(fp32.flops / 1e9)},
           {"peak bf16, Gflop/s", std::to_string(bf16.flops / 1e9)},
           {"read bandwidth, GB/s", std::to_string(bandwidth / 1e9)}})
    benchmark::AddCustomContext(key, value);
  for (const Problem& p : all)
    benchmark::RegisterBenchmark(p.name.c_str(),
                                 [&](benchmark::State& state) {
                                   time_op(state, p.kernel, p.shape,
                                           p.kernel.dtype == "fp32" ? fp32 : bf16);
                                 })
        ->UseRealTime()
        ->MinTime(a.min_time)
        ->Unit(benchmark::kMillisecond);
  run_benchmarks(a.json);
  return 0;
}

}  // namespace

Command ops_command(CLI::App& parent) {
  const auto a = std::make_shared<OpsArguments>();
  CLI::App* app = parent.add_subcommand(
      "ops",
      "Time every op of the CPU backend at the sizes of bench-mid. of_roof: the time that the\n"
      "measured matrix rate and memory bandwidth of this machine allow, over the time taken. A\n"
      "kernel that its suite (dsa-verify ops) finds wrong is not timed. Inputs are the same every\n"
      "time: a problem that fits into a cache may exceed the bandwidth of memory, and 1.");
  app->add_option("--op", a->op, "One op");
  app->add_option("--dtype", a->dtype, "fp32, bf16 or fp8");
  app->add_option("--isa", a->tier, "Instruction set")->capture_default_str();
  app->add_option("--filter", a->filter, "A regular expression on OP/DTYPE/TIER/SHAPE");
  cli::add_real(*app, "--min-time", a->min_time, {.above = true}, "Seconds a problem")
      ->capture_default_str();
  app->add_option("--json", a->json, "Write Google Benchmark's JSON to this file");
  return {app, [=](const std::string& command_line) { return run(*a, command_line); }};
}

}  // namespace dsa::bench
