// Messages about devices that the kernels cannot run on: invented ones, and this machine's.
#include "optimized/cuda/device/device.hpp"

#include "optimized/backends.hpp"
#include "tests/catch.hpp"
#include "tests/models.hpp"
#include "verify/kernels/backends/cuda.hpp"
#include "verify/kernels/suite.hpp"

using Catch::Matchers::Contains;
using namespace dsa;
using namespace dsa::verify;
using namespace dsa::verify::kernels;
using cuda::DeviceFacts;

namespace {

/// An H100 on which everything is as it should be.
DeviceFacts right() {
  DeviceFacts d;
  d.driver = 13010, d.runtime = 13000, d.devices = 1;
  d.name = "NVIDIA H100", d.major = 9;
  d.code = DeviceFacts::Code::found;
  d.free_memory = Index{80} << 30;
  return d;
}

std::string missing(const DeviceFacts& d) { return cuda::what_is_missing(d, "80-real 90a-real"); }

}  // namespace

TEST_CASE("a device that lacks nothing is used, also by an older driver of the same CUDA",
          "[cuda-device]") {
  DeviceFacts d = right();
  CHECK(missing(d).empty());
  d.driver = 13000;
  d.runtime = 13020;
  CHECK(missing(d).empty());
  d.free_memory = cuda::least_memory;
  CHECK(missing(d).empty());
}

TEST_CASE("what is missing of a device is said in one clause, the root of it first",
          "[cuda-device]") {
  DeviceFacts d;
  CHECK(missing(d) == "a CUDA device, found none");
  d.runtime = 13000, d.trouble = "no CUDA-capable device is detected";
  CHECK(missing(d) == "a CUDA device, found none (no CUDA-capable device is detected)");
  d.driver = 12040, d.trouble = "CUDA driver version is insufficient for CUDA runtime version";
  CHECK(missing(d) == "a driver for CUDA 13.0, found one for 12.4; update it");

  d = right();
  d.name = "Tesla V100", d.major = 7, d.code = DeviceFacts::Code::none, d.free_memory = 0;
  CHECK(missing(d) == "a device of compute capability 8.0 or later, found Tesla V100 of 7.0");

  d = right();
  d.trouble = "all CUDA-capable devices are busy or unavailable";
  CHECK_THAT(missing(d), Contains("a CUDA device that answers") && Contains("busy"));

  d = right();
  d.free_memory = cuda::least_memory - 1;
  CHECK(missing(d) ==
        "256 MiB of free memory on NVIDIA H100, found 255 MiB; end what else runs there");
}

TEST_CASE("a device that no code was built for is told what was, and what to build",
          "[cuda-device]") {
  DeviceFacts d = right();
  d.name = "RTX 5090", d.major = 12, d.code = DeviceFacts::Code::none;
  CHECK(missing(d) ==
        "code for RTX 5090 of compute capability 12.0, but this build has code for 80-real "
        "90a-real; build with -DCMAKE_CUDA_ARCHITECTURES=120a-real");
  d.code = DeviceFacts::Code::newer_than_driver;
  d.driver = 13000;
  d.runtime = 13020;
  CHECK_THAT(missing(d), Contains("a driver for CUDA 13.2 to translate its PTX") &&
                             Contains("found one for 13.0; update it") &&
                             Contains("-DCMAKE_CUDA_ARCHITECTURES=120a-real"));
  d.major = 8;
  d.minor = 7;
  d.code = DeviceFacts::Code::none;
  CHECK_THAT(missing(d), Contains("-DCMAKE_CUDA_ARCHITECTURES=87-real"));
}

TEST_CASE("a suite without a usable device has its rows, as compiled, with the reason",
          "[cuda-device]") {
  Kernel kernel{"rope", "cuda", "v1", "fp32", Ran::compiled, {}, {}};
  kernel.why = "built, but it needs " + missing({});
  OpsOptions options;
  options.op = "rope", options.ran = "device";
  const OpsReport report = check_kernels(options, {kernel});
  REQUIRE(report.rows.size() == 1);
  CHECK(report.rows[0].verdict == KernelVerdict::not_run);
  CHECK(report.outcome == Outcome::inconclusive);
  CHECK_THAT(table(report, false), Contains("cuda v1: built, but it needs a CUDA device"));
  CHECK(to_json(report)["ops"][0]["ran"] == "compiled");
  CHECK(to_json(report)["ops"][0]["why"] == kernel.why);
}

TEST_CASE("the suite and --backend cuda say the same of this machine's device", "[cuda-device]") {
  const Model model = test::sample_model("v2");
  EngineOptions options;
  options.format = "bf16";
  options.chunk = 8;
  std::string refused;
  try {
    backend_named("cuda").plan(model.config, options, 1, 1);
  } catch (const Error& e) {
    refused = e.what();
  }
  const std::string begin = "built, but it needs ";
  for (const Kernel& kernel : cuda_kernels()) {
    if (kernel.ran == Ran::host) continue;
    CHECK((kernel.ran == Ran::device) == refused.empty());
    if (kernel.ran == Ran::device) continue;
    REQUIRE(kernel.why.starts_with(begin));
    CHECK_THAT(refused, Contains("--backend cuda needs " + kernel.why.substr(begin.size()) + ";"));
  }
}
