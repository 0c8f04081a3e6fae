// optimized/cuda/device/device.hpp — whether the kernels of this build can run on a device: decided
// from what CUDA's runtime says of it, by no call to it, so that tests can invent devices.
#pragma once

#include <string>

#include "core/tensor.hpp"

namespace dsa::cuda {

/// Answers of the CUDA runtime before any memory is taken.
struct DeviceFacts {
  enum class Code { found, none, newer_than_driver };

  int driver = 0, runtime = 0;  // CUDA's versions as it counts them: 13020 is 13.2; 0: no driver
  int devices = 0;
  std::string name;
  int major = 0, minor = 0;  // compute capability
  Code code = Code::none;    // what the runtime answers when it is asked for one kernel
  Index free_memory = 0;     // bytes
  std::string trouble;       // not empty: what the runtime said to a question it did not answer
};

/// The largest case of the suite takes less than half of it.
constexpr Index least_memory = Index{256} << 20;

/// The missing requirement of a run on the device, to be read after "needs"; empty if nothing is
/// missing. `architectures`: the kernels were built for these, in CMake's words.
///
/// The driver, not `architectures`, decides which code a device can run: an sm_80 binary runs
/// on 8.6 but not on Orin's 8.7, one for 90a on 9.0 only, and PTX if the driver knows its version.
inline std::string what_is_missing(const DeviceFacts& d, const std::string& architectures) {
  const auto version = [](int v) {
    return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10);
  };
  const std::string capability = std::to_string(d.major) + "." + std::to_string(d.minor);
  const std::string build = "this build has code for " + architectures +
                            "; build with -DCMAKE_CUDA_ARCHITECTURES=" + std::to_string(d.major) +
                            std::to_string(d.minor) + (d.major >= 9 ? "a-real" : "-real");
  const bool old_driver = d.driver / 1000 < d.runtime / 1000;
  if (d.driver > 0 && old_driver)
    return "a driver for CUDA " + version(d.runtime) + ", found one for " + version(d.driver) +
           "; update it";
  if (d.devices == 0)
    return "a CUDA device, found none" + (d.trouble.empty() ? "" : " (" + d.trouble + ")");
  if (!d.trouble.empty())
    return "a CUDA device that answers, found one that says \"" + d.trouble + "\"";
  if (d.major < 8)
    return "a device of compute capability 8.0 or later, found " + d.name + " of " + capability;
  if (d.code == DeviceFacts::Code::newer_than_driver)
    return "a driver for CUDA " + version(d.runtime) + " to translate its PTX for " + d.name +
           " of " + capability + ", found one for " + version(d.driver) + "; update it, for " +
           build;
  if (d.code == DeviceFacts::Code::none)
    return "code for " + d.name + " of compute capability " + capability + ", but " + build;
  if (d.free_memory < least_memory)
    return std::to_string(least_memory >> 20) + " MiB of free memory on " + d.name + ", found " +
           std::to_string(d.free_memory >> 20) + " MiB; end what else runs there";
  return "";
}

}  // namespace dsa::cuda
