// linear by cuBLASLt on the host, where a plain product takes the library's place: which shapes it
// takes, what it asks the library and how often, and that a mistake of ours is told by name.
#define DSA_CUDA_ON_HOST
#include "optimized/cuda/host/cublaslt.hpp"

#include <numeric>

#include "optimized/cuda/device/buffer.cuh"
#include "optimized/cuda/device/numbers.cuh"
#include "optimized/cuda/ops/linear.cuh"
#include "tests/catch.hpp"
#include "verify/kernels/backends/cuda.hpp"
#include "verify/kernels/suite.hpp"

using namespace dsa;
using namespace dsa::cuda::host;
using Catch::Matchers::Contains;

namespace {

/// x, w and a bias of ones; y begins `offset` floats into its buffer.
struct Problem {
  Index T, C, F, offset = 0;
  Buffer<bf16> x = ones<bf16>(T * C), w = ones<bf16>(F * C);
  Buffer<float> bias = ones<float>(F), y = Buffer<float>(offset + T * F);

  template <class X>
  static Buffer<X> ones(Index n) {
    return {std::vector<X>(std::size_t(n), narrow<X>(1)).data(), n};
  }
  /// The sum of y.
  template <class F_>
  float run(F_&& linear, bool with_bias) {
    const DeviceView<float, 2> out{y.data() + offset, {T, F}};
    linear(Stream{}, out, x.view<2>({T, C}), w.view<2>({F, C}), Scales{},
           with_bias ? bias.view<1>({F}) : DeviceView<float, 1>{});
    std::vector<float> got(std::size_t(y.size()));
    y.download(got.data());
    return std::accumulate(got.begin() + offset, got.end(), 0.0f);
  }
};

}  // namespace

TEST_CASE("linear by cuBLASLt passes the suite's cases in bf16, or refuses them", "[cuda]") {
  int plain = 0, biased = 0, refused = 0;
  for (const auto& pose : verify::kernels::op_named("linear").cases(1)) {
    const verify::kernels::Case c = pose();
    if (c.dtype != "bf16" || c.flops > 1e6) continue;
    for (const verify::kernels::Kernel& kernel : verify::kernels::cuda_kernels()) {
      if (kernel.ran != verify::kernels::Ran::host || kernel.op != "linear" ||
          kernel.rung != "cublaslt")
        continue;
      const verify::kernels::CaseResult result = verify::kernels::run_case(kernel, c);
      INFO(c.name << ": " << result.failure);
      CHECK(result.failure.empty());
      if (!result.refused.empty())
        ++refused;
      else
        ++(c.in.count("bias") ? biased : plain);
    }
  }
  CHECK((plain > 0 && biased > 0 && refused > 0));
}

TEST_CASE("cuBLASLt is given rows of 16 bytes, and what the library offers something for",
          "[cuda]") {
  CHECK(cublaslt::linear_refuses(3, 16, 8, true).empty());
  for (const auto& [C, F] : {std::pair<Index, Index>{0, 8}, {12, 8}, {16, 6}})
    CHECK_THAT(cublaslt::linear_refuses(3, C, F, false),
               Contains("rows of x and y of a multiple of 16 bytes"));
  CHECK_THAT(cublaslt::linear_refuses(Index{1} << 31, 16, 8, false),
             Contains("no algorithm without a workspace for T = 2147483648"));
  CHECK_THROWS_WITH((Problem{2, 12, 8}.run(cublaslt::linear, false)), Contains("multiple of 16"));
}

TEST_CASE("linear in bf16 goes to cuBLASLt, or past it", "[cuda]") {
  const auto before = algorithms_asked_for();
  CHECK(Problem{3, 12, 5}.run(linear<bf16>, true) == 3 * 5 * 13);
  CHECK(Problem{3, 0, 8}.run(linear<bf16>, true) == 3 * 8);  // a sum of nothing, and the bias
  CHECK(Problem{0, 16, 8}.run(linear<bf16>, true) == 0);
  CHECK(Problem{3, 16, 0}.run(linear<bf16>, false) == 0);
  CHECK(algorithms_asked_for() == before);
  CHECK(Problem{3, 40, 12}.run(linear<bf16>, true) == 3 * 12 * 41);
  CHECK(algorithms_asked_for() == before + 1);
}

TEST_CASE("cuBLASLt is asked for an algorithm once a shape", "[cuda]") {
  const auto before = algorithms_asked_for();
  const auto asked = [&](Index T, bool with_bias) {
    CHECK(Problem{T, 48, 4}.run(cublaslt::linear, with_bias) == T * 4 * (48 + with_bias));
    return algorithms_asked_for() - before;
  };
  CHECK(asked(5, false) == 1);
  CHECK(asked(5, false) == 1);
  CHECK(asked(6, false) == 2);
  CHECK(asked(5, true) == 3);
  CHECK(asked(5, false) == 3);
}

TEST_CASE("cuBLASLt's algorithm is asked for views at multiples of 16 bytes", "[cuda]") {
  CHECK(Problem{2, 16, 8, 4}.run(cublaslt::linear, true) == 2 * 8 * 17);
  CHECK_THROWS_WITH((Problem{2, 16, 8, 2}.run(cublaslt::linear, true)),
                    Contains("cublasLtMatmul failed: C lies at no multiple of the 16 bytes"));
  Problem moved{2, 16, 8};
  moved.bias = Problem::ones<float>(7);  // an element too few
  CHECK_THROWS_WITH(moved.run(cublaslt::linear, true),
                    Contains("cublasLtMatmul, block") && Contains("outside every buffer"));
}

TEST_CASE("what takes cuBLASLt's place holds a call to the documentation", "[cuda]") {
  cublasLtMatmulDescOpaque_t operation;
  cublasLtMatrixLayoutOpaque_t a, b, d;
  cublasLtMatmulPreferenceOpaque_t preference;
  cublasLtMatmulHeuristicResult_t found;
  const auto asks = [&](int requested = 1) {
    int count = 0;
    return std::string(cublasLtGetStatusString(cublasLtMatmulAlgoGetHeuristic(
        nullptr, &operation, &a, &b, &d, &d, &preference, requested, &found, &count)));
  };
  const auto reset = [&] {
    cublasLtMatmulDescInit(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    cublasLtMatrixLayoutInit(&a, CUDA_R_16BF, 8, 16, 8);
    cublasLtMatrixLayoutInit(&b, CUDA_R_16BF, 16, 3, 16);
    cublasLtMatrixLayoutInit(&d, CUDA_R_32F, 8, 3, 8);
    cublasLtMatmulPreferenceInit(&preference);
  };
  const auto set = [&](cublasLtMatmulDescAttributes_t attribute, auto value) {
    return cublasLtMatmulDescSetAttribute(&operation, attribute, &value, sizeof value);
  };
  CHECK_THAT(asks(), Contains("sums and scales must be fp32"));  // nothing is initialised
  reset();
  CHECK(asks() == "success");
  CHECK_THAT(asks(0), Contains("no algorithm was asked for"));
  CHECK(set(CUBLASLT_MATMUL_DESC_TRANSA, std::int64_t{CUBLAS_OP_T}) == CUBLAS_STATUS_INVALID_VALUE);
  CHECK(set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, 0) == CUBLAS_STATUS_INVALID_VALUE);
  CHECK_THAT(cublasLtGetStatusString(CUBLAS_STATUS_INVALID_VALUE),
             Contains("an attribute of 8 bytes was given 4"));
  set(CUBLASLT_MATMUL_DESC_TRANSB, std::int32_t{CUBLAS_OP_T});
  CHECK_THAT(asks(), Contains("op(A) is 8 x 16, and op(B) 3 x 16"));
  set(CUBLASLT_MATMUL_DESC_TRANSB, std::int32_t{7});
  CHECK_THAT(asks(), Contains("no transpose 7"));
  reset();
  set(CUBLASLT_MATMUL_DESC_EPILOGUE, std::uint32_t{CUBLASLT_EPILOGUE_BIAS});
  CHECK_THAT(asks(), Contains("a bias, which has no address"));
  set(CUBLASLT_MATMUL_DESC_EPILOGUE, std::uint32_t{2});
  CHECK_THAT(asks(), Contains("no epilogue 2"));
  reset();
  cublasLtMatrixLayoutInit(&d, CUDA_R_16BF, 8, 3, 8);
  CHECK_THAT(asks(), Contains("C has type 14"));
  cublasLtMatrixLayoutInit(&d, CUDA_R_32F, 8, 4, 8);
  CHECK_THAT(asks(), Contains("op(A) op(B) is 8 x 3, and D 8 x 4"));
  a = {};
  CHECK_THAT(asks(), Contains("A has no layout"));
}
