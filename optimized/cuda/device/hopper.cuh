// optimized/cuda/device/hopper.cuh — what warps of sm_90 say to each other besides mbarriers: named
// barriers, registers that move between warpgroups, the proxy fence, early launch, hints for L2. On
// the host: host/hopper.hpp, same names, where they are described, and what is a mistake.
//
// As in async.cuh: these functions compile for every architecture and trap before sm_90. setmaxnreg
// is of sm_90a alone.
#pragma once

#include "optimized/cuda/device/async.cuh"

#ifdef DSA_CUDA_ON_HOST
#include "optimized/cuda/host/hopper.hpp"
#else
namespace dsa::cuda::device {

__device__ inline void named_barrier_wait(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ inline void named_barrier_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

template <int count>
__device__ void grow_registers() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count));
#else
  __trap();
#endif
}
template <int count>
__device__ void shrink_registers() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count));
#else
  __trap();
#endif
}

__device__ inline void fence_async_proxy() {
  from_sm_90([] { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); });
}

__device__ inline void launch_dependents() {
  from_sm_90([] { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); });
}
__device__ inline void wait_for_earlier_grids() {
  from_sm_90([] { asm volatile("griddepcontrol.wait;" ::: "memory"); });
}

__device__ inline void prefetch_l2(const void* p) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(p) : "memory");
}
__device__ inline void store_matrices(void* row, const std::uint32_t (&r)[4]) {
  from_sm_90([&] {
    asm volatile(
        "stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(shared_address(row)),
        "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
        : "memory");
  });
}
struct CachePolicy {
  std::uint64_t bits;
};
/// For lines that others will read soon: they are evicted last.
__device__ inline CachePolicy kept_in_l2() {
  CachePolicy policy;
  asm volatile("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy.bits));
  return policy;
}

}  // namespace dsa::cuda::device
#endif

namespace dsa::cuda::DSA_PLACE {

/// copy_async_16 with a policy, which lets L2 fetch 128 bytes at once.
__device__ inline void copy_async_16(void* to, const void* from, bool valid,
                                     [[maybe_unused]] CachePolicy policy) {
#ifdef DSA_CUDA_ON_HOST
  copy_async_16(to, from, valid);
#else
  asm volatile("cp.async.cg.shared.global.L2::cache_hint.L2::128B [%0], [%1], 16, %2, %3;" ::"r"(
                   shared_address(to)),
               "l"(from), "r"(valid ? 16 : 0), "l"(policy.bits)
               : "memory");
#endif
}

}  // namespace dsa::cuda::DSA_PLACE
