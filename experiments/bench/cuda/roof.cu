#include "experiments/bench/cuda/memory.cuh"
#include "experiments/bench/cuda/product.cuh"
#include "experiments/bench/cuda/roof.cuh"
#include "optimized/cuda/device/launch.cuh"

namespace dsa::bench::DSA_PLACE {
namespace {

constexpr int threads = 512;

struct alignas(16) Quad {
  std::uint32_t word[4];
};

/// Every thread keeps something of all it read, or the compiler would read nothing.
__global__ void read_kernel(DeviceView<const Quad, 1> x, DeviceView<std::uint32_t, 1> kept) {
  const Index thread = blockIdx.x * Index(threads) + threadIdx.x;
  std::uint32_t bits = 0;
#pragma unroll 4
  for (Index i = thread; i < x.shape[0]; i += kept.shape[0]) {
    const Quad q = x(i);
    bits ^= q.word[0] ^ q.word[1] ^ q.word[2] ^ q.word[3];
  }
  kept(thread) = bits;
}

}  // namespace

Roof measure_roof(Timer& timer) {
#ifdef DSA_CUDA_ON_HOST
  constexpr Index quads = 1 << 10, n = 16;
#else
  constexpr Index quads = Index{1} << 28, n = 8192;
#endif
  Roof roof;
  {
    Memory memory;
    const Index blocks = 8 * multiprocessors();
    const auto x = memory.space<Quad, 1>({quads});
    const auto kept = memory.space<std::uint32_t, 1>({blocks * threads});
    fill<float>({reinterpret_cast<float*>(x.data), {4 * quads}}, 1);
    const Times times = timer.time(
        [&](Index) {
          launch(Stream{}, "read", {grid_of(blocks), threads}, read_kernel,
                 DeviceView<const Quad, 1>(x), kept);
        },
        1);
    roof.bytes = static_cast<double>(quads * sizeof(Quad)) / times.median_ms * 1e3;
  }
  Memory memory;
  const Product product;
  const auto x = memory.numbers<bf16, 2>({n, n}), w = memory.numbers<bf16, 2>({n, n});
  const auto y = memory.space<float, 2>({n, n});
  const Times times = timer.time([&](Index) { product(y, x, w); }, 1);
  roof.flops = 2.0 * n * n * n / times.median_ms * 1e3;
  return roof;
}

}  // namespace dsa::bench::DSA_PLACE
