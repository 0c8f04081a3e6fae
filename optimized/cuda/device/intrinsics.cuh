// optimized/cuda/device/intrinsics.cuh — the instructions of the GPU that kernels use, as
// functions. On the host: host/warp.hpp and host/shared_array.hpp, same names, where they are
// described.
#pragma once

#include "optimized/cuda/device/tensor.cuh"

#ifdef DSA_CUDA_ON_HOST
#include "optimized/cuda/host/shared_array.hpp"
#include "optimized/cuda/host/warp.hpp"
#else
namespace dsa::cuda::device {

inline constexpr int warp_size = 32;
inline constexpr unsigned all_lanes = 0xffffffffu;

template <class T>
struct Shared {
  T* data;

  __device__ T& operator[](Index i) const { return data[i]; }
  __device__ T* address(Index i) const { return data + i; }
  __device__ T atomic_add(Index i, T value) const { return atomicAdd(data + i, value); }
  __device__ void atomic_or(Index i, T bits) const { atomicOr(data + i, bits); }
};

// As tensor_copy needs it (async.cuh).
extern __shared__ __align__(1024) unsigned char shared_bytes[];

class SharedMemory {
 public:
  template <class T>
  __device__ Shared<T> take(Index n) {
    T* begin = reinterpret_cast<T*>(shared_bytes + used_);
    used_ += (n * Index(sizeof(T)) + 15) / 16 * 16;
    return {begin};
  }

 private:
  Index used_ = 0;
};

template <class T>
__device__ T shared_load(const T* p) {
  return *p;
}
template <class T>
__device__ void shared_store(T* p, T value) {
  *p = value;
}

__device__ inline unsigned shared_address(const void* p) {
  return static_cast<unsigned>(__cvta_generic_to_shared(p));
}

// A source size of 0 fills with zeros (PTX ISA, cp.async).
__device__ inline void copy_async_16(void* to, const void* from, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
               "r"(valid ? 16 : 0)
               : "memory");
}
__device__ inline void copy_async_4(void* to, const void* from, bool valid) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to)), "l"(from),
               "r"(valid ? 4 : 0)
               : "memory");
}
__device__ inline void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int pending>
__device__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

__device__ inline void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4],
                                const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline void mma_f16(float (&d)[4], const std::uint32_t (&a)[4],
                               const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline void load_matrices(std::uint32_t (&r)[4], const void* row, bool transposed) {
  if (transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

}  // namespace dsa::cuda::device
#endif
