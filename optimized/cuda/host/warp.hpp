// optimized/cuda/host/warp.hpp — operations of the lanes of a warp, on the host.
//
// Every lane of the warp must take part: a mask other than 0xffffffff is an Error. Fragment
// layouts: PTX ISA, "Matrix fragments for mma.m16n8k16 with floating point type" and "ldmatrix".
#pragma once

#include <cstdint>
#include <cstring>

#include "optimized/cuda/host/shared_memory.hpp"
#include "optimized/cuda/host/words.hpp"

namespace dsa::cuda::host {

inline constexpr unsigned all_lanes = 0xffffffffu;

inline void expect_all_lanes(unsigned mask) {
  if (mask != all_lanes) fail("a warp operation of some lanes only is not emulated");
}

template <class T>
struct Exchange {
  T mine;
  int source;  // lane
  T result;
};

template <class T>
T exchange(const char* what, int line, unsigned mask, T value, int source) {
  expect_all_lanes(mask);
  Exchange<T> lane{value, source < 0 || source >= warp_size ? lane_number() : source, value};
  warp_operation(
      what, line, &lane,
      [](void* const* lanes) {
        for (int i = 0; i < warp_size; ++i) {
          auto* to = static_cast<Exchange<T>*>(lanes[i]);
          const auto* from = to ? static_cast<Exchange<T>*>(lanes[to->source]) : nullptr;
          if (from) to->result = from->mine;
        }
      },
      false);
  return lane.result;
}

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int line = __builtin_LINE()) {
  return exchange("a shuffle", line, mask, value, lane & 31);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int line = __builtin_LINE()) {
  return exchange("a shuffle", line, mask, value, lane_number() ^ bits);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, int by, int line = __builtin_LINE()) {
  return exchange("a shuffle", line, mask, value, lane_number() - by);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, int by, int line = __builtin_LINE()) {
  return exchange("a shuffle", line, mask, value, lane_number() + by);
}

inline unsigned __ballot_sync(unsigned mask, bool predicate, int line = __builtin_LINE()) {
  expect_all_lanes(mask);
  struct Vote {
    bool mine;
    unsigned result;
  } lane{predicate, 0};
  warp_operation(
      "a vote", line, &lane,
      [](void* const* lanes) {
        unsigned votes = 0;
        for (int i = 0; i < warp_size; ++i)
          if (lanes[i] && static_cast<Vote*>(lanes[i])->mine) votes |= 1u << i;
        for (int i = 0; i < warp_size; ++i)
          if (lanes[i]) static_cast<Vote*>(lanes[i])->result = votes;
      },
      false);
  return lane.result;
}
inline bool __any_sync(unsigned mask, bool predicate, int line = __builtin_LINE()) {
  return __ballot_sync(mask, predicate, line) != 0;
}

inline void __syncwarp(unsigned mask = all_lanes, int line = __builtin_LINE()) {
  expect_all_lanes(mask);
  int lane = 0;
  warp_operation(
      "__syncwarp", line, &lane, [](void* const*) {}, true);
}

/// d (16 x 8) += a (16 x 16) b (16 x 8) in bf16, sums in fp32. Lane i holds, with g = i / 4 and
/// c = 2 (i % 4): a rows g, g+8, g, g+8 at columns c, c, c+8, c+8; b rows c, c+8 of column g;
/// d rows g, g, g+8, g+8 at columns c, c+1, c, c+1. Two bf16 a register, the lower first.
void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
              int line = __builtin_LINE());

/// The same in IEEE half precision.
void mma_f16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
             int line = __builtin_LINE());

/// Four matrices of 8 x 8 two-byte elements: lane i brings the address of row i % 8 of matrix
/// i / 8 (16 bytes, 16-byte aligned) and gets, of each matrix, elements 2 (i % 4), +1 of row i / 4;
/// transposed: of column i / 4.
void load_matrices(std::uint32_t (&r)[4], const void* row, bool transposed,
                   int line = __builtin_LINE());

/// stmatrix: the same way back, not transposed.
void store_matrices(void* row, const std::uint32_t (&r)[4], int line = __builtin_LINE());

}  // namespace dsa::cuda::host
