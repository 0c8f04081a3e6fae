// optimized/cuda/device/stream.cuh — one stream, and what moves between the host and it.
#pragma once

#include <cstring>

#include "optimized/cuda/device/tensor.cuh"

namespace dsa::cuda::DSA_PLACE {

/// Owns a stream, which comes after what was asked of the default stream before: Buffer copies
/// there. On the host there is nothing to own.
class OwnStream {
 public:
#ifdef DSA_CUDA_ON_HOST
  operator Stream() const { return {}; }
#else
  OwnStream() { CUDA_TRY(cudaStreamCreate(&stream_)); }
  OwnStream(const OwnStream&) = delete;
  OwnStream& operator=(const OwnStream&) = delete;
  ~OwnStream() { cudaStreamDestroy(stream_); }
  operator Stream() const { return stream_; }

 private:
  Stream stream_ = nullptr;
#endif
};

/// n elements, in the order of the stream; `from` may be changed afterwards.
template <class T>
void upload([[maybe_unused]] Stream stream, T* to, const T* from, Index n) {
  const std::size_t bytes = sizeof(T) * static_cast<std::size_t>(n);
#ifdef DSA_CUDA_ON_HOST
  if (n > 0) std::memcpy(to, from, bytes);
#else
  CUDA_TRY(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream));
#endif
}

/// n elements, in the order of the stream; there after wait().
template <class T>
void download([[maybe_unused]] Stream stream, T* to, const T* from, Index n) {
  const std::size_t bytes = sizeof(T) * static_cast<std::size_t>(n);
#ifdef DSA_CUDA_ON_HOST
  if (n > 0) std::memcpy(to, from, bytes);
#else
  CUDA_TRY(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream));
#endif
}

/// For all that was asked of the stream.
inline void wait([[maybe_unused]] Stream stream) {
#ifndef DSA_CUDA_ON_HOST
  CUDA_TRY(cudaStreamSynchronize(stream));
#endif
}

}  // namespace dsa::cuda::DSA_PLACE
