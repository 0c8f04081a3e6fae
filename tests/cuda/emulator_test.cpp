// The emulator of optimized/cuda/host/, attacked: each of these kernels has one mistake, and the
// sentence of the Error must name what it is. Then: what it computes is what the PTX ISA says.
#define DSA_CUDA_ON_HOST
#include <set>
#include <vector>

#include "core/random.hpp"
#include "optimized/cuda/device/buffer.cuh"
#include "optimized/cuda/device/launch.cuh"
#include "optimized/cuda/device/numbers.cuh"
#include "tests/catch.hpp"

using namespace dsa;
using namespace dsa::cuda::host;
using Catch::Matchers::Contains;

namespace {

constexpr Index room = shared_room<float>(256);

/// Runs a kernel of no arguments with `threads` threads in each of two blocks.
void run(void (*kernel)(), unsigned threads = 64, Index shared = room) {
  launch(Stream{}, "kernel", {dim3(2), dim3(threads), shared}, kernel);
}

Shared<float> floats(Index n = 256) {
  SharedMemory memory;
  return memory.take<float>(n);
}

/// Two barriers, in two lines of the source: within the macros of a test there is only one.
void one_barrier_or_another() {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
}

}  // namespace

TEST_CASE("the emulator: every thread of every block runs once, and knows which it is", "[cuda]") {
  Buffer<std::int32_t> seen(4 * 3 * 40);
  const auto view = seen.view<3>({4, 3, 40});
  launch(
      Stream{}, "kernel", {dim3(4, 3), dim3(8, 5)},
      +[](DeviceView<std::int32_t, 3> out) {
        out(blockIdx.x, blockIdx.y, threadIdx.y * 8 + threadIdx.x) =
            static_cast<int>(blockDim.x * 100 + gridDim.y * 10 + threadIdx.y);
      },
      view);
  std::vector<std::int32_t> got(4 * 3 * 40);
  seen.download(got.data());
  for (std::size_t i = 0; i < got.size(); ++i) CHECK(got[i] == 830 + static_cast<int>(i % 40 / 8));
}

TEST_CASE("the emulator: a barrier that not every thread reaches", "[cuda]") {
  CHECK_THROWS_WITH(run([] {
                      if (threadIdx.x < 63) __syncthreads();
                    }),
                    Contains("kernel, block (0, 0, 0), thread (0, 0, 0): waits at the barrier") &&
                        Contains("thread (63, 0, 0) has ended"));
  CHECK_THROWS_WITH(run(one_barrier_or_another),
                    Contains("thread (32, 0, 0): is at the barrier of line"));
  CHECK_THROWS_WITH(run([] {
                      if (blockIdx.x == 1 && threadIdx.x == 5) return;
                      __syncwarp();
                    }),
                    Contains("block (1, 0, 0)") && Contains("__syncwarp"));
  CHECK_THROWS_WITH(run([] {
                      if (threadIdx.x == 40)
                        __syncthreads();
                      else
                        __shfl_xor_sync(all_lanes, 1.0f, 1);
                    }),
                    Contains("waits at"));
  CHECK_THROWS_WITH(run([] { __shfl_xor_sync(0xffffu, 1.0f, 1); }), Contains("some lanes only"));
}

TEST_CASE("the emulator: accesses outside tensors, buffers and shared memory", "[cuda]") {
  Buffer<float> buffer(6);
  const auto view = buffer.view<2>({2, 3});
  const auto touch = [&](Index i, Index j, DeviceView<float, 2> x) {
    launch(
        Stream{}, "kernel", {dim3(1), dim3(1)},
        +[](DeviceView<float, 2> y, Index a, Index b) { y(a, b) = 1; }, x, i, j);
  };
  CHECK_NOTHROW(touch(1, 2, view));
  CHECK_THROWS_WITH(touch(0, 3, view), Contains("subscript 3 of axis 1, which has 3"));
  CHECK_THROWS_WITH(touch(-1, 0, view), Contains("subscript -1 of axis 0"));
  CHECK_THROWS_WITH(touch(2, 0, buffer.view<2>({3, 3})), Contains("outside a buffer of 24 bytes"));
  buffer = Buffer<float>(6);  // the guard zone is as it should be again
  CHECK_THROWS_WITH(run([] { floats()[256] = 1; }), Contains("subscript 256"));
  CHECK_THROWS_WITH(run([] { floats(257)[0] = 1; }), Contains("the launch gave 1024"));
  CHECK_THROWS_WITH(launch(
                        Stream{}, "kernel", {dim3(1), dim3(32), 16},
                        +[](DeviceView<float, 2> x) {
                          SharedMemory memory;
                          copy_async_16(memory.take<float>(4).address(0), x.data + 4,
                                        threadIdx.x == 0);
                        },
                        buffer.view<2>({2, 3})),
                    Contains("outside every buffer"));
  const auto touch_four = [&](Index i) {
    launch(
        Stream{}, "kernel", {dim3(1), dim3(1)},
        +[](DeviceView<float, 2> x, Index at) { store_four(x.data + at, load_four(x.data)); },
        buffer.view<2>({2, 3}), i);
  };
  CHECK_NOTHROW(touch_four(0));
  CHECK_THROWS_WITH(touch_four(2), Contains("at an address that is no multiple of that"));
  CHECK_THROWS_WITH(touch_four(4), Contains("touches 16 bytes of global memory outside"));
}

TEST_CASE("the emulator: shared memory that nothing was written to", "[cuda]") {
  CHECK_THROWS_WITH(run([] {
                      const auto x = floats();
                      if (threadIdx.x > 0) x[threadIdx.x] = 1;
                      __syncthreads();
                      [[maybe_unused]] const float y = x[(threadIdx.x + 1) % 64];
                    }),
                    Contains("thread (63, 0, 0)") && Contains("nothing was written"));
}

TEST_CASE("the emulator: shared memory does not outlive its block", "[cuda]") {
  CHECK_THROWS_WITH(run([] {
                      const auto x = floats();
                      if (blockIdx.x == 0) x[threadIdx.x] = 1;
                      __syncthreads();
                      [[maybe_unused]] const float y = x[threadIdx.x];
                    }),
                    Contains("block (1, 0, 0)"));
}

TEST_CASE("the emulator: races are found in whatever order the threads run", "[cuda]") {
  const char* const race = "no barrier orders the two";
  CHECK_THROWS_WITH(run([] { floats()[threadIdx.x / 2] = 1; }), Contains(race));
  for (const bool upwards : {true, false}) {
    INFO(upwards);
    const auto kernel = +[](bool up) {
      const auto x = floats();
      x[threadIdx.x] = 1;
      [[maybe_unused]] const float y = x[(threadIdx.x + (up ? 63u : 1u)) % 64];
    };
    CHECK_THROWS_WITH(launch(Stream{}, "kernel", {dim3(1), dim3(64), room}, kernel, upwards),
                      Contains(race) || Contains("nothing was written"));
  }
  CHECK_THROWS_WITH(run([] {  // read, then written by others
                      const auto x = floats();
                      x[threadIdx.x] = 1;
                      __syncthreads();
                      [[maybe_unused]] const float y = x[0];
                      if (threadIdx.x == 63) x[0] = 2;
                    }),
                    Contains(race));
  CHECK_NOTHROW(run([] {  // within a warp, __syncwarp orders
    const auto x = floats();
    x[threadIdx.x] = 1;
    __syncwarp();
    [[maybe_unused]] const float y = x[threadIdx.x ^ 1];
    __syncwarp();
    x[threadIdx.x ^ 1] = 2;
  }));
  CHECK_THROWS_WITH(run([] {  // and a shuffle does not; nor does __syncwarp between warps
                      const auto x = floats();
                      x[threadIdx.x] = 1;
                      __shfl_xor_sync(all_lanes, 1.0f, 1);
                      [[maybe_unused]] const float y = x[threadIdx.x ^ 1];
                    }),
                    Contains(race) || Contains("nothing was written"));
  CHECK_THROWS_WITH(run([] {
                      const auto x = floats();
                      x[threadIdx.x] = 1;
                      __syncwarp();
                      [[maybe_unused]] const float y = x[threadIdx.x ^ 32];
                    }),
                    Contains(race) || Contains("nothing was written"));
}

TEST_CASE("the emulator: atomic updates do not race with each other, but with reads", "[cuda]") {
  CHECK_NOTHROW(run([] {
    const auto x = floats();
    if (threadIdx.x == 0) x[0] = 0;
    __syncthreads();
    x.atomic_add(0, 1);
    __syncthreads();
    if (x[0] != 64) fail("lost an update");
  }));
  CHECK_THROWS_WITH(run([] {
                      const auto x = floats();
                      if (threadIdx.x == 0) x[0] = 0;
                      __syncthreads();
                      x.atomic_add(0, 1);
                      [[maybe_unused]] const float y = x[0];
                    }),
                    Contains("no barrier orders the two"));
}

TEST_CASE("the emulator: an update races with reads and writes, before them and after", "[cuda]") {
  const auto kernel = +[](bool update_first, bool write) {
    const auto x = floats();
    if (threadIdx.x == 0) x[0] = 0;
    __syncthreads();
    if (threadIdx.x == (update_first ? 0 : 40)) x.atomic_add(0, 1);
    if (threadIdx.x != 33) return;
    if (write) x[0] = 2;
    [[maybe_unused]] const float y = x[0];
  };
  for (const bool update_first : {true, false})
    for (const bool write : {true, false})
      CHECK_THROWS_WITH(
          launch(Stream{}, "kernel", {dim3(1), dim3(64), room}, kernel, update_first, write),
          Contains(update_first ? (write ? "writes" : "reads") : "updates") &&
              Contains(update_first ? "updated" : (write ? "wrote" : "read")) &&
              Contains("no barrier orders the two"));
}

TEST_CASE("the emulator: a copy lands when it is waited for, and not before", "[cuda]") {
  Buffer<float> buffer(std::vector<float>{1, 2, 3, 4, 5, 6, 7, 8}.data(), 8);
  const auto kernel = +[](DeviceView<const float, 1> x, int pending, bool barrier) {
    const auto y = floats(8);
    if (threadIdx.x == 0) {
      copy_async_16(y.address(0), &x(0), true);
      copy_async_commit();
      copy_async_16(y.address(4), &x(4), false);
      copy_async_commit();
      if (pending == 0) copy_async_wait<0>();
      if (pending == 1) copy_async_wait<1>();
    }
    if (barrier) __syncthreads();
    if (y[0] != 1 || y[3] != 4) fail("copied something else");
    if (pending == 0 && y[7] != 0) fail("did not fill with zeros");
  };
  const auto copy = [&](int pending, bool barrier) {
    launch(Stream{}, "kernel", {dim3(1), dim3(32), room}, kernel, buffer.view<1>({8}), pending,
           barrier);
  };
  CHECK_NOTHROW(copy(0, true));
  CHECK_NOTHROW(copy(1, true));
  CHECK_THROWS_WITH(copy(2, true), Contains("a copy is still under way"));
  CHECK_THROWS_WITH(copy(0, false), Contains("no barrier orders the two"));
}

TEST_CASE("the emulator: what cannot be launched", "[cuda]") {
  CHECK_THROWS_WITH(run([] {}, 1025), Contains("cannot be launched"));
  CHECK_THROWS_WITH(run([] {}, 32, 1 << 20), Contains("cannot be launched"));
}

TEST_CASE("shuffles and votes", "[cuda]") {
  CHECK_NOTHROW(run([] {
    const int lane = lane_number();
    if (__shfl_sync(all_lanes, lane, 7) != 7) fail("shfl");
    if (__shfl_xor_sync(all_lanes, lane, 5) != (lane ^ 5)) fail("xor");
    if (__shfl_up_sync(all_lanes, lane, 3) != (lane < 3 ? lane : lane - 3)) fail("up");
    if (__shfl_down_sync(all_lanes, lane, 9) != (lane > 22 ? lane : lane + 9)) fail("down");
    if (__ballot_sync(all_lanes, lane % 3 == 0) != 0x49249249u) fail("ballot");
    if (__any_sync(all_lanes, lane == 40) || !__any_sync(all_lanes, lane == 31)) fail("any");
    if (across_warp(1, Sum{}) != 32) fail("sum");
    const Shared<float> scratch = floats(8);
    if (across_block(float(threadIdx.x), Sum{}, scratch) != 2016) fail("block sum");
    if (across_block(float(threadIdx.x), Maximum{}, scratch) != 63) fail("block maximum");
  }));
}

TEST_CASE("mma.m16n8k16 through ldmatrix against three loops", "[cuda]") {
  // a (16 x 16) and b (8 x 16, by column) in bf16; b also transposed, as the keys of an attention.
  std::vector<bf16> a(256), b(128), b_rows(128);
  const auto number = [](std::uint64_t i) { return static_cast<float>(dyadic(3, i)); };
  for (std::size_t i = 0; i < 256; ++i) a[i] = narrow<bf16>(number(i));
  for (std::size_t n = 0; n < 8; ++n)
    for (std::size_t k = 0; k < 16; ++k)
      b[n * 16 + k] = b_rows[k * 8 + n] = narrow<bf16>(number(256 + n * 16 + k));
  const Buffer<bf16> a_d(a.data(), 256), b_d(b.data(), 128), rows_d(b_rows.data(), 128);
  const Buffer<float> d(256);
  launch(
      Stream{}, "mma", {dim3(1), dim3(32), 4096},
      +[](DeviceView<float, 3> out, DeviceView<const bf16, 1> x, DeviceView<const bf16, 1> y,
          DeviceView<const bf16, 1> y_rows) {
        SharedMemory memory;
        const auto xs = memory.take<bf16>(256), ys = memory.take<bf16>(128),
                   rows = memory.take<bf16>(128);
        const int lane = lane_number();
        for (int i = lane; i < 256; i += 32) xs[i] = x(i);
        for (int i = lane; i < 128; i += 32) ys[i] = y(i), rows[i] = y_rows(i);
        __syncwarp();
        std::uint32_t fa[4], fb[4], ft[4];
        load_matrices(fa, xs.address((lane % 16) * 16 + lane / 16 * 8), false);
        load_matrices(fb, ys.address((lane % 8) * 16 + lane / 8 % 2 * 8), false);
        load_matrices(ft, rows.address((lane % 16) * 8), true);
        float d0[4] = {}, d1[4] = {1, 1, 1, 1};
        mma_bf16(d0, fa, {fb[0], fb[1]});
        mma_bf16(d1, fa, {ft[0], ft[1]});
        for (int r = 0; r < 4; ++r) {
          const int row = lane / 4 + 8 * (r / 2), column = 2 * (lane % 4) + r % 2;
          out(0, row, column) = d0[r], out(1, row, column) = d1[r];
        }
      },
      d.view<3>({2, 16, 8}), a_d.view<1>({256}), b_d.view<1>({128}), rows_d.view<1>({128}));
  std::vector<float> got(256);
  d.download(got.data());
  for (std::size_t i = 0; i < 16; ++i)
    for (std::size_t j = 0; j < 8; ++j) {
      float sum = 0;
      for (std::size_t k = 0; k < 16; ++k) sum += widen(a[i * 16 + k]) * widen(b[j * 16 + k]);
      CHECK(got[i * 8 + j] == sum);
      CHECK(got[128 + i * 8 + j] == sum + 1);
    }
}

TEST_CASE("narrowing and widening on the device agree with core/dtype", "[cuda]") {
  for (std::uint64_t i = 0; i < 20000; ++i) {
    const double size = std::exp2(uniform(5, 3 * i) * 24 - 14);
    const float x = static_cast<float>(gaussian(6, i) * size);
    CHECK(widen(narrow<bf16>(x)) == static_cast<float>(round_to(Dtype::bf16, x)));
    if (std::abs(x) <= 448)
      CHECK(widen(narrow<e4m3>(x)) == static_cast<float>(round_to(Dtype::f8_e4m3, x)));
    else
      CHECK(std::abs(widen(narrow<e4m3>(x))) == 448);
  }
  for (unsigned bits = 0; bits < 256; ++bits) {
    const e4m3 code{static_cast<std::uint8_t>(bits)};
    if ((bits & 0x7f) == 0x7f)
      CHECK((std::isnan(widen(code)) && std::isnan(widen(narrow<e4m3>(widen(code))))));
    else
      CHECK(narrow<e4m3>(widen(code)).bits == bits);
  }
  CHECK(std::isnan(widen(narrow<bf16>(NAN))));
}
