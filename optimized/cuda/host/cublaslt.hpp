// optimized/cuda/host/cublaslt.hpp — the words of cublasLt.h that optimized/cuda/ops/cublaslt.cu
// uses.
//
// Names, numbers and signatures are the header's (tests/cuda/cublaslt_words_test.cpp); what a
// descriptor holds is not. The library's place is taken by a plain product with sums in fp32, of
// bf16 matrices into an fp32 one. So what runs here is our call (shapes, strides, types, alignment,
// addresses, and whether the algorithm was asked for this very product), not NVIDIA's code. A
// mistake is CUBLAS_STATUS_INVALID_VALUE, and cublasLtGetStatusString tells which; an address
// outside every buffer is the emulator's Error.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dsa::cuda::host {

struct Stream;  // host/words.hpp

enum cublasStatus_t {
  CUBLAS_STATUS_SUCCESS = 0,
  CUBLAS_STATUS_INVALID_VALUE = 7,
  CUBLAS_STATUS_NOT_SUPPORTED = 15,
};
enum cublasOperation_t { CUBLAS_OP_N = 0, CUBLAS_OP_T = 1 };
enum cublasComputeType_t { CUBLAS_COMPUTE_32F = 68 };
enum cudaDataType_t { CUDA_R_32F = 0, CUDA_R_16BF = 14 };
using cudaDataType = cudaDataType_t;
enum cublasLtEpilogue_t { CUBLASLT_EPILOGUE_DEFAULT = 1, CUBLASLT_EPILOGUE_BIAS = 4 };
enum cublasLtMatmulDescAttributes_t {
  CUBLASLT_MATMUL_DESC_TRANSA = 3,
  CUBLASLT_MATMUL_DESC_TRANSB = 4,
  CUBLASLT_MATMUL_DESC_EPILOGUE = 7,
  CUBLASLT_MATMUL_DESC_BIAS_POINTER = 8,
  CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE = 26,
};
enum cublasLtMatmulPreferenceAttributes_t {
  CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES = 1,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES = 5,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES = 6,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES = 7,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES = 8,
};

/// Column-major. It has no rows until it is initialised, and every function refuses it.
struct cublasLtMatrixLayoutOpaque_t {
  std::int32_t type = -1;
  std::uint64_t rows = 0, cols = 0;
  std::int64_t ld = 0;
  bool operator==(const cublasLtMatrixLayoutOpaque_t&) const = default;
};
using cublasLtMatrixLayout_t = cublasLtMatrixLayoutOpaque_t*;

struct cublasLtMatmulDescOpaque_t {
  /// All that the choice of an algorithm depends on, but for the matrices.
  struct Operation {
    std::int32_t compute_type = -1, scale_type = -1;
    std::int32_t transa = CUBLAS_OP_N, transb = CUBLAS_OP_N;
    std::uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    std::int32_t bias_type = -1;  // that of D
    bool operator==(const Operation&) const = default;
  } operation;
  const void* bias = nullptr;
};
using cublasLtMatmulDesc_t = cublasLtMatmulDescOpaque_t*;

struct cublasLtMatmulPreferenceOpaque_t {
  std::uint64_t workspace_bytes = 0;
  std::uint32_t alignment[4] = {};  // of A, B, C, D
};
using cublasLtMatmulPreference_t = cublasLtMatmulPreferenceOpaque_t*;

/// The request it was chosen for. It uses all of the workspace that it was allowed.
struct cublasLtMatmulAlgo_t {
  cublasLtMatmulDescOpaque_t::Operation operation;
  cublasLtMatrixLayoutOpaque_t matrices[4];  // A, B, C, D
  cublasLtMatmulPreferenceOpaque_t limits;
  std::uintptr_t bias_alignment = 0;
};
struct cublasLtMatmulHeuristicResult_t {
  cublasLtMatmulAlgo_t algo;
  std::size_t workspaceSize = 0;
  cublasStatus_t state = CUBLAS_STATUS_SUCCESS;
};

using cublasLtHandle_t = const struct cublasLtContext*;

cublasStatus_t cublasLtCreate(cublasLtHandle_t*);
const char* cublasLtGetStatusString(cublasStatus_t);

cublasStatus_t cublasLtMatmulDescInit(cublasLtMatmulDesc_t, cublasComputeType_t,
                                      cudaDataType_t scale_type);
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t, cublasLtMatmulDescAttributes_t,
                                              const void* value, std::size_t bytes);
cublasStatus_t cublasLtMatrixLayoutInit(cublasLtMatrixLayout_t, cudaDataType, std::uint64_t rows,
                                        std::uint64_t cols, std::int64_t ld);
cublasStatus_t cublasLtMatmulPreferenceInit(cublasLtMatmulPreference_t);
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t,
                                                    cublasLtMatmulPreferenceAttributes_t,
                                                    const void* value, std::size_t bytes);

/// CUBLAS_STATUS_NOT_SUPPORTED: an extent that is no int32_t.
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t, int requested,
                                              cublasLtMatmulHeuristicResult_t results[],
                                              int* returned);
/// How often this process has asked for an algorithm.
std::int64_t algorithms_asked_for();

/// D = op(A) op(B), and a bias for every row of D: alpha has to be 1 and beta 0, so C is not read.
cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t, const void* b,
                              cublasLtMatrixLayout_t, const void* beta, const void* c,
                              cublasLtMatrixLayout_t, void* d, cublasLtMatrixLayout_t,
                              const cublasLtMatmulAlgo_t*, void* workspace,
                              std::size_t workspace_bytes, Stream);

}  // namespace dsa::cuda::host
