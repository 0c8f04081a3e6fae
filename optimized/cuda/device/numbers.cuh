// optimized/cuda/device/numbers.cuh — storage formats to and from float; what a warp or a block
// counts.
//
// The conversions are integer arithmetic, the same on host and device.
#pragma once

#include <bit>
#include <cmath>

#include "optimized/cuda/device/intrinsics.cuh"

namespace dsa::cuda::DSA_PLACE {

__device__ inline Index smaller(Index a, Index b) { return a < b ? a : b; }
__device__ inline Index clamped(Index x, Index low, Index high) {
  return x < low ? low : smaller(x, high);
}

__device__ inline int population(unsigned bits) {
#ifdef DSA_CUDA_ON_HOST
  return std::popcount(bits);
#else
  return __popc(bits);
#endif
}

/// The place of the highest 1, counted from 1; of 0: 0.
__device__ inline int bit_width(unsigned bits) {
#ifdef DSA_CUDA_ON_HOST
  return std::bit_width(bits);
#else
  return 32 - __clz(int(bits));
#endif
}

__device__ inline std::uint32_t bits_of(float x) {
#ifdef DSA_CUDA_ON_HOST
  return std::bit_cast<std::uint32_t>(x);
#else
  return __float_as_uint(x);
#endif
}
__device__ inline float float_of(std::uint32_t bits) {
#ifdef DSA_CUDA_ON_HOST
  return std::bit_cast<float>(bits);
#else
  return __uint_as_float(bits);
#endif
}

__device__ inline float widen(float x) { return x; }
__device__ inline float widen(bf16 x) { return float_of(std::uint32_t{x.bits} << 16); }
/// The 7 bits below the sign are a float's with the exponent's bias off by 120.
__device__ inline float widen(e4m3 x) {
  const std::uint32_t magnitude = x.bits & 0x7fu, sign = (x.bits & 0x80u) << 24;
  if (magnitude == 0x7f) return float_of(0x7fc00000u | sign);
  return float_of(bits_of(float_of(magnitude << 20) * 0x1p120f) | sign);
}

/// To nearest, ties to even.
template <class T>
__device__ T narrow(float x);
template <>
__device__ inline float narrow<float>(float x) {
  return x;
}
template <>
__device__ inline bf16 narrow<bf16>(float x) {
  const std::uint32_t bits = bits_of(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {std::uint16_t(bits >> 16 | 0x40)};
  return {std::uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
/// Magnitudes above 448 become 448.
template <>
__device__ inline e4m3 narrow<e4m3>(float x) {
  const std::uint32_t bits = bits_of(x), sign = bits >> 24 & 0x80u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {std::uint8_t(sign | 0x7f)};
  if (magnitude < 0x3c800000u)  // below 2^-6, the multiples of 2^-9
    return {std::uint8_t(sign | std::uint32_t(rintf(float_of(magnitude) * 512)))};
  const std::uint32_t rounded = (magnitude + 0x7ffff + (magnitude >> 20 & 1)) >> 20;
  return {std::uint8_t(sign | (rounded > 960 + 0x7e ? 0x7e : rounded - 960))};
}

struct Sum {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
/// NaN if either is.
struct Maximum {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a > b || a != a ? a : b;
  }
};
struct Minimum {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a < b ? a : b;
  }
};

/// Over the warp's lanes, for every one of them: the same bits, a tree of fixed shape.
template <class T, class F>
__device__ T across_warp(T x, F f) {
  for (int bit = 16; bit > 0; bit /= 2) x = f(x, __shfl_xor_sync(all_lanes, x, bit));
  return x;
}

/// Over the block's threads, for every one of them. `scratch` holds an element a warp.
template <class T, class F>
__device__ T across_block(T x, F f, Shared<T> scratch) {
  const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  const int warps = (blockDim.x + warp_size - 1) / warp_size;
  x = across_warp(x, f);
  __syncthreads();  // scratch may be in use from a call before
  if (lane == 0) scratch[warp] = x;
  __syncthreads();
  T total = scratch[0];
  for (int w = 1; w < warps; ++w) total = f(total, T(scratch[w]));
  return total;
}

/// How many threads before this one say yes, and how many of the block. `scratch` holds an element
/// a warp.
struct Place {
  Index before, total;
};
__device__ inline Place place_among(bool yes, Shared<std::int32_t> scratch) {
  const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  const unsigned votes = __ballot_sync(all_lanes, yes);
  __syncthreads();  // scratch may be in use from a call before
  if (lane == 0) scratch[warp] = population(votes);
  __syncthreads();
  Place place{population(votes & ((1u << lane) - 1)), 0};
  for (int w = 0; w < int(blockDim.x) / warp_size; ++w) {
    if (w == warp) place.before += place.total;
    place.total += scratch[w];
  }
  return place;
}

}  // namespace dsa::cuda::DSA_PLACE
