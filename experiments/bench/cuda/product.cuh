// experiments/bench/cuda/product.cuh — the matrix product that others ship: cuBLAS.
#pragma once

#include "optimized/cuda/ops/linear.cuh"

#ifndef DSA_CUDA_ON_HOST
#include <cublas_v2.h>
#endif

namespace dsa::bench::DSA_PLACE {

using namespace cuda::DSA_PLACE;

/// y = x W^T in bf16, summed in fp32. The host has no cuBLAS: v2 takes its place there.
class Product {
 public:
  Product() {
#ifndef DSA_CUDA_ON_HOST
    check(cublasCreate(&handle_), "cublasCreate");
#endif
  }
  ~Product() {
#ifndef DSA_CUDA_ON_HOST
    cublasDestroy(handle_);
#endif
  }
  Product(const Product&) = delete;
  Product& operator=(const Product&) = delete;

  /// y (T, F), x (T, C), w (F, C).
  void operator()(DeviceView<float, 2> y, DeviceView<const bf16, 2> x,
                  DeviceView<const bf16, 2> w) const {
#ifdef DSA_CUDA_ON_HOST
    v2::linear(Stream{}, y, x, w, {}, {});
#else
    // Row-major y is column-major y^T = W x^T.
    const auto T = static_cast<int>(x.shape[0]), C = static_cast<int>(x.shape[1]);
    const auto F = static_cast<int>(w.shape[0]);
    const float one = 1, zero = 0;
    check(cublasGemmEx(handle_, CUBLAS_OP_T, CUBLAS_OP_N, F, T, C, &one, w.data, CUDA_R_16BF, C,
                       x.data, CUDA_R_16BF, C, &zero, y.data, CUDA_R_32F, F, CUBLAS_COMPUTE_32F,
                       CUBLAS_GEMM_DEFAULT),
          "cublasGemmEx");
#endif
  }

 private:
#ifndef DSA_CUDA_ON_HOST
  static void check(cublasStatus_t status, const char* call) {
    if (status != CUBLAS_STATUS_SUCCESS)
      throw Error(std::string(call) + " failed: " + cublasGetStatusString(status));
  }
  cublasHandle_t handle_ = nullptr;
#endif
};

}  // namespace dsa::bench::DSA_PLACE
