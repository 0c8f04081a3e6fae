// What is timed on a device: sizes, counted operations and bytes, and room for it. The figures are
// those of published work at the same sizes.
#include <set>

#include "experiments/bench/cuda/problems.hpp"
#include "tests/catch.hpp"

using namespace dsa;
using namespace dsa::bench;

namespace {

DeviceProblem named(const std::string& op, const std::string& dtype, const std::string& label,
                    const std::string& shape) {
  for (const DeviceProblem& p : device_problems())
    if (p.op == op && p.dtype == dtype && p.label == label && p.shape() == shape) return p;
  FAIL("no problem " << op << " " << shape);
  return {};
}

}  // namespace

TEST_CASE("operations and bytes are counted by the stated formulas", "[bench]") {
  const DeviceProblem prefill =
      named("mla_sparse", "bf16", "prefill", "B1 K2048 N128 P64 R512 S8192 T4096");
  CHECK(prefill.flops == Approx(2.336e12).epsilon(1e-3));
  // q 604 MB, out 1074 MB and lse 2 MB in fp32, chosen 34 MB, every row of 1152 bytes.
  CHECK(prefill.bytes == Approx(1.723e9).epsilon(1e-3));

  const DeviceProblem decode =
      named("mla_sparse", "fp8", "decode", "B128 K2048 N128 P64 R512 S32768 T256");
  CHECK(decode.flops == Approx(146e9).epsilon(1e-3));
  // 128 sequences: 32768 (1 - (15/16)^2) rows of 656 bytes; q 38 MB, out 67 MB, chosen 2 MB.
  CHECK(decode.bytes == Approx(128 * 3968.0 * 656 + 37.7e6 + 67.2e6 + 2.1e6).epsilon(1e-3));

  const DeviceProblem scores =
      named("indexer_scores", "fp8", "decode", "B128 D128 H64 K2048 S131072 T256");
  CHECK(scores.flops == Approx(0.55e12).epsilon(1e-3));
  CHECK(scores.bytes == Approx(2.35e9).epsilon(1e-2));
  // 4096 queries at the end of 65536 keys: a rectangle less a triangle.
  CHECK(named("indexer_topk", "bf16", "prefill", "B1 D128 H64 K2048 S65536 T4096").flops ==
        Approx(4.40e12 - 2.0 * 64 * 128 * 4096 * 2048).epsilon(1e-3));
  CHECK(named("topk_select", "fp32", "prefill", "B1 K2048 S131072 T4096").bytes ==
        Approx(2.15e9 + 4.0 * 4096 * 2048).epsilon(1e-2));
}

TEST_CASE("every problem fits into a device of 78 GiB, beside the buffer that flushes", "[bench]") {
  for (const DeviceProblem& p : device_problems()) {
    INFO(p.op << " " << p.dtype << " " << p.shape());
    CHECK(memory_of(p) + (512 << 20) < 0.9 * 78 * (1LL << 30));
    CHECK((copies_of(p) == 16 || static_cast<double>(copies_of(p)) * p.input_bytes >= 256e6));
    CHECK(p.bytes > 0);
    CHECK(formulas().count(p.op) == 1);
  }
  std::set<std::string> on_device, on_host;
  for (const DeviceProblem& p : device_problems())
    on_device.insert(p.op + p.dtype + p.rung + p.label);
  for (const DeviceProblem& p : host_problems()) on_host.insert(p.op + p.dtype + p.rung + p.label);
  CHECK(on_host == on_device);
}
