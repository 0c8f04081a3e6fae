// Hopper's instructions in the emulator: a kernel that is right, and the same with one mistake
// each, which the sentence of the Error must name.
#define DSA_CUDA_ON_HOST
#include <cmath>
#include <vector>

#include "core/random.hpp"
#include "optimized/cuda/device/buffer.cuh"
#include "tests/catch.hpp"
#include "tests/cuda/hopper_pipeline.cuh"

using namespace dsa;
using namespace dsa::cuda::host;
using Catch::Matchers::Contains;
using hopper::Mistake;

namespace {

/// -1, 0 or 1: sums of 64 products are exact in bf16, sums of all of them in fp32.
std::vector<float> small_numbers(std::uint64_t seed, Index n) {
  std::vector<float> x(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = float(random_bits(seed, i) % 3) - 1;
  return x;
}
std::vector<bf16> narrowed(const std::vector<float>& x) {
  std::vector<bf16> y;
  for (const float number : x) y.push_back(narrow<bf16>(number));
  return y;
}

/// Whether o = (x k^T) k; for odd blocks (x k^T)^T k: their scores are read transposed.
bool pipeline_is_right(Index blocks, Mistake mistake = Mistake::none) {
  const std::vector<float> x = small_numbers(1, 64 * 64), k = small_numbers(2, blocks * 64 * 64);
  const Buffer<bf16> x_d(narrowed(x).data(), 64 * 64), k_d(narrowed(k).data(), blocks * 64 * 64);
  const Buffer<float> o_d(64 * 64);
  hopper::pipeline(Stream{}, o_d.view<2>({64, 64}), x_d.view<2>({64, 64}),
                   k_d.view<2>({64 * blocks, 64}), mistake);
  std::vector<float> o(64 * 64), expected(64 * 64);
  o_d.download(o.data());
  const auto at = [](const std::vector<float>& m, Index row, Index column) {
    return m[static_cast<std::size_t>(row * 64 + column)];
  };
  for (Index b = 0; b < blocks; ++b)
    for (Index i = 0; i < 64; ++i)
      for (Index j = 0; j < 64; ++j) {
        float score = 0;
        for (Index c = 0; c < 64; ++c) score += at(x, i, c) * at(k, 64 * b + j, c);
        const Index row = b % 2 == 0 ? i : j, key = b % 2 == 0 ? j : i;
        for (Index c = 0; c < 64; ++c)
          expected[static_cast<std::size_t>(row * 64 + c)] += score * at(k, 64 * b + key, c);
      }
  return o == expected;
}

f16 half(int i) {
  const std::uint16_t magnitudes[] = {0, 0x3c00, 0x4000};
  return {std::uint16_t(magnitudes[std::abs(i)] | (i < 0 ? 0x8000 : 0))};
}
int x_at(Index row, Index channel) { return int((row + channel) % 3) - 1; }
int y_at(Index row, Index channel) { return int(row * channel % 5) - 2; }

/// Two panels, filled and fenced, of f16.
struct TwoPanels {
  SharedMemory memory;
  Panels<64> x = take_panels<64>(memory, 1), y = take_panels<64>(memory, 1);

  TwoPanels() {
    for (Index i = threadIdx.x; i < 64 * 64; i += 128) {
      store(x, i / 64, i % 64, half(x_at(i / 64, i % 64)));
      store(y, i / 64, i % 64, half(y_at(i / 64, i % 64)));
    }
    fence_async_proxy();
    __syncthreads();
  }
  static void store(Panels<64> to, Index row, Index channel, f16 value) {
    shared_store(reinterpret_cast<f16*>(to.chunk(row, channel / 8)) + channel % 8, value);
  }
};

constexpr Index room = 2 * Panels<64>::panel_bytes;

void run(void (*kernel)(), bool early = false) {
  launch(Stream{}, "kernel", {dim3(2), dim3(128), room, true, early}, kernel);
}

}  // namespace

TEST_CASE("a Hopper pipeline of two warpgroups gives the product", "[cuda]") {
  for (const Index blocks : {1, 2, 5}) CHECK(pipeline_is_right(blocks));
}

TEST_CASE("mutants of the Hopper pipeline, each named by the emulator", "[cuda]") {
  const std::pair<Mistake, const char*> named[] = {
      {Mistake::no_proxy_fence, "no proxy fence lies between the two"},
      {Mistake::no_fence_of_stored, "no proxy fence lies between the two"},
      {Mistake::no_wgmma_wait, "touches an accumulator of the wgmma of line"},
      {Mistake::no_wgmma_fence, "accessed after the last wgmma_fence"},
      {Mistake::operand_changed, "changes an operand of the wgmma of line"},
      {Mistake::released_early, "copies to byte 8192 of shared memory, which the wgmma of warp"},
      {Mistake::full_parity, "a copy is still under way"},
      {Mistake::wrong_stride, "a wrong start or stride"},
      {Mistake::wrong_transposition, "which is K-major: a wrong transposition bit"},
      {Mistake::beyond_the_panels, "beyond panels of 64 rows"},
      {Mistake::wrong_count, "of 64 threads, others to one of 128"},
      {Mistake::comes_twice, "a second time before it is complete"},
      {Mistake::no_named_barrier, "no barrier orders the two"},
      {Mistake::no_full_wait, "a copy is still under way"},
      {Mistake::copies_not_awaited, "a copy is still under way"},
      {Mistake::one_warp_waits_not, "others of its warpgroup at"},
      {Mistake::never_waited, "while its wgmma is in flight"},
      {Mistake::registers_kept, "registers are free"},
  };
  for (const auto& [mistake, sentence] : named) {
    INFO(int(mistake));
    CHECK_THROWS_WITH(pipeline_is_right(mistake == Mistake::never_waited ? 1 : 4, mistake),
                      Contains(sentence));
  }
}

TEST_CASE("wgmma in f16: n 32, rows and channels of both operands", "[cuda]") {
  run([] {
    TwoPanels panels;
    Accumulator<32> rows, channels;
    wgmma_fence(rows, channels);
    for (int i = 0; i < 4; ++i) {
      wgmma<f16>(rows, panels.x.by_rows().step(i), panels.y.by_rows().step(i), i > 0);
      wgmma<f16>(channels, panels.x.by_channels().step(i), panels.y.by_channels().step(i), i > 0);
    }
    wgmma_commit();
    wgmma_wait<0>(rows, channels);
    const int t = int(threadIdx.x);
    for (int i = 0; i < 16; ++i) {
      const Index row = t / 32 * 16 + t % 32 / 4 + 8 * (i / 2 % 2);
      const Index column = 8 * (i / 4) + 2 * (t % 4) + i % 2;
      int by_rows = 0, by_channels = 0;
      for (Index k = 0; k < 64; ++k) {
        by_rows += x_at(row, k) * y_at(column, k);
        by_channels += x_at(k, row) * y_at(k, column);
      }
      if (rows[i] != float(by_rows) || channels[i] != float(by_channels)) fail("another product");
    }
  });
}

TEST_CASE("what else of Hopper the emulator names", "[cuda]") {
  CHECK_THROWS_WITH(run([] {
                      TwoPanels panels;
                      Accumulator<64> d;
                      wgmma_fence(d);
                      wgmma<f16>(d, panels.x.by_rows(), panels.y.by_rows(), false);
                      wgmma_commit();
                      if (threadIdx.x == 7) TwoPanels::store(panels.y, 3, 5, half(1));
                      wgmma_wait<0>(d);
                    }),
                    Contains("which was written while the wgmma was in flight"));
  CHECK_THROWS_WITH(run([] {
                      TwoPanels panels;
                      if (threadIdx.x == 7) TwoPanels::store(panels.y, 3, 5, half(1));
                      __syncthreads();
                      Accumulator<64> d;
                      wgmma_fence(d);
                      wgmma<f16>(d, panels.x.by_rows(), panels.y.by_rows(), false);
                    }),
                    Contains("which a thread wrote; no proxy fence lies between the two"));
  const std::vector<float> numbers(4, 1);
  const Buffer<float> buffer(numbers.data(), 4);
  const auto copy_over = [&](bool fenced) {
    launch(
        Stream{}, "kernel", {dim3(1), dim3(1), 64, true},
        +[](const float* from, bool fence) {
          SharedMemory memory;
          const auto x = memory.take<float>(4);
          const auto landed = memory.take<Mbarrier>(1);
          landed[0].init(1);
          fence_mbarrier_init();
          x[0] = 1;
          if (fence) fence_async_proxy();
          landed[0].arrive_expect_bytes(16);
          bulk_copy(x.address(0), from, 16, landed[0]);
          landed[0].wait(0);
        },
        buffer.data(), fenced);
  };
  CHECK_NOTHROW(copy_over(true));
  CHECK_THROWS_WITH(copy_over(false), Contains("copies in bulk to byte 0 of shared memory, which "
                                               "a thread wrote; no proxy fence"));
  CHECK_NOTHROW(run([] { wait_for_earlier_grids(); }, true));
  CHECK_THROWS_WITH(run([] { launch_dependents(); }, true),
                    Contains("without waiting for the grids before"));
  CHECK_THROWS_WITH(run([] { named_barrier_wait(0, 128); }), Contains("expected 1 to 15"));
  CHECK_THROWS_WITH(run([] { named_barrier_arrive(1, 100); }), Contains("a multiple of 32"));
  CHECK_THROWS_WITH(run([] { named_barrier_arrive(1, 256); }), Contains("has 128 of 256 threads"));
  CHECK_THROWS_WITH(run([] { grow_registers<100>(); }), Contains("a multiple of 8 from 24 to 256"));
  CHECK_THROWS_WITH(launch(
                        Stream{}, "kernel", {dim3(1), dim3(1), 200 << 10}, +[] {}),
                    Contains("cannot be launched"));
  CHECK_NOTHROW(launch(
      Stream{}, "kernel", {dim3(1), dim3(1), 200 << 10, true}, +[] {}));
  CHECK_THROWS_WITH(launch(
                        Stream{}, "kernel", {dim3(1), dim3(1), 228 << 10, true}, +[] {}),
                    Contains("cannot be launched"));
}
