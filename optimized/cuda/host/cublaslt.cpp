#include "optimized/cuda/host/cublaslt.hpp"

#include <atomic>
#include <cstring>
#include <limits>

#include "core/dtype.hpp"
#include "optimized/cuda/device/numbers.cuh"

namespace dsa::cuda::host {

struct cublasLtContext {};

namespace {

using Matrix = cublasLtMatrixLayoutOpaque_t;
using Operation = cublasLtMatmulDescOpaque_t::Operation;

constexpr char names[] = "ABCD";

thread_local std::string last_mistake;
std::atomic<std::int64_t> asked_for = 0;

/// "" is no mistake.
cublasStatus_t status_of(const std::string& mistake) {
  last_mistake = mistake;
  return mistake.empty() ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

template <class Value>
std::string set(Value& to, const void* value, std::size_t bytes) {
  if (value == nullptr || bytes != sizeof to)
    return "an attribute of " + std::to_string(sizeof to) + " bytes was given " +
           std::to_string(bytes);
  std::memcpy(&to, value, bytes);
  return "";
}

std::string text(std::uint64_t rows, std::uint64_t cols) {
  return std::to_string(rows) + " x " + std::to_string(cols);
}

std::string mistake_of_matrix(char name, const Matrix* m) {
  const std::string its = std::string(1, name) + " ";
  const bool is_output = name == 'C' || name == 'D';
  if (m == nullptr || m->rows == 0 || m->cols == 0) return its + "has no layout";
  if (m->type != (is_output ? CUDA_R_32F : CUDA_R_16BF))
    return its + "has type " + std::to_string(m->type) +
           "; A and B of bf16 with C and D of fp32 is what takes the library's place";
  if (m->ld < 0 || static_cast<std::uint64_t>(m->ld) < m->rows)
    return its + "has columns of " + std::to_string(m->rows) + " elements, and its leading " +
           "dimension is " + std::to_string(m->ld);
  return "";
}

std::string mistake_of_operation(const cublasLtMatmulDescOpaque_t& desc) {
  const Operation& o = desc.operation;
  if (o.compute_type != CUBLAS_COMPUTE_32F || o.scale_type != CUDA_R_32F)
    return "sums and scales must be fp32";
  for (const std::int32_t transposed : {o.transa, o.transb})
    if (transposed != CUBLAS_OP_N && transposed != CUBLAS_OP_T)
      return "there is no transpose " + std::to_string(transposed);
  if (o.epilogue == CUBLASLT_EPILOGUE_DEFAULT) return "";
  if (o.epilogue != CUBLASLT_EPILOGUE_BIAS)
    return "there is no epilogue " + std::to_string(o.epilogue) + " here";
  if (o.bias_type != -1 && o.bias_type != CUDA_R_32F) return "a bias must be of D's type";
  return desc.bias == nullptr ? "the epilogue adds a bias, which has no address" : "";
}

/// Extents of op(A) op(B): `rows` and `cols` of D, and those that are summed.
struct Extents {
  std::uint64_t rows, cols, inner, inner_of_b;
};
Extents extents_of(const Operation& o, const Matrix& a, const Matrix& b) {
  const bool ta = o.transa == CUBLAS_OP_T, tb = o.transb == CUBLAS_OP_T;
  return {ta ? a.cols : a.rows, tb ? b.rows : b.cols, ta ? a.rows : a.cols, tb ? b.cols : b.rows};
}

std::string mistake_of_product(const cublasLtMatmulDescOpaque_t* desc,
                               const Matrix* const (&matrices)[4]) {
  if (desc == nullptr) return "the product is not described";
  std::string mistake = mistake_of_operation(*desc);
  for (int i = 0; i < 4 && mistake.empty(); ++i) mistake = mistake_of_matrix(names[i], matrices[i]);
  if (!mistake.empty()) return mistake;
  const auto& [a, b, c, d] = matrices;
  const Extents n = extents_of(desc->operation, *a, *b);
  if (n.inner != n.inner_of_b)
    return "op(A) is " + text(n.rows, n.inner) + ", and op(B) " + text(n.inner_of_b, n.cols);
  if (d->rows != n.rows || d->cols != n.cols)
    return "op(A) op(B) is " + text(n.rows, n.cols) + ", and D " + text(d->rows, d->cols);
  return *c == *d ? "" : "C has another layout than D";
}

/// The largest power of two that divides an address, up to what cudaMalloc gives.
std::uintptr_t alignment_of(const void* p) {
  const auto at = reinterpret_cast<std::uintptr_t>(p) | 256;
  return at & -at;
}

struct Workspace {
  const void* data;
  std::size_t bytes;
};

std::string mistake_of_call(const cublasLtMatmulAlgo_t& algorithm, const Operation& operation,
                            const Matrix* const (&matrices)[4], const void* const (&addresses)[4],
                            const void* bias, Workspace workspace) {
  if (operation != algorithm.operation) return "its algorithm was asked for another operation";
  for (std::size_t i = 0; i < 4; ++i) {
    const std::string its = std::string(1, names[i]);
    if (*matrices[i] != algorithm.matrices[i])
      return "its algorithm was asked for another layout of " + its;
    if (alignment_of(addresses[i]) < algorithm.limits.alignment[i])
      return its + " lies at no multiple of the " + std::to_string(algorithm.limits.alignment[i]) +
             " bytes that its algorithm was asked for";
  }
  if (operation.epilogue == CUBLASLT_EPILOGUE_BIAS && alignment_of(bias) < algorithm.bias_alignment)
    return "the bias is not aligned as it was when the algorithm was asked for";
  if (workspace.bytes < algorithm.limits.workspace_bytes ||
      (workspace.data == nullptr && workspace.bytes > 0))
    return "its algorithm takes a workspace of " +
           std::to_string(algorithm.limits.workspace_bytes) + " bytes";
  return "";
}

/// The elements that a device reads or writes: from the first of the first column to the last of
/// the last column.
template <class T>
void check_range(const T* data, const Matrix& m) {
  check_global(data, sizeof(T) * ((m.cols - 1) * static_cast<std::uint64_t>(m.ld) + m.rows));
}

/// Numbers and how they lie, column-major.
template <class T>
struct Placed {
  T* data;
  const Matrix& layout;
};

/// op(A)(i, j)
float at(const Placed<const bf16>& m, std::int32_t transposed, std::uint64_t i, std::uint64_t j) {
  const std::uint64_t row = transposed ? j : i, column = transposed ? i : j;
  return widen(m.data[column * static_cast<std::uint64_t>(m.layout.ld) + row]);
}

/// Within one thread of the emulator, so that a wrong address has a name.
void multiply(const cublasLtMatmulDescOpaque_t& desc, const Placed<const bf16>& a,
              const Placed<const bf16>& b, const Placed<float>& d) {
  const Operation& o = desc.operation;
  const bool adds_bias = o.epilogue == CUBLASLT_EPILOGUE_BIAS;
  const auto* bias = static_cast<const float*>(desc.bias);
  const Extents n = extents_of(o, a.layout, b.layout);
  check_range(a.data, a.layout);
  check_range(b.data, b.layout);
  check_range(d.data, d.layout);
  if (adds_bias) check_global(bias, sizeof(float) * n.rows);
  const auto ld = static_cast<std::uint64_t>(d.layout.ld);
  for (std::uint64_t j = 0; j < n.cols; ++j)
    for (std::uint64_t i = 0; i < n.rows; ++i) {
      float sum = 0;
      for (std::uint64_t k = 0; k < n.inner; ++k)
        sum += at(a, o.transa, i, k) * at(b, o.transb, k, j);
      d.data[j * ld + i] = adds_bias ? sum + bias[i] : sum;
    }
}

}  // namespace

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  static constexpr cublasLtContext here{};
  *handle = &here;
  return CUBLAS_STATUS_SUCCESS;
}

const char* cublasLtGetStatusString(cublasStatus_t status) {
  if (status == CUBLAS_STATUS_INVALID_VALUE) return last_mistake.c_str();
  return status == CUBLAS_STATUS_SUCCESS ? "success" : "not supported";
}

cublasStatus_t cublasLtMatmulDescInit(cublasLtMatmulDesc_t desc, cublasComputeType_t compute_type,
                                      cudaDataType_t scale_type) {
  *desc = {};
  desc->operation.compute_type = compute_type;
  desc->operation.scale_type = scale_type;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, std::size_t bytes) {
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return status_of(set(desc->operation.transa, value, bytes));
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return status_of(set(desc->operation.transb, value, bytes));
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return status_of(set(desc->operation.epilogue, value, bytes));
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return status_of(set(desc->bias, value, bytes));
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
      return status_of(set(desc->operation.bias_type, value, bytes));
  }
  return status_of("there is no attribute " + std::to_string(attribute) + " here");
}

cublasStatus_t cublasLtMatrixLayoutInit(cublasLtMatrixLayout_t matrix, cudaDataType type,
                                        std::uint64_t rows, std::uint64_t cols, std::int64_t ld) {
  *matrix = {type, rows, cols, ld};
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceInit(cublasLtMatmulPreference_t preference) {
  *preference = {0, {256, 256, 256, 256}};
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* value, std::size_t bytes) {
  if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES)
    return status_of(set(preference->workspace_bytes, value, bytes));
  const int i = attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES;
  if (i < 0 || i >= 4)
    return status_of("there is no preference " + std::to_string(attribute) + " here");
  return status_of(set(preference->alignment[i], value, bytes));
}

std::int64_t algorithms_asked_for() { return asked_for; }

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int requested,
                                              cublasLtMatmulHeuristicResult_t results[],
                                              int* returned) {
  ++asked_for;
  *returned = 0;
  const std::string mistake =
      requested > 0 ? mistake_of_product(desc, {a, b, c, d}) : "no algorithm was asked for";
  if (!mistake.empty()) return status_of(mistake);
  for (const Matrix* m : {a, b, d})
    if (m->rows > std::numeric_limits<std::int32_t>::max() ||
        m->cols > std::numeric_limits<std::int32_t>::max())
      return CUBLAS_STATUS_NOT_SUPPORTED;
  results[0] = {{desc->operation, {*a, *b, *c, *d}, *preference, alignment_of(desc->bias)},
                preference->workspace_bytes,
                CUBLAS_STATUS_SUCCESS};
  *returned = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t layout_of_a, const void* b,
                              cublasLtMatrixLayout_t layout_of_b, const void* beta, const void* c,
                              cublasLtMatrixLayout_t layout_of_c, void* d,
                              cublasLtMatrixLayout_t layout_of_d,
                              const cublasLtMatmulAlgo_t* algorithm, void* workspace,
                              std::size_t workspace_bytes, Stream) {
  const Matrix* const matrices[4] = {layout_of_a, layout_of_b, layout_of_c, layout_of_d};
  std::string mistake = mistake_of_product(desc, matrices);
  if (mistake.empty())
    mistake = algorithm == nullptr
                  ? "no algorithm was given"
                  : mistake_of_call(*algorithm, desc->operation, matrices, {a, b, c, d}, desc->bias,
                                    {workspace, workspace_bytes});
  if (mistake.empty() &&
      (*static_cast<const float*>(alpha) != 1 || *static_cast<const float*>(beta) != 0))
    mistake = "alpha is 1 and beta 0 in what takes the library's place";
  if (!mistake.empty()) return status_of(mistake);
  run_grid("cublasLtMatmul", {1}, {1}, 0, {}, [&] {
    multiply(*desc, {static_cast<const bf16*>(a), *layout_of_a},
             {static_cast<const bf16*>(b), *layout_of_b}, {static_cast<float*>(d), *layout_of_d});
  });
  return CUBLAS_STATUS_SUCCESS;
}

}  // namespace dsa::cuda::host
