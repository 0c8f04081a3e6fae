// experiments/bench/cuda/measure.hpp — times of problems, beside the roof measured in the same run.
#pragma once

#include <algorithm>
#include <functional>

#include "experiments/bench/cuda/problems.hpp"

namespace dsa::bench {

struct DeviceRow {
  DeviceProblem problem;
  double median_ms = 0, least_ms = 0;
  int runs = 0;
  std::string error = {};  // not empty: why there is no time
};

struct DeviceReport {
  std::string device;                     // "NVIDIA H100 80GB HBM3"
  double roof_bytes = 0, roof_flops = 0;  // a second
  std::vector<DeviceRow> rows;

  /// The milliseconds that the roof allows.
  double roof_ms(const DeviceProblem& p) const {
    return 1e3 * std::max(p.flops / roof_flops, p.bytes / roof_bytes);
  }
};

using OnRow = std::function<void(const DeviceReport&, const DeviceRow&)>;

/// The text of an Error is kept in the row of its problem; the others go on. `on_row` is called
/// with each row as it comes.
namespace host {
DeviceReport measure(const std::vector<DeviceProblem>&, const OnRow& on_row);
}
namespace device {
/// Error: there is no device.
DeviceReport measure(const std::vector<DeviceProblem>&, const OnRow& on_row);
}  // namespace device

}  // namespace dsa::bench
