// What the suite does for kernels that run on a device, as far as the host can tell.
#include <cmath>

#define DSA_CUDA_ON_HOST
#include "tests/catch.hpp"
#include "verify/kernel_suite.hpp"
#include "verify/ops/cuda/binding.hpp"

using Catch::Matchers::Contains;
using namespace dsa;
using namespace dsa::verify;

namespace {

/// A kernel that gives the right answer, and counts its runs.
Kernel right(const std::string& backend, Ran ran, int* runs) {
  Kernel kernel{"rope", backend, "test", "fp32", ran, {}, {}};
  kernel.prepare = [runs](const Case& c, Arrays& out) {
    const auto answer = [&c, &out, runs] {
      ++*runs;
      const Array y(Dtype::f32, c.out.at("y").shape(), c.want.at("y"));
      std::copy_n(y.bytes().data(), y.bytes().size(), out.at("y").bytes().data());
    };
    return Launch{answer, {}};
  };
  return kernel;
}

}  // namespace

TEST_CASE("an output on a device is poisoned before every run, between guard zones", "[ops]") {
  Array y(Dtype::f32, {4});
  y.poison();
  verify::host::Binding binding;
  const auto view = binding.out<float, 1>(y);
  view.data[1] = 2;
  binding.fetch();
  CHECK(y.values()[1] == 2);
  CHECK(std::isnan(y.values()[0]));
  binding.fetch();
  CHECK(std::isnan(y.values()[1]));
  for (const Index beside : {Index{-1}, Index{4}, Index{67}}) {
    view.data[beside] = 0;
    CHECK_THROWS_WITH(binding.fetch(), Contains("wrote beside an output"));
  }
  const auto scratch = binding.scratch<float>(3);
  CHECK(std::isnan(scratch.data[0]));
  CHECK(std::isnan(scratch.data[2]));
}

TEST_CASE("kernels are chosen by where they run, and cases by their size", "[ops]") {
  int on_host = 0, on_device = 0, unused = 0;
  const std::vector<Kernel> kernels = {right("cuda", Ran::host, &on_host),
                                       right("cuda", Ran::device, &on_device),
                                       right("cpu", Ran::compiled, &unused)};
  OpsOptions options;
  options.op = "rope";
  options.ran = "device";
  const OpsReport device = check_kernels(options, kernels);
  REQUIRE(device.rows.size() == 1);
  CHECK(device.rows[0].ran == Ran::device);
  CHECK(device.outcome == Outcome::pass);
  CHECK(on_host == 0);
  CHECK(on_device == 20 * device.rows[0].cases);  // every case, whatever its size

  options.ran = "host";
  options.max_flops = 1;
  const OpsReport host = check_kernels(options, kernels);
  REQUIRE(host.rows.size() == 1);
  CHECK(host.rows[0].refused > 0);
  CHECK(host.rows[0].cases + host.rows[0].refused == device.rows[0].cases);
}
