#include "experiments/bench/cuda/memory.cuh"
#include "optimized/cuda/device/launch.cuh"
#include "optimized/cuda/device/numbers.cuh"

namespace dsa::bench::DSA_PLACE {
namespace {

constexpr int threads = 256;

/// The finaliser of MurmurHash3, over a place and a seed.
__device__ std::uint32_t hashed(Index i, unsigned seed) {
  std::uint32_t x = static_cast<std::uint32_t>(i) * 0x9e3779b9u + seed * 0x85ebca6bu;
  x = (x ^ x >> 16) * 0x85ebca6bu;
  x = (x ^ x >> 13) * 0xc2b2ae35u;
  return x ^ x >> 16;
}

__device__ float uniform(Index i, unsigned seed) {
  return static_cast<float>(hashed(i, seed) >> 8) * 0x1p-23f - 1;
}

template <class T>
__global__ void numbers_kernel(DeviceView<T, 1> x, unsigned seed) {
  for (Index i = blockIdx.x * Index(threads) + threadIdx.x; i < x.shape[0];
       i += Index(gridDim.x) * threads)
    x(i) = narrow<T>(uniform(i, seed));
}

__global__ void rows_kernel(DeviceView<e4m3, 2> x, Index before, Index scales, unsigned seed) {
  const Index row = blockIdx.x;
  for (Index c = threadIdx.x; c < x.shape[1]; c += threads) {
    const Index in_scales = c - before, in_rope = in_scales - 4 * scales;
    const Index i = row * x.shape[1] + c;
    if (c < before) {
      x(row, c) = narrow<e4m3>(uniform(i, seed));
    } else if (in_rope < 0) {  // 1.0f is 00 00 80 3f
      const int byte = static_cast<int>(in_scales % 4);
      x(row, c) = {std::uint8_t(byte == 2 ? 0x80 : byte == 3 ? 0x3f : 0)};
    } else {
      const bf16 value = narrow<bf16>(uniform(i - in_rope % 2, seed));
      x(row, c) = {std::uint8_t(in_rope % 2 ? value.bits >> 8 : value.bits & 0xff)};
    }
  }
}

__global__ void choose_kernel(DeviceView<std::int32_t, 2> chosen, Index S, Index queries,
                              unsigned seed) {
  const Index t = blockIdx.x, K = chosen.shape[1];
  for (Index i = threadIdx.x; i < K; i += threads) {
    const Index first = i * S / K, end = (i + 1) * S / K;
    chosen(t, i) = static_cast<std::int32_t>(t / queries * S + first +
                                             hashed(t * K + i, seed) % (end - first));
  }
}

}  // namespace

template <class T>
void fill(DeviceView<T, 1> x, unsigned seed) {
  const Index blocks = std::min<Index>(ceil_divide(x.shape[0], threads), 1 << 16);
  launch(Stream{}, "fill", {grid_of(blocks), threads}, numbers_kernel<T>, x, seed);
}
template void fill(DeviceView<float, 1>, unsigned);
template void fill(DeviceView<bf16, 1>, unsigned);
template void fill(DeviceView<e4m3, 1>, unsigned);

void fill_rows(DeviceView<e4m3, 2> x, Index before, Index scales, unsigned seed) {
  launch(Stream{}, "fill_rows", {grid_of(x.shape[0]), threads}, rows_kernel, x, before, scales,
         seed);
}

void choose(DeviceView<std::int32_t, 2> chosen, Index S, Index queries_per_sequence,
            unsigned seed) {
  require(chosen.shape[1] <= S, "more chosen keys than there are");
  launch(Stream{}, "choose", {grid_of(chosen.shape[0]), threads}, choose_kernel, chosen, S,
         queries_per_sequence, seed);
}

}  // namespace dsa::bench::DSA_PLACE
