// optimized/cpu/kernels/tiles.hpp — the eight tile registers of AMX: 16 rows of 64 bytes each.
//
// DSA_TILES says that the tier has them. Under DSA_TILES_IN_SOFTWARE they are memory: the tests
// build kernels so and judge them on machines without AMX. Instructions are written out because the
// intrinsics of GCC 12 take no register number from a template and do not tell the compiler that
// tiles read memory.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(DSA_TILES_IN_SOFTWARE)
#define DSA_TILES

namespace dsa::cpu::DSA_TIER {

struct Tile {
  std::uint32_t words[16][16];
};
static thread_local Tile tiles[8];

inline void tiles_begin() {}
inline void tiles_end() {}

template <int tile>
void tile_zero() {
  tiles[tile] = {};
}

template <int tile>
void tile_load(const void* from, std::int64_t stride_bytes) {
  for (int row = 0; row < 16; ++row)
    std::memcpy(tiles[tile].words[row], static_cast<const char*>(from) + row * stride_bytes, 64);
}

template <int tile>
void tile_store(float* to, std::int64_t stride_bytes) {
  for (int row = 0; row < 16; ++row)
    std::memcpy(reinterpret_cast<char*>(to) + row * stride_bytes, tiles[tile].words[row], 64);
}

inline float tile_number(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

template <int sums, int a, int b>
void tile_dot() {
  for (int row = 0; row < 16; ++row)
    for (int pair = 0; pair < 16; ++pair)
      for (int column = 0; column < 16; ++column) {
        const std::uint32_t x = tiles[a].words[row][pair], w = tiles[b].words[pair][column];
        float sum = tile_number(tiles[sums].words[row][column]);
        sum += tile_number(x << 16) * tile_number(w << 16);
        sum += tile_number(x & 0xffff0000u) * tile_number(w & 0xffff0000u);
        std::memcpy(&tiles[sums].words[row][column], &sum, 4);
      }
}

}  // namespace dsa::cpu::DSA_TIER

#elif defined(__AMX_BF16__)
#define DSA_TILES

namespace dsa::cpu::DSA_TIER {

/// Every tile has all of its 16 rows of 64 bytes.
inline void tiles_begin() {
  struct alignas(64) {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } const shape;
  asm volatile("ldtilecfg %0" ::"m"(shape));
}
inline void tiles_end() { asm volatile("tilerelease"); }

template <int tile>
void tile_zero() {
  asm volatile("tilezero %%tmm%c0" ::"i"(tile));
}

template <int tile>
void tile_load(const void* from, std::int64_t stride_bytes) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride_bytes), "i"(tile)
               : "memory");
}

template <int tile>
void tile_store(float* to, std::int64_t stride_bytes) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride_bytes), "i"(tile) : "memory");
}

/// sums[r][c] += a[r][2p] b[p][2c] + a[r][2p+1] b[p][2c+1], p ascending.
template <int sums, int a, int b>
void tile_dot() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sums), "i"(a), "i"(b));
}

}  // namespace dsa::cpu::DSA_TIER
#endif
