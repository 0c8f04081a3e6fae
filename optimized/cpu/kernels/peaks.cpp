#include "optimized/cpu/kernels/peaks.hpp"

#include "optimized/cpu/kernels/native.hpp"
#include "optimized/cpu/kernels/tiles.hpp"

namespace dsa::cpu::DSA_TIER {
namespace {

constexpr int sums = tile_rows * tile_columns / width;

template <class Product>
double multiply_in_registers(std::int64_t n, float* numbers) {
  Vector* const at = reinterpret_cast<Vector*>(numbers);
  Vector sum[sums];
#pragma GCC unroll 32
  for (int i = 0; i < sums; ++i) sum[i] = at[i];
  const Vector a = at[sums], b = at[sums + 1];
  for (std::int64_t round = 0; round < n; ++round)
#pragma GCC unroll 32
    for (int i = 0; i < sums; ++i) sum[i] = Product::add_product(sum[i], a, b);
#pragma GCC unroll 32
  for (int i = 0; i < sums; ++i) at[i] = sum[i];
  return static_cast<double>(n) * 2 * Product::channels * width * sums;
}

#if defined(DSA_TILES)
double multiply_in_tiles(std::int64_t n, float* numbers) {
  tiles_begin();
  tile_load<4>(numbers, 64);
  tile_load<5>(numbers, 64);
  tile_load<6>(numbers, 64);
  tile_load<7>(numbers, 64);
  tile_zero<0>();
  tile_zero<1>();
  tile_zero<2>();
  tile_zero<3>();
  for (std::int64_t round = 0; round < n; ++round) {
    tile_dot<0, 4, 6>();
    tile_dot<1, 4, 7>();
    tile_dot<2, 5, 6>();
    tile_dot<3, 5, 7>();
  }
  tile_store<0>(numbers, 64);
  tiles_end();
  return static_cast<double>(n) * 4 * 16 * 16 * 64;
}
#endif

}  // namespace

double multiply_loop([[maybe_unused]] bool bf16, std::int64_t n, float* numbers) {
#if defined(DSA_TILES)
  if (bf16) return multiply_in_tiles(n, numbers);
#elif defined(__AVX512BF16__)
  if (bf16) return multiply_in_registers<Pairs>(n, numbers);
#endif
  return multiply_in_registers<Floats>(n, numbers);
}

float read_loop(const float* x, std::int64_t n) {
  constexpr int at_once = 8;
  Vector sum[at_once] = {};
  for (std::int64_t i = 0; i < n; i += at_once * width)
    for (int v = 0; v < at_once; ++v) sum[v] += vector_at(x + i + v * width);
  for (int v = 1; v < at_once; ++v) sum[0] += sum[v];
  float total = 0;
  for (int lane = 0; lane < width; ++lane) total += sum[0][lane];
  return total;
}

}  // namespace dsa::cpu::DSA_TIER
