// The declarations of optimized/cuda/host/cublaslt.hpp, against the toolkit's header and library.
// Descriptors are made on the host: the library needs no device for that.
#include <cublasLt.h>

#include "optimized/cuda/host/cublaslt.hpp"
#include "tests/catch.hpp"

namespace here = dsa::cuda::host;

TEST_CASE("the host's words of cuBLASLt have the header's numbers", "[cuda]") {
  const std::pair<int, int> numbers[] = {
      {here::CUBLAS_STATUS_SUCCESS, CUBLAS_STATUS_SUCCESS},
      {here::CUBLAS_STATUS_INVALID_VALUE, CUBLAS_STATUS_INVALID_VALUE},
      {here::CUBLAS_STATUS_NOT_SUPPORTED, CUBLAS_STATUS_NOT_SUPPORTED},
      {here::CUBLAS_OP_N, CUBLAS_OP_N},
      {here::CUBLAS_OP_T, CUBLAS_OP_T},
      {here::CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_32F},
      {here::CUDA_R_32F, CUDA_R_32F},
      {here::CUDA_R_16BF, CUDA_R_16BF},
      {here::CUBLASLT_EPILOGUE_DEFAULT, CUBLASLT_EPILOGUE_DEFAULT},
      {here::CUBLASLT_EPILOGUE_BIAS, CUBLASLT_EPILOGUE_BIAS},
      {here::CUBLASLT_MATMUL_DESC_TRANSA, CUBLASLT_MATMUL_DESC_TRANSA},
      {here::CUBLASLT_MATMUL_DESC_TRANSB, CUBLASLT_MATMUL_DESC_TRANSB},
      {here::CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_MATMUL_DESC_EPILOGUE},
      {here::CUBLASLT_MATMUL_DESC_BIAS_POINTER, CUBLASLT_MATMUL_DESC_BIAS_POINTER},
      {here::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE},
      {here::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES},
      {here::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
       CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES},
      {here::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
       CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES},
      {here::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
       CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES},
      {here::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
       CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES},
  };
  for (const auto& [ours, theirs] : numbers) CHECK(ours == theirs);
}

TEST_CASE("the host's attributes of cuBLASLt have the library's sizes", "[cuda]") {
  const char value[16] = {};
  ::cublasLtMatmulDescOpaque_t their_desc;
  here::cublasLtMatmulDescOpaque_t our_desc;
  REQUIRE(::cublasLtMatmulDescInit(&their_desc, CUBLAS_COMPUTE_32F, CUDA_R_32F) == 0);
  REQUIRE(here::cublasLtMatmulDescInit(&our_desc, here::CUBLAS_COMPUTE_32F, here::CUDA_R_32F) == 0);
  for (const auto attribute :
       {here::CUBLASLT_MATMUL_DESC_TRANSA, here::CUBLASLT_MATMUL_DESC_TRANSB,
        here::CUBLASLT_MATMUL_DESC_EPILOGUE, here::CUBLASLT_MATMUL_DESC_BIAS_POINTER,
        here::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE})
    for (std::size_t bytes = 0; bytes <= sizeof value; ++bytes) {
      INFO("attribute " << attribute << ", " << bytes << " bytes");
      const auto theirs = static_cast<::cublasLtMatmulDescAttributes_t>(attribute);
      CHECK(int{here::cublasLtMatmulDescSetAttribute(&our_desc, attribute, value, bytes)} ==
            int{::cublasLtMatmulDescSetAttribute(&their_desc, theirs, value, bytes)});
    }

  ::cublasLtMatmulPreferenceOpaque_t their_limits;
  here::cublasLtMatmulPreferenceOpaque_t our_limits;
  REQUIRE(::cublasLtMatmulPreferenceInit(&their_limits) == 0);
  REQUIRE(here::cublasLtMatmulPreferenceInit(&our_limits) == 0);
  std::uint32_t alignment = 0;
  std::size_t written = 0;
  ::cublasLtMatmulPreferenceGetAttribute(&their_limits, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
                                         &alignment, sizeof alignment, &written);
  CHECK(our_limits.alignment[3] == alignment);
  for (const auto attribute : {here::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                               here::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                               here::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                               here::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                               here::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
    for (std::size_t bytes = 0; bytes <= sizeof value; ++bytes) {
      INFO("preference " << attribute << ", " << bytes << " bytes");
      const auto theirs = static_cast<::cublasLtMatmulPreferenceAttributes_t>(attribute);
      CHECK(int{here::cublasLtMatmulPreferenceSetAttribute(&our_limits, attribute, value, bytes)} ==
            int{::cublasLtMatmulPreferenceSetAttribute(&their_limits, theirs, value, bytes)});
    }
}
