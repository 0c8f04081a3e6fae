// Every rung of the CUDA backend on the host, on a third of the suite's cases, the small ones.
// `dsa-verify ops --backend cuda` is the whole.
#include <map>

#include "tests/catch.hpp"
#include "verify/kernels/backends/cuda.hpp"
#include "verify/kernels/suite.hpp"

using namespace dsa;
using namespace dsa::verify;
using namespace dsa::verify::kernels;

TEST_CASE("every CUDA rung agrees with the reference on the host", "[cuda]") {
  std::map<std::string, int> judged;
  const std::vector<Kernel> kernels = cuda_kernels();
  for (const Op& op : all_ops()) {
    const auto poses = op.cases(1);
    for (std::size_t i = 1; i < poses.size(); i += 3) {
      const Case c = poses[i]();
      if (c.flops > 1e5 || c.bytes > 4e4) continue;
      for (const Kernel& kernel : kernels) {
        if (kernel.ran != Ran::host || kernel.op != op.name || kernel.dtype != c.dtype) continue;
        const CaseResult result = run_case(kernel, c);
        INFO(op.name << " " << kernel.rung << " " << c.name << ": " << result.failure);
        CHECK(result.failure.empty());
        judged[kernel.op + " " + kernel.rung + " " + kernel.dtype] += result.refused.empty();
      }
    }
  }
  for (const Kernel& kernel : kernels) {
    INFO(kernel.op << " " << kernel.rung << " " << kernel.dtype);
    if (kernel.ran == Ran::host)
      CHECK(judged[kernel.op + " " + kernel.rung + " " + kernel.dtype] > 0);
  }
}
