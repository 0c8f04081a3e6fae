// optimized/cuda/device/wgmma_instruction.cuh — the wgmma instructions as PTX. Inline assembly
// needs every register and its number written out: macros do that, and end with this file.
#pragma once

#include <cstdint>

#define DSA_REGISTERS_4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define DSA_REGISTERS_16(i) \
  DSA_REGISTERS_4(i), DSA_REGISTERS_4(i + 4), DSA_REGISTERS_4(i + 8), DSA_REGISTERS_4(i + 12)
#define DSA_REGISTERS_32(i) DSA_REGISTERS_16(i), DSA_REGISTERS_16(i + 16)
#define DSA_REGISTERS_64(i) DSA_REGISTERS_32(i), DSA_REGISTERS_32(i + 32)
#define DSA_REGISTERS_128(i) DSA_REGISTERS_64(i), DSA_REGISTERS_64(i + 64)
#define DSA_NAMES_16 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define DSA_NAMES_32 \
  DSA_NAMES_16       \
  ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define DSA_NAMES_64                                                                 \
  DSA_NAMES_32                                                                       \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47" \
  ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define DSA_NAMES_128                                                                            \
  DSA_NAMES_64                                                                                   \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"             \
  ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"             \
  ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111" \
  ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, " \
  "%127"

#define DSA_WGMMA(n, type, registers, a, b, p, transpositions)                                   \
  "{ .reg .pred p; setp.ne.b32 p, " p ", 0; wgmma.mma_async.sync.aligned.m64n" n "k16.f32." type \
  "." type " {" registers "}, " a ", " b ", p, 1, 1, " transpositions "; }"
/// `r`: floats a thread. The rest: numbers of the operands that follow them.
#define DSA_WGMMA_SHARED(n, type, r, a, b, p, t_a, t_b)                                      \
  asm volatile(DSA_WGMMA(n, type, DSA_NAMES_##r, a, b, p, t_a ", " t_b)                      \
               : DSA_REGISTERS_##r(0)                                                        \
               : "l"(a_descriptor), "l"(b_descriptor), "r"(int(accumulate)), "n"(int(a_mn)), \
                 "n"(int(b_mn)))
#define DSA_WGMMA_REGISTERS(n, type, r, a0, a1, a2, a3, b, p, t_b)                              \
  asm volatile(DSA_WGMMA(n, type, DSA_NAMES_##r, "{" a0 ", " a1 ", " a2 ", " a3 "}", b, p, t_b) \
               : DSA_REGISTERS_##r(0)                                                           \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b_descriptor),                 \
                 "r"(int(accumulate)), "n"(int(b_mn)))
#define DSA_WGMMA_SHARED_ALL(type)                                        \
  if constexpr (n == 32)                                                  \
    DSA_WGMMA_SHARED("32", type, 16, "%16", "%17", "%18", "%19", "%20");  \
  else if constexpr (n == 64)                                             \
    DSA_WGMMA_SHARED("64", type, 32, "%32", "%33", "%34", "%35", "%36");  \
  else if constexpr (n == 128)                                            \
    DSA_WGMMA_SHARED("128", type, 64, "%64", "%65", "%66", "%67", "%68"); \
  else                                                                    \
    DSA_WGMMA_SHARED("256", type, 128, "%128", "%129", "%130", "%131", "%132")
#define DSA_WGMMA_REGISTERS_ALL(type)                                                      \
  if constexpr (n == 32)                                                                   \
    DSA_WGMMA_REGISTERS("32", type, 16, "%16", "%17", "%18", "%19", "%20", "%21", "%22");  \
  else if constexpr (n == 64)                                                              \
    DSA_WGMMA_REGISTERS("64", type, 32, "%32", "%33", "%34", "%35", "%36", "%37", "%38");  \
  else if constexpr (n == 128)                                                             \
    DSA_WGMMA_REGISTERS("128", type, 64, "%64", "%65", "%66", "%67", "%68", "%69", "%70"); \
  else                                                                                     \
    DSA_WGMMA_REGISTERS("256", type, 128, "%128", "%129", "%130", "%131", "%132", "%133", "%134")

namespace dsa::cuda::device {

template <int n>
inline constexpr bool wgmma_takes = n == 32 || n == 64 || n == 128 || n == 256;

/// d (64 x n) = a b [+ d]. f16: the elements are f16, else bf16. mn: the operand is transposed.
template <bool f16, int n, bool a_mn, bool b_mn>
__device__ void wgmma_instruction(float* d, std::uint64_t a_descriptor, std::uint64_t b_descriptor,
                                  bool accumulate) {
  static_assert(wgmma_takes<n>);
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  if constexpr (f16) {
    DSA_WGMMA_SHARED_ALL("f16");
  } else {
    DSA_WGMMA_SHARED_ALL("bf16");
  }
#else
  __trap();
#endif
}

/// The same with a in registers.
template <bool f16, int n, bool b_mn>
__device__ void wgmma_instruction(float* d, const std::uint32_t* a, std::uint64_t b_descriptor,
                                  bool accumulate) {
  static_assert(wgmma_takes<n>);
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  if constexpr (f16) {
    DSA_WGMMA_REGISTERS_ALL("f16");
  } else {
    DSA_WGMMA_REGISTERS_ALL("bf16");
  }
#else
  __trap();
#endif
}

}  // namespace dsa::cuda::device

#undef DSA_REGISTERS_4
#undef DSA_REGISTERS_16
#undef DSA_REGISTERS_32
#undef DSA_REGISTERS_64
#undef DSA_REGISTERS_128
#undef DSA_NAMES_16
#undef DSA_NAMES_32
#undef DSA_NAMES_64
#undef DSA_NAMES_128
#undef DSA_WGMMA
#undef DSA_WGMMA_SHARED
#undef DSA_WGMMA_REGISTERS
#undef DSA_WGMMA_SHARED_ALL
#undef DSA_WGMMA_REGISTERS_ALL
