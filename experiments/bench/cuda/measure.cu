#include "experiments/bench/cuda/measure.hpp"
#include "experiments/bench/cuda/roof.cuh"
#include "experiments/bench/cuda/work.cuh"
#include "optimized/cuda/device/device.cuh"

namespace dsa::bench::DSA_PLACE {
namespace {

std::string device_name() {
#ifdef DSA_CUDA_ON_HOST
  return "the processor, emulating CUDA";
#else
  const std::string missing = what_is_missing();
  require(missing.empty(), "dsa-bench cuda needs " + missing +
                               "; --on-host rehearses the benchmark without a device");
  cudaDeviceProp properties{};
  CUDA_TRY(cudaGetDeviceProperties(&properties, 0));
  return properties.name;
#endif
}

DeviceRow measured(Timer& timer, const DeviceProblem& problem) {
  DeviceRow row{problem};
  try {
    const Times times = timer.time(work_of(problem), copies_of(problem));
    row.median_ms = times.median_ms, row.least_ms = times.least_ms, row.runs = times.runs;
  } catch (const Error& e) {
    row.error = e.what();
  }
  return row;
}

}  // namespace

DeviceReport measure(const std::vector<DeviceProblem>& problems, const OnRow& on_row) {
  DeviceReport report;
  report.device = device_name();
  Timer timer;
  const Roof roof = measure_roof(timer);
  report.roof_bytes = roof.bytes;
  report.roof_flops = roof.flops;
  for (const DeviceProblem& problem : problems) {
    report.rows.push_back(measured(timer, problem));
    on_row(report, report.rows.back());
  }
  return report;
}

}  // namespace dsa::bench::DSA_PLACE
