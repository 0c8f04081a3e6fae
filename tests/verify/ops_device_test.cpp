// What the suite does for kernels that run on a device, as far as the host can tell.
#include <cmath>
#include <set>

#define DSA_CUDA_ON_HOST
#include "tests/catch.hpp"
#include "verify/kernels/backends/cuda/binding.hpp"
#include "verify/kernels/suite.hpp"

using Catch::Matchers::Contains;
using namespace dsa;
using namespace dsa::verify;
using namespace dsa::verify::kernels;

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

/// A kernel that gives the right answer through a Binding and, if asked, adds to an input.
Kernel bound(Ran ran, bool writes) {
  Kernel kernel{"rope", "cuda", "test", "fp32", ran, {}, {}};
  kernel.prepare = [writes](const Case& c, Arrays& out) {
    const auto b = std::make_shared<verify::kernels::host::Binding>();
    const auto y = b->out<float, 3>(out.at("y"));
    const auto cos = b->in<float, 2>(c.in.at("cos"));
    return verify::kernels::host::launch_of(b, [=, &c] {
      const Array answer(Dtype::f32, c.out.at("y").shape(), c.want.at("y"));
      std::copy_n(answer.as<float, 3>().data, answer.size(), y.data);
      if (writes) const_cast<float*>(cos.data)[0] += 1;
    });
  };
  return kernel;
}

}  // namespace

TEST_CASE("a kernel that writes to an input is caught, wherever it runs", "[ops]") {
  const Case c = op_named("rope").cases(1)[3]();
  for (const Ran ran : {Ran::host, Ran::device}) {
    CHECK(run_case(bound(ran, false), c).failure.empty());
    CHECK_THAT(run_case(bound(ran, true), c).failure, Contains("changed an input"));
  }
}

TEST_CASE("pages are of every size, hold the case's rows, and are watched", "[ops]") {
  std::set<Index> sizes;
  for (const Pose& pose : op_named("mla_sparse").cases(1)) {
    if (pose.dtype != "bf16" || pose.flops > 1e6) continue;
    const Case c = pose();
    const auto rows = c.in.at("kv").as<bf16, 2>();
    verify::kernels::host::Binding binding;
    const auto cache = binding.pages<bf16>(c, "kv");
    sizes.insert(cache.page_rows);
    const auto row = [&](Index s) {
      return cache.pages.data[s / cache.page_rows] + s % cache.page_rows * cache.width;
    };
    CHECK(cache.rows == rows.shape[0]);
    for (Index s = 0; s < cache.rows; ++s)
      CHECK(std::memcmp(row(s), rows[s].data, static_cast<std::size_t>(2 * cache.width)) == 0);
    binding.fetch();
    if (cache.rows == 0) continue;
    *reinterpret_cast<std::byte*>(const_cast<bf16*>(row(cache.rows - 1))) ^= std::byte{1};
    CHECK_THROWS_WITH(binding.fetch(), Contains("changed an input"));
  }
  for (const Index size : {1, 5, 64, 256}) CHECK(sizes.contains(size));
  CHECK(sizes.size() > 4);
}

TEST_CASE("an output on a device is poisoned before every run, between guard zones", "[ops]") {
  Array y(Dtype::f32, {4});
  y.poison();
  verify::kernels::host::Binding binding;
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
  CHECK(host.rows[0].reasons.at("more operations than --max-flops") == host.rows[0].refused);
  CHECK(host.rows[0].cases + host.rows[0].refused == device.rows[0].cases);
  CHECK(on_host == 3 * host.rows[0].cases);  // emulated: twice, and prepared again
}

TEST_CASE("a case beyond what was asked for, or a kernel's patience, is not posed", "[ops]") {
  const Op& op = op_named("mla_sparse");
  Kernel kernel{"mla_sparse", "cuda", "test", "bf16", Ran::host, {}, {}};
  kernel.refuses = [](const Case& c) { return c.flops > 1e5 ? "was posed" : "never"; };
  kernel.most_flops = 1e5;
  OpsOptions options;
  options.op = op.name;
  options.dtype = "bf16";
  options.backend = "cuda";
  const std::string too_slow = "more than 100000 operations, for which it is too slow here";
  const KernelResult row = check_kernels(options, {kernel}).rows.at(0);
  CHECK(row.reasons.at(too_slow) > 3);
  CHECK(row.reasons.at("never") > 3);
  CHECK(row.reasons.size() == 2);
  const std::string text = table(check_kernels(options, {kernel}), false);
  CHECK_THAT(text, Contains(too_slow) && Contains("not taken: never"));
  const Json json = to_json(check_kernels(options, {kernel}))["ops"][0];
  CHECK(json["not_taken_because"][too_slow] == row.reasons.at(too_slow));

  options.max_flops = 1e3;
  const KernelResult less = check_kernels(options, {kernel}).rows.at(0);
  CHECK(less.reasons.at("more operations than --max-flops") > row.reasons.at(too_slow));
  CHECK(less.refused == row.refused);
}

TEST_CASE("what is announced of a case holds of it", "[ops]") {
  const auto pose = [](double announced, double counted, const std::string& dtype) {
    return Pose{"fp32", announced, [=] {
                  Case c;
                  c.dtype = dtype, c.flops = counted;
                  return c;
                }};
  };
  CHECK(pose(8, 0, "fp32")().flops == 8);
  CHECK(pose(8, 6, "fp32")().flops == 6);
  CHECK_THROWS_WITH(pose(8, 9, "fp32")(), Contains("not what was announced"));
  CHECK_THROWS_WITH(pose(8, 8, "bf16")(), Contains("not what was announced"));
}
