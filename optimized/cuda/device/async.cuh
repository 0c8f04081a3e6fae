// optimized/cuda/device/async.cuh — mbarriers and the copies that report to them (TMA): sm_90 and
// later. On the host: host/mbarrier.hpp, same names, where they are described, and what is a
// mistake.
//
// One thread lets an mbarrier expect bytes and begins the copies; whoever waits for that phase
// finds them in shared memory. A box of a matrix lands as the tile that tiles.cuh reads. Kernels of
// these functions can be compiled for every architecture, but before sm_90 they trap.
#pragma once

#include "optimized/cuda/device/tiles.cuh"

#ifdef DSA_CUDA_ON_HOST
#include "optimized/cuda/host/mbarrier.hpp"
#else
#include <cuda.h>  // types only: the driver's function is asked for at run time

namespace dsa::cuda::device {

template <class F>
__device__ void from_sm_90(F instruction) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  instruction();
#else
  __trap();
#endif
}

struct Mbarrier {
  std::uint64_t state;

  __device__ void init(int count) {
    from_sm_90([&] {
      asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(this)), "r"(count)
                   : "memory");
    });
  }
  __device__ void arrive() {
    from_sm_90([&] {
      asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(this))
                   : "memory");
    });
  }
  __device__ void arrive_expect_bytes(int bytes) {
    from_sm_90([&] {
      asm volatile(
          "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(this)),
          "r"(bytes)
          : "memory");
    });
  }
  __device__ void arrive_when_copied() {
    from_sm_90([&] {
      asm volatile(
          "cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(shared_address(this))
          : "memory");
    });
  }
  __device__ void wait(int parity) {
    from_sm_90([&] {
      int complete;
      do
        asm volatile(
            "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; "
            "selp.s32 %0, 1, 0, p; }"
            : "=r"(complete)
            : "r"(shared_address(this)), "r"(parity)
            : "memory");
      while (!complete);
    });
  }
};

/// The first is what CUTLASS puts there, the second what the CUDA programming guide does.
__device__ inline void fence_mbarrier_init() {
  from_sm_90([] {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  });
}

__device__ inline void bulk_copy(void* to, const void* from, Index bytes, Mbarrier& mbarrier) {
  from_sm_90([&] {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, "
        "[%3];" ::"r"(shared_address(to)),
        "l"(from), "r"(int(bytes)), "r"(shared_address(&mbarrier))
        : "memory");
  });
}

/// A kernel takes it as `const __grid_constant__ TensorMap`: the copy reads it where it lies.
struct TensorMap {
  CUtensorMap encoded;
};

__device__ inline void tensor_copy(void* to, const TensorMap& map, Index column, Index row,
                                   Mbarrier& mbarrier) {
  from_sm_90([&] {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], "
        "[%1, {%2, %3}], [%4];" ::"r"(shared_address(to)),
        "l"(&map), "r"(int(column)), "r"(int(row)), "r"(shared_address(&mbarrier))
        : "memory");
  });
}

template <class T>
constexpr CUtensorMapDataType tensor_map_type = sizeof(T) == 1   ? CU_TENSOR_MAP_DATA_TYPE_UINT8
                                                : sizeof(T) == 2 ? CU_TENSOR_MAP_DATA_TYPE_UINT16
                                                                 : CU_TENSOR_MAP_DATA_TYPE_UINT32;

}  // namespace dsa::cuda::device
#endif

namespace dsa::cuda::DSA_PLACE {

inline constexpr Index box_row_bytes = 128;

/// Boxes of `x` of `box_rows` rows by 128 bytes, permuted as a tile's are; zeros where a box lies
/// outside of x. The requirements of cuTensorMapEncodeTiled are checked here, on host and device.
template <class T>
TensorMap tensor_map(DeviceView<const T, 2> x, Index box_rows) {
  static_assert(sizeof(T) == 1 || sizeof(T) == 2 || sizeof(T) == 4);
  constexpr Index size = sizeof(T), most = Index{1} << 32;
  const Index rows = x.shape[0], columns = x.shape[1];
  require(0 < rows && rows <= most && 0 < columns && columns <= most,
          "a tensor map needs 1 to 2^32 rows and columns, found " + std::to_string(rows) + " x " +
              std::to_string(columns));
  require(reinterpret_cast<std::uintptr_t>(x.data) % 16 == 0 && columns * size % 16 == 0,
          "a tensor map needs rows that begin at multiples of 16 bytes, found rows of " +
              std::to_string(columns * size) + " bytes; copy them by copy_row");
  require(0 < box_rows && box_rows <= 256,
          "a box of a tensor map has 1 to 256 rows, found " + std::to_string(box_rows));
#ifdef DSA_CUDA_ON_HOST
  return {x.data, rows, columns, size, box_rows};
#else
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result;
  CUDA_TRY(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000,
                                            cudaEnableDefault, &result));
  require(result == cudaDriverEntryPointSuccess,
          "the driver has no cuTensorMapEncodeTiled; CUDA 12.0 or later is needed");
  const cuuint64_t extents[2] = {cuuint64_t(columns), cuuint64_t(rows)};
  const cuuint64_t pitch = cuuint64_t(columns * size);
  const cuuint32_t box[2] = {cuuint32_t(box_row_bytes / size), cuuint32_t(box_rows)};
  const cuuint32_t steps[2] = {1, 1};
  TensorMap map;
  const CUresult status = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(found)(
      &map.encoded, tensor_map_type<T>, 2, const_cast<std::remove_const_t<T>*>(x.data), extents,
      &pitch, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
      CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  require(status == CUDA_SUCCESS,
          "cuTensorMapEncodeTiled failed with error " + std::to_string(int(status)));
  return map;
#endif
}

}  // namespace dsa::cuda::DSA_PLACE
