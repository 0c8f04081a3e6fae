// optimized/cuda/device/wgmma.cuh — products of a warpgroup on Hopper's tensor cores, of operands
// in panels of shared memory. On the host: host/wgmma.hpp, which says what is a mistake.
//
// A panel is 64 channels of some rows: 128 bytes a row, whose 16-byte chunks are permuted within
// eight as in a Tile (tiles.cuh). So a box of a tensor map lands as a panel. Panels lie one after
// the other, each at a multiple of 1024 bytes. An instruction takes 16 channels of rows (K-major:
// the operand's rows lie along the memory), or 16 rows of channels (MN-major).
//
// Accumulators: thread t of the warpgroup holds, as its number i of a product (64 x n), row
// 16 (t / 32) + t % 32 / 4 + 8 (i / 2 % 2) and column 8 (i / 4) + 2 (t % 4) + i % 2. A row operand
// in registers is laid out like two neighbouring runs of 8 columns of them, packed in pairs.
#pragma once

#include "optimized/cuda/device/hopper.cuh"

#ifdef DSA_CUDA_ON_HOST
#include "optimized/cuda/host/wgmma.hpp"
#else
#include "optimized/cuda/device/wgmma_instruction.cuh"

namespace dsa::cuda::device {

inline constexpr int warpgroup_size = 128;

/// Registers that wgmma may use. `hold` keeps the compiler from moving their uses across it.
template <class T, int count>
struct Registers {
  T r[count];

  __device__ T& operator[](int i) { return r[i]; }
  __device__ const T& operator[](int i) const { return r[i]; }
  __device__ void hold() {
#pragma unroll
    for (int i = 0; i < count; ++i)
      if constexpr (sizeof(T) == 4 && std::is_same_v<T, float>)
        asm volatile("" : "+f"(r[i])::"memory");
      else
        asm volatile("" : "+r"(r[i])::"memory");
  }
};

}  // namespace dsa::cuda::device
#endif

namespace dsa::cuda::DSA_PLACE {

/// Storage of IEEE half precision.
struct f16 {
  std::uint16_t bits;
};

template <int n>
using Accumulator = Registers<float, n / 2>;

enum class Major { k, mn };

inline constexpr Index panel_row_bytes = 128;

/// What a wgmma is told of an operand.
template <Major major, int rows>
struct PanelOperand {
  std::uint64_t descriptor;
#ifdef DSA_CUDA_ON_HOST
  OperandPlace place;
#endif

  /// 16 i further along k.
  __device__ PanelOperand step(int i) const {
    PanelOperand next = *this;
    const int bytes = major == Major::k ? i / 4 * rows * int(panel_row_bytes) + i % 4 * 32
                                        : i * 16 * int(panel_row_bytes);
    next.descriptor += std::uint64_t(bytes / 16);
#ifdef DSA_CUDA_ON_HOST
    (major == Major::k ? next.place.channel : next.place.row) += 16 * i;
#endif
    return next;
  }
};

/// PTX ISA, "Matrix descriptor format", with the swizzle of 128 bytes. K-major: `stride` lies
/// between groups of 8 rows. MN-major: `stride` between groups of 8 rows, `leading` between panels.
__device__ inline std::uint64_t matrix_descriptor(unsigned start, int leading, int stride) {
  return std::uint64_t(start) >> 4 | std::uint64_t(leading) >> 4 << 16 |
         std::uint64_t(stride) >> 4 << 32 | std::uint64_t{1} << 62;
}

template <int rows>
struct Panels {
  static_assert(rows % 8 == 0);
  static constexpr Index panel_bytes = rows * panel_row_bytes;
  Shared<unsigned char> bytes;

  __device__ unsigned char* chunk(Index row, Index c) const {
    return chunk_of(int(c / 8), int(row), int(c % 8));
  }
  __device__ unsigned char* chunk_of(int panel, int row, int c) const {
    return bytes.address(panel * int(panel_bytes) + row * int(panel_row_bytes) +
                         16 * (c ^ row % 8));
  }
  /// Rows as rows (of a) or columns (of b), k along the channels from a panel on.
  __device__ PanelOperand<Major::k, rows> by_rows(int panel = 0) const {
    return operand<Major::k>(panel, 16);
  }
  /// Channels from a panel on as rows or columns, k along the rows.
  __device__ PanelOperand<Major::mn, rows> by_channels(int panel = 0) const {
    return operand<Major::mn>(panel, int(panel_bytes));
  }

 private:
  template <Major major>
  __device__ PanelOperand<major, rows> operand(int panel, int leading) const {
    unsigned char* const start = bytes.address(panel * panel_bytes);
#ifdef DSA_CUDA_ON_HOST
    return {matrix_descriptor(unsigned(shared_offset(start, 1)), leading, 8 * panel_row_bytes),
            {bytes.data, rows, bytes.n, 0, 64 * panel, major == Major::mn}};
#else
    return {matrix_descriptor(shared_address(start), leading, 8 * panel_row_bytes)};
#endif
  }
};

/// Before anything else of the launch's memory, which begins at a multiple of 1024.
template <int rows>
__device__ Panels<rows> take_panels(SharedMemory& memory, Index panels) {
  return {memory.take<unsigned char>(panels * Panels<rows>::panel_bytes)};
}

/// d = a b, or d += a b, of 64 rows, n columns and 16 k, in columns [first, first + n) of d. T:
/// bf16 or f16.
template <class T, int n, int count, Major a_major, int a_rows, Major b_major, int b_rows>
__device__ void wgmma_columns(Registers<float, count>& d, int first,
                              PanelOperand<a_major, a_rows> a, PanelOperand<b_major, b_rows> b,
                              bool accumulate
#ifdef DSA_CUDA_ON_HOST
                              ,
                              int line = __builtin_LINE()
#endif
) {
  constexpr bool is_f16 = std::is_same_v<T, f16>, a_mn = a_major == Major::mn;
  constexpr bool b_mn = b_major == Major::mn;
#ifdef DSA_CUDA_ON_HOST
  issue_wgmma({.f16 = is_f16,
               .n = n,
               .d = d.in_flight() + first / 2,
               .d_use = &d.use(),
               .a_descriptor = a.descriptor,
               .b_descriptor = b.descriptor,
               .a_transposed = a_mn,
               .b_transposed = b_mn,
               .a_place = a.place,
               .b_place = b.place,
               .accumulate = accumulate,
               .line = line});
#else
  wgmma_instruction<is_f16, n, a_mn, b_mn>(d.r + first / 2, a.descriptor, b.descriptor, accumulate);
#endif
}

/// The same with a in registers 4 i to 4 i + 3.
template <class T, int n, int count, int a_count, Major b_major, int b_rows>
__device__ void wgmma_columns(Registers<float, count>& d, int first,
                              Registers<std::uint32_t, a_count>& a, int i,
                              PanelOperand<b_major, b_rows> b, bool accumulate
#ifdef DSA_CUDA_ON_HOST
                              ,
                              int line = __builtin_LINE()
#endif
) {
  constexpr bool is_f16 = std::is_same_v<T, f16>, b_mn = b_major == Major::mn;
#ifdef DSA_CUDA_ON_HOST
  issue_wgmma({.f16 = is_f16,
               .n = n,
               .d = d.in_flight() + first / 2,
               .d_use = &d.use(),
               .a = a.in_flight() + 4 * i,
               .a_use = &a.use(),
               .b_descriptor = b.descriptor,
               .b_transposed = b_mn,
               .b_place = b.place,
               .accumulate = accumulate,
               .line = line});
#else
  wgmma_instruction<is_f16, n, b_mn>(d.r + first / 2, a.r + 4 * i, b.descriptor, accumulate);
#endif
}

/// All columns of d.
template <class T, int count, class A, Major b_major, int b_rows>
__device__ void wgmma(Registers<float, count>& d, A a, PanelOperand<b_major, b_rows> b,
                      bool accumulate
#ifdef DSA_CUDA_ON_HOST
                      ,
                      int line = __builtin_LINE()
#endif
) {
#ifdef DSA_CUDA_ON_HOST
  wgmma_columns<T, 2 * count>(d, 0, a, b, accumulate, line);
#else
  wgmma_columns<T, 2 * count>(d, 0, a, b, accumulate);
#endif
}
template <class T, int count, int a_count, Major b_major, int b_rows>
__device__ void wgmma(Registers<float, count>& d, Registers<std::uint32_t, a_count>& a, int i,
                      PanelOperand<b_major, b_rows> b, bool accumulate
#ifdef DSA_CUDA_ON_HOST
                      ,
                      int line = __builtin_LINE()
#endif
) {
#ifdef DSA_CUDA_ON_HOST
  wgmma_columns<T, 2 * count>(d, 0, a, i, b, accumulate, line);
#else
  wgmma_columns<T, 2 * count>(d, 0, a, i, b, accumulate);
#endif
}

#ifndef DSA_CUDA_ON_HOST
/// Between accesses of these registers and the wgmmas that follow.
template <class... R>
__device__ void wgmma_fence(R&... registers) {
  (registers.hold(), ...);
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}
/// Makes a group of what was issued.
__device__ inline void wgmma_commit() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}
/// Until at most `pending` groups are in flight; these registers are in none of them.
template <int pending, class... R>
__device__ void wgmma_wait(R&... registers) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
#endif
  (registers.hold(), ...);
}
#endif

}  // namespace dsa::cuda::DSA_PLACE
