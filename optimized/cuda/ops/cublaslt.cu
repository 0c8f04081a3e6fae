// optimized/cuda/ops/cublaslt.cu — linear in bf16 by NVIDIA's cuBLASLt. On the host:
// host/cublaslt.hpp.
//
// The library's matrices are column-major. Our row-major y (T, F) is to it the matrix y^T (F, T), x
// is x^T (C, T), and W (F, C) is W^T (C, F): y^T = W x^T, where the first operand is to be
// transposed.
#include <map>
#include <mutex>
#include <optional>

#include "optimized/cuda/device/launch.cuh"
#include "optimized/cuda/ops/linear.cuh"

#ifdef DSA_CUDA_ON_HOST
#include "optimized/cuda/host/cublaslt.hpp"
#else
#include <cublasLt.h>
#endif

namespace dsa::cuda::DSA_PLACE::cublaslt {
namespace {

constexpr std::uint32_t alignment = 16;  // bytes, of views and of their rows

void check(cublasStatus_t status, const char* call) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw Error(std::string(call) + " failed: " + cublasLtGetStatusString(status));
}

struct Sizes {
  Index T, C, F;
  bool has_bias;
  auto operator<=>(const Sizes&) const = default;
};

/// As the library is told of it.
struct Product {
  cublasLtMatmulDescOpaque_t operation;
  cublasLtMatrixLayoutOpaque_t w, x, y;

  Product(const Sizes& n, const void* bias) {
    check(cublasLtMatmulDescInit(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F),
          "cublasLtMatmulDescInit");
    set(CUBLASLT_MATMUL_DESC_TRANSA, std::int32_t{CUBLAS_OP_T});
    if (n.has_bias) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE, std::uint32_t{CUBLASLT_EPILOGUE_BIAS});
      set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, std::int32_t{CUDA_R_32F});
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
    }
    lay_out(w, CUDA_R_16BF, n.C, n.F);
    lay_out(x, CUDA_R_16BF, n.C, n.T);
    lay_out(y, CUDA_R_32F, n.F, n.T);
  }

 private:
  template <class Value>
  void set(cublasLtMatmulDescAttributes_t attribute, Value value) {
    check(cublasLtMatmulDescSetAttribute(&operation, attribute, &value, sizeof value),
          "cublasLtMatmulDescSetAttribute");
  }
  static void lay_out(cublasLtMatrixLayoutOpaque_t& matrix, cudaDataType_t type, Index rows,
                      Index columns) {
    check(cublasLtMatrixLayoutInit(&matrix, type, static_cast<std::uint64_t>(rows),
                                   static_cast<std::uint64_t>(columns), rows),
          "cublasLtMatrixLayoutInit");
  }
};

/// The limits of an algorithm: no workspace, and our alignment.
struct Preference {
  cublasLtMatmulPreferenceOpaque_t limits;

  Preference() {
    check(cublasLtMatmulPreferenceInit(&limits), "cublasLtMatmulPreferenceInit");
    set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{0});
    for (const auto attribute :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
      set(attribute, alignment);
  }

 private:
  template <class Value>
  void set(cublasLtMatmulPreferenceAttributes_t attribute, Value value) {
    check(cublasLtMatmulPreferenceSetAttribute(&limits, attribute, &value, sizeof value),
          "cublasLtMatmulPreferenceSetAttribute");
  }
};

/// On one device. An algorithm is asked for once: the answer costs time, and while a graph is being
/// recorded there is none (graph.cuh). There are at most as many T as a pass may have tokens.
class Library {
 public:
  Library() { check(cublasLtCreate(&handle_), "cublasLtCreate"); }

  cublasLtHandle_t handle() const { return handle_; }
  /// Nothing where the library offers none.
  const std::optional<cublasLtMatmulAlgo_t>& algorithm(const Sizes& n) {
    const std::lock_guard lock(mutex_);
    const auto known = algorithms_.find(n);
    return (known != algorithms_.end() ? known : algorithms_.emplace(n, ask(n)).first)->second;
  }

 private:
  std::optional<cublasLtMatmulAlgo_t> ask(const Sizes& n) const {
    // Nothing is read from this address: it tells how biases are aligned.
    const auto bias = reinterpret_cast<const void*>(std::uintptr_t{alignment});
    Product p(n, bias);
    Preference preference;
    cublasLtMatmulHeuristicResult_t found;
    int count = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        handle_, &p.operation, &p.w, &p.x, &p.y, &p.y, &preference.limits, 1, &found, &count);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED) return {};
    check(status, "cublasLtMatmulAlgoGetHeuristic");
    if (count == 0 || found.state != CUBLAS_STATUS_SUCCESS) return {};
    return found.algo;
  }

  cublasLtHandle_t handle_ = nullptr;
  std::mutex mutex_;
  std::map<Sizes, std::optional<cublasLtMatmulAlgo_t>> algorithms_;
};

/// The handle of the current device. It is never destroyed: at the end of the program the driver
/// may be gone first.
Library& library() {
  static std::mutex mutex;
  static auto& libraries = *new std::map<int, Library>;
  const std::lock_guard lock(mutex);
  return libraries[current_device()];
}

}  // namespace

std::string linear_refuses(Index T, Index C, Index F, bool has_bias) {
  if (T == 0 || F == 0) return "";
  const std::string got = "C = " + std::to_string(C) + " and F = " + std::to_string(F);
  if (C == 0 || C * Index{sizeof(bf16)} % alignment != 0 ||
      F * Index{sizeof(float)} % alignment != 0)
    return "linear cublaslt takes rows of x and y of a multiple of 16 bytes, got " + got;
  if (!library().algorithm({T, C, F, has_bias}))
    return "cuBLASLt offers no algorithm without a workspace for T = " + std::to_string(T) + ", " +
           got;
  return "";
}

void linear(Stream stream, DeviceView<float, 2> y, DeviceView<const bf16, 2> x,
            DeviceView<const bf16, 2> w, Scales, DeviceView<const float, 1> bias) {
  const Sizes n{x.shape[0], x.shape[1], w.shape[0], bias.shape[0] > 0};
  expect_shape("y", y, {n.T, n.F});
  expect_shape("w", w, {n.F, n.C});
  if (n.has_bias) expect_shape("bias", bias, {n.F});
  const std::string refusal = linear_refuses(n.T, n.C, n.F, n.has_bias);
  require(refusal.empty(), refusal);
  if (n.T == 0 || n.F == 0) return;
  Library& lt = library();
  Product p(n, bias.data);
  const float one = 1, zero = 0;
  check(cublasLtMatmul(lt.handle(), &p.operation, &one, w.data, &p.w, x.data, &p.x, &zero, y.data,
                       &p.y, y.data, &p.y, &*lt.algorithm(n), nullptr, 0, stream),
        "cublasLtMatmul");
}

}  // namespace dsa::cuda::DSA_PLACE::cublaslt
