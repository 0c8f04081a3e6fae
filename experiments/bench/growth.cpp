// How the cost of a layer grows with the context, and where sparse attention overtakes dense.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>

#include "core/file.hpp"
#include "core/json.hpp"
#include "core/outputs.hpp"
#include "experiments/bench/bench.hpp"
#include "experiments/bench/shapes.hpp"
#include "optimized/cpu/ops/tier.hpp"
#include "verify/receipt.hpp"
#include "verify/report/report.hpp"

namespace dsa::bench {
namespace {

using namespace dsa::verify;
using namespace dsa::verify::kernels;

constexpr Index chunk = 256;

struct GrowthArguments {
  std::string dtype = "bf16", json;
  Index longest = 65536;
  int repeats = 3;
};

Kernel best_kernel(const std::string& op, const std::string& dtype) {
  const std::string_view tier = name_of(cpu::usable_tiers().back());
  for (const Kernel& kernel : all_kernels())
    if (kernel.backend == "cpu" && kernel.op == op && kernel.dtype == dtype && kernel.rung == tier)
      return kernel;
  throw Error("there is no kernel of " + op + " for --dtype " + dtype +
              "; choose fp32, bf16 or fp8");
}

/// Milliseconds of the last `chunk` queries of a context of S, the best of some.
double milliseconds(const Kernel& kernel, const Case& c, int repeats) {
  Arrays out = c.out;
  const Launch launch = kernel.prepare(c, out);
  double best = 1e300;
  for (int i = 0; i <= repeats; ++i) {  // the first warms up
    const auto begin = std::chrono::steady_clock::now();
    launch.run();
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
    if (i > 0) best = std::min(best, took.count());
  }
  return best;
}

/// The time of a whole prefill of S tokens, in seconds: the trapezium rule over chunks at the
/// contexts measured so far.
double prefill_seconds(const std::vector<std::pair<Index, double>>& at) {
  double sum = 0;
  Index before = 0;
  double cost = at.front().second;
  for (const auto& [S, ms] : at) {
    sum += static_cast<double>(S - before) / chunk * (cost + ms) / 2;
    before = S, cost = ms;
  }
  return sum / 1e3;
}

constexpr const char* ops[] = {"indexer_topk", "mla_sparse", "mla_dense", "mla_expanded"};

/// Milliseconds of each op, and what indexer and sparse attention cost together; of dense
/// attention, the form that costs less.
struct Costs {
  std::map<std::string, double> ms;

  double sparse() const { return ms.at("indexer_topk") + ms.at("mla_sparse"); }
  double dense() const { return std::min(ms.at("mla_dense"), ms.at("mla_expanded")); }
};

int run(const GrowthArguments& a, const std::string& command_line) {
  check_outputs({a.json}, {});
  std::map<std::string, Kernel> kernels;
  for (const std::string op : ops) kernels[op] = best_kernel(op, a.dtype);
  std::map<std::string, std::vector<std::pair<Index, double>>> taken;
  Json rows = Json::array();
  std::cout << fmt::format("{:>8} {:>12} {:>12} {:>14} {:>14} {:>16} {:>16}\n", "context",
                           "indexer, ms", "sparse, ms", "absorbed, ms", "expanded, ms",
                           "indexer, total", "sparse, total");
  Index crossover = 0;
  for (Index S = 1024; S <= a.longest; S *= 2) {
    Json row = {{"context", S}, {"queries", chunk}};
    Costs costs;
    for (const std::string op : ops) {
      const Case c = chunk_case(op, a.dtype, chunk, S);
      costs.ms[op] = milliseconds(kernels[op], c, a.repeats);
      taken[op].emplace_back(S, costs.ms[op]);
      row[op + "_ms"] = costs.ms[op];
      row[op + "_prefill_s"] = prefill_seconds(taken[op]);
    }
    if (costs.sparse() >= costs.dense())
      crossover = 0;
    else if (!crossover)
      crossover = S;
    std::cout << fmt::format(
                     "{:>8} {:>12.2f} {:>12.2f} {:>14.2f} {:>14.2f} {:>14.2f} s {:>14.2f} s\n", S,
                     costs.ms[ops[0]], costs.ms[ops[1]], costs.ms[ops[2]], costs.ms[ops[3]],
                     prefill_seconds(taken[ops[0]]), prefill_seconds(taken[ops[1]]))
              << std::flush;
    rows.push_back(std::move(row));
  }
  std::cout << (crossover
                    ? fmt::format("from a context of {} on, indexer and sparse attention together "
                                  "cost less than the better form of dense attention\n",
                                  crossover)
                    : "at the longest context measured, dense attention costs less\n");
  Receipt receipt = make_receipt();
  receipt.command = command_line;
  if (!a.json.empty())
    write_text(a.json, json_text({{"dtype", a.dtype},
                                  {"rows", rows},
                                  {"crossover", crossover},
                                  {"receipt", receipt_json(receipt)}}));
  return 0;
}

}  // namespace

Command growth_command(CLI::App& parent) {
  const auto a = std::make_shared<GrowthArguments>();
  CLI::App* app = parent.add_subcommand(
      "growth",
      "Time a chunk of 256 queries of one layer of bench-mid at contexts from 1024 on, each twice\n"
      "the last: indexer with selection, sparse attention, and dense attention in absorbed and in\n"
      "expanded form of MLA; and sum them up to a prefill. Tells from which context on sparse\n"
      "attention pays.");
  app->add_option("--dtype", a->dtype, "fp32, bf16 or fp8")->capture_default_str();
  cli::add_integer(*app, "--longest", a->longest, {1024, Index{1} << 20}, "The last context")
      ->capture_default_str();
  cli::add_integer(*app, "--repeats", a->repeats, {1, 1000}, "The best of so many runs counts")
      ->capture_default_str();
  app->add_option("--json", a->json, "Write the table as JSON to this file");
  return {app, [=](const std::string& command_line) { return run(*a, command_line); }};
}

}  // namespace dsa::bench
