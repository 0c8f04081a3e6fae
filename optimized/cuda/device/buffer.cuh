// optimized/cuda/device/buffer.cuh — memory of the device that frees itself.
#pragma once

#include <cstring>
#include <utility>

#include "optimized/cuda/device/tensor.cuh"

namespace dsa::cuda::DSA_PLACE {

/// n elements. Copies wait until the device has finished what it was doing.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(Index n) : n_(n) {
#ifdef DSA_CUDA_ON_HOST
    data_ = static_cast<T*>(allocate(bytes()));
#else
    if (n > 0) CUDA_TRY(cudaMalloc(&data_, bytes()));
#endif
  }
  Buffer(const T* from, Index n) : Buffer(n) { upload(from); }
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), n_(std::exchange(other.n_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_), std::swap(n_, other.n_);
    return *this;
  }
  ~Buffer() {
#ifdef DSA_CUDA_ON_HOST
    release(data_);
#else
    cudaFree(data_);
#endif
  }

  /// In the order of the stream: what `other`, of the same size, holds.
  void copy_from(const Buffer& other, [[maybe_unused]] Stream stream) {
#ifdef DSA_CUDA_ON_HOST
    if (n_ > 0) std::memcpy(data_, other.data_, bytes());
#else
    CUDA_TRY(cudaMemcpyAsync(data_, other.data_, bytes(), cudaMemcpyDeviceToDevice, stream));
#endif
  }
  void upload(const T* from) {
#ifdef DSA_CUDA_ON_HOST
    if (n_ > 0) std::memcpy(data_, from, bytes());
#else
    CUDA_TRY(cudaMemcpy(data_, from, bytes(), cudaMemcpyHostToDevice));
#endif
  }
  void download(T* to) const {
#ifdef DSA_CUDA_ON_HOST
    if (n_ > 0) std::memcpy(to, data_, bytes());
#else
    CUDA_TRY(cudaMemcpy(to, data_, bytes(), cudaMemcpyDeviceToHost));
#endif
  }

  T* data() const { return data_; }
  Index size() const { return n_; }
  template <int Rank>
  DeviceView<T, Rank> view(Shape<Rank> shape) const {
    DeviceView<T, Rank> v{data_, {}};
    for (std::size_t axis = 0; axis < Rank; ++axis) v.shape[axis] = shape[axis];
    return v;
  }

 private:
  std::size_t bytes() const { return sizeof(T) * static_cast<std::size_t>(n_); }

  T* data_ = nullptr;
  Index n_ = 0;
};

}  // namespace dsa::cuda::DSA_PLACE
