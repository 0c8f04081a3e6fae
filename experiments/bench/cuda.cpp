// The CUDA kernels at published sizes, on the device; or a rehearsal of that on the host.
#include <fmt/format.h>

#include <iostream>
#include <memory>

#include "core/file.hpp"
#include "core/json.hpp"
#include "core/outputs.hpp"
#include "experiments/bench/bench.hpp"
#include "experiments/bench/cuda/measure.hpp"
#include "verify/receipt.hpp"
#include "verify/report/report.hpp"

namespace dsa::bench {
namespace {

struct CudaArguments {
  std::string op, json;
  bool on_host = false, list = false;
};

std::vector<DeviceProblem> asked(const CudaArguments& a) {
  std::vector<DeviceProblem> problems = a.on_host ? host_problems() : device_problems();
  std::erase_if(problems, [&](const DeviceProblem& p) { return !a.op.empty() && p.op != a.op; });
  require(!problems.empty(),
          "no problem is of op \"" + a.op + "\"; dsa-bench cuda --list has them");
  return problems;
}

std::string name_of(const DeviceProblem& p) {
  return fmt::format("{:<16} {:<5} {:<10} {:<10} {:<44}", p.op, p.dtype, p.rung, p.label,
                     p.shape());
}

void print_list(const std::vector<DeviceProblem>& problems) {
  std::cout << fmt::format("{:<89} {:>9} {:>8} {:>10}\n", "", "Tflop", "GB", "memory, GB");
  for (const DeviceProblem& p : problems)
    std::cout << fmt::format("{} {:>9.3f} {:>8.3f} {:>10.2f}\n", name_of(p), p.flops / 1e12,
                             p.bytes / 1e9, memory_of(p) / 1e9);
}

void print_row(const DeviceReport& report, const DeviceRow& row) {
  const DeviceProblem& p = row.problem;
  if (report.rows.size() == 1)
    std::cout << fmt::format("{:<89} {:>9} {:>9} {:>9} {:>8}\n", "", "ms", "Tflop/s", "GB/s",
                             "of roof");
  if (!row.error.empty()) {
    std::cout << fmt::format("{} {}\n", name_of(p), row.error) << std::flush;
    return;
  }
  std::cout << fmt::format("{} {:>9.3f} {:>9.1f} {:>9.1f} {:>7.1f}%\n", name_of(p), row.median_ms,
                           p.flops / row.median_ms / 1e9, p.bytes / row.median_ms / 1e6,
                           100 * report.roof_ms(p) / row.median_ms)
            << std::flush;
}

Json problem_json(const DeviceProblem& p) {
  Json json = {{"op", p.op},         {"dtype", p.dtype}, {"rung", p.rung},  {"label", p.label},
               {"shape", p.shape()}, {"flops", p.flops}, {"bytes", p.bytes}};
  for (const auto& [letter, n] : p.sizes) json["sizes"][std::string(1, letter)] = n;
  return json;
}

Json row_json(const DeviceReport& report, const DeviceRow& row) {
  const DeviceProblem& p = row.problem;
  Json json = problem_json(p);
  json["error"] = row.error;
  if (!row.error.empty()) return json;
  json["ms"] = row.median_ms;
  json["least_ms"] = row.least_ms;
  json["runs"] = row.runs;
  json["tflop_per_s"] = p.flops / row.median_ms / 1e9;
  json["gb_per_s"] = p.bytes / row.median_ms / 1e6;
  json["of_roof"] = report.roof_ms(p) / row.median_ms;
  json["bound_by"] = p.flops / report.roof_flops > p.bytes / report.roof_bytes ? "flops" : "bytes";
  return json;
}

Json report_json(const DeviceReport& report, bool on_host, const std::string& command_line) {
  verify::Receipt receipt = verify::make_receipt();
  receipt.command = command_line;
  Json rows = Json::array();
  for (const DeviceRow& row : report.rows) rows.push_back(row_json(report, row));
  return {
      {"ran", on_host ? "host" : "device"},
      {"device", report.device},
      {"roof", {{"gb_per_s", report.roof_bytes / 1e9}, {"tflop_per_s", report.roof_flops / 1e12}}},
      {"formulas", formulas()},
      {"rows", rows},
      {"receipt", verify::receipt_json(receipt)}};
}

DeviceReport measure([[maybe_unused]] const CudaArguments& a,
                     const std::vector<DeviceProblem>& problems) {
  if (a.on_host) return host::measure(problems, print_row);
#ifdef DSA_BENCH_CUDA
  return device::measure(problems, print_row);
#else
  throw Error(
      "this build times nothing on a device: it was configured without nvcc 12.8 or later, without "
      "cuBLAS, or with DSA_CUDA=OFF");
#endif
}

int run(const CudaArguments& a, const std::string& command_line) {
  check_outputs({a.json}, {});
  const std::vector<DeviceProblem> problems = asked(a);
  if (a.list) {
    print_list(problems);
    Json list = Json::array();
    for (const DeviceProblem& p : problems) list.push_back(problem_json(p));
    if (!a.json.empty())
      write_text(a.json, json_text({{"formulas", formulas()}, {"problems", list}}));
    return 0;
  }
  const DeviceReport report = measure(a, problems);
  std::cout << fmt::format("{}: reads {:.0f} GB/s, multiplies bf16 at {:.1f} Tflop/s\n",
                           report.device, report.roof_bytes / 1e9, report.roof_flops / 1e12);
  if (!a.json.empty()) write_text(a.json, json_text(report_json(report, a.on_host, command_line)));
  return std::all_of(report.rows.begin(), report.rows.end(),
                     [](const DeviceRow& row) { return row.error.empty(); })
             ? 0
             : 2;
}

}  // namespace

Command cuda_command(CLI::App& parent) {
  const auto a = std::make_shared<CudaArguments>();
  CLI::App* app = parent.add_subcommand(
      "cuda",
      "Time the CUDA kernels on the device, at the sizes that such kernels are published at: "
      "median\n"
      "of up to 30 runs, between events; other inputs and a flushed L2 cache every time. of_roof: "
      "the\n"
      "time that the memory bandwidth and cuBLAS's bf16 rate, measured in the same run, allow for\n"
      "the counted bytes and operations, over the time taken. Judge kernels first (dsa-verify "
      "ops).");
  app->add_option("--op", a->op, "One op");
  app->add_flag(
      "--on-host", a->on_host,
      "Rehearse: small sizes, executed by the host's emulation of CUDA; times mean nothing");
  app->add_flag("--list", a->list, "Only say what would be timed, what it costs and needs");
  app->add_option("--json", a->json, "Write the rows as JSON to this file");
  return {app, [=](const std::string& command_line) { return run(*a, command_line); }};
}

}  // namespace dsa::bench
