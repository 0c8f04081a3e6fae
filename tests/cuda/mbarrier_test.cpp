// mbarriers and the copies that report to them, in the emulator: kernels of sm_90 that are right,
// and the same with one mistake each, which the sentence of the Error must name.
#define DSA_CUDA_ON_HOST
#include <vector>

#include "core/random.hpp"
#include "optimized/cuda/device/buffer.cuh"
#include "tests/catch.hpp"
#include "tests/cuda/pipeline.cuh"

using namespace dsa;
using namespace dsa::cuda::host;
using Catch::Matchers::Contains;

namespace {

std::vector<bf16> dyadic_numbers(std::uint64_t seed, Index n) {
  std::vector<bf16> x(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = narrow<bf16>(float(dyadic(seed, i)));
  return x;
}

/// The greatest error of y (T, N) = x w^T; sums of dyadic numbers are exact.
double pipeline_error(Index T, Index N, Index C, Mistake mistake = Mistake::none) {
  const std::vector<bf16> x = dyadic_numbers(1, T * C), w = dyadic_numbers(2, N * C);
  const Buffer<bf16> x_d(x.data(), T * C), w_d(w.data(), N * C);
  const Buffer<float> y_d(T * N);
  pipeline(Stream{}, y_d.view<2>({T, N}), x_d.view<2>({T, C}), w_d.view<2>({N, C}), mistake);
  std::vector<float> y(static_cast<std::size_t>(T * N));
  y_d.download(y.data());
  double worst = 0;
  for (Index t = 0; t < T; ++t)
    for (Index n = 0; n < N; ++n) {
      double sum = 0;
      for (Index c = 0; c < C; ++c)
        sum += double(widen(x[static_cast<std::size_t>(t * C + c)])) *
               double(widen(w[static_cast<std::size_t>(n * C + c)]));
      const double error = std::abs(sum - double(y[static_cast<std::size_t>(t * N + n)]));
      if (!(error <= worst)) worst = error;  // NaN stays
    }
  return worst;
}

constexpr Index room = 2048;

/// Memory of every kernel below: 256 floats, then two mbarriers for one arrival each.
struct Room {
  SharedMemory memory;
  Shared<float> x = memory.take<float>(256);
  Shared<Mbarrier> b = memory.take<Mbarrier>(2);

  explicit Room(int arrivals = 1) {
    if (threadIdx.x == 0) b[0].init(arrivals), b[1].init(arrivals), fence_mbarrier_init();
    __syncthreads();
  }
};

void run(void (*kernel)()) { launch(Stream{}, "kernel", {dim3(2), dim3(64), room}, kernel); }

/// Runs a kernel that copies from 64 floats.
void run_copy(void (*kernel)(const float*)) {
  const std::vector<float> numbers(64, 3);
  const Buffer<float> buffer(numbers.data(), 64);
  launch(Stream{}, "kernel", {dim3(1), dim3(64), room}, kernel, buffer.data());
}

const char* const race = "no barrier orders the two";
const char* const stuck = "nobody can go on";

}  // namespace

TEST_CASE("a pipeline of boxes, mbarriers and mma gives the product, whatever the sizes",
          "[cuda]") {
  CHECK(pipeline_error(64, 64, 64) == 0);
  CHECK(pipeline_error(1, 3, 8) == 0);       // less than a box in every direction
  CHECK(pipeline_error(70, 131, 200) == 0);  // several blocks, four runs, the last of 16 bytes
  CHECK(pipeline_error(65, 5, 712) == 0);    // every stage six times
}

TEST_CASE("mutants of the pipeline, each named by the emulator", "[cuda]") {
  const auto run_with = [](Mistake mistake) { return pipeline_error(64, 64, 320, mistake); };
  CHECK_THROWS_WITH(run_with(Mistake::no_fence), Contains("no fence_mbarrier_init came after"));
  CHECK_THROWS_WITH(run_with(Mistake::no_barrier_after_init),
                    Contains("thread 0 initialised; no barrier orders the two") ||
                        Contains("where none was initialised"));
  CHECK_THROWS_WITH(run_with(Mistake::full_parity), Contains("nothing was written"));
  CHECK_THROWS_WITH(run_with(Mistake::no_full_wait), Contains("nothing was written"));
  CHECK_THROWS_WITH(
      run_with(Mistake::empty_parity),
      Contains("pipeline, block (0, 0, 0), thread (0, 0, 0): waits at the mbarrier") &&
          Contains("thread (128, 0, 0) at the mbarrier") && Contains(stuck) &&
          Contains("lacks 4 of 4 arrivals"));
  CHECK_THROWS_WITH(run_with(Mistake::no_empty_wait), Contains("beyond the count of 1"));
  CHECK_THROWS_WITH(run_with(Mistake::no_arrival),
                    Contains("lacks 4 of 4 arrivals") && Contains(stuck));
  CHECK_THROWS_WITH(run_with(Mistake::arrival_without_syncwarp),
                    Contains("thread (128, 0, 0): copies to byte") && Contains(race));
  CHECK_THROWS_WITH(run_with(Mistake::every_lane_arrives), Contains("beyond the count of 4"));
  CHECK_THROWS_WITH(run_with(Mistake::no_expectation), Contains("a copy is still under way"));
  CHECK_THROWS_WITH(run_with(Mistake::too_few_bytes),
                    Contains("expects 16368 bytes, and copies bring 16384"));
  CHECK_THROWS_WITH(
      run_with(Mistake::too_many_bytes),
      Contains("expects 16400 bytes, of which copies bring 16384") && Contains(stuck));
  CHECK_THROWS_WITH(run_with(Mistake::every_lane_copies), Contains("beyond the count of 1"));
}

TEST_CASE("bulk copies: rows, and what they must not be", "[cuda]") {
  const std::vector<bf16> numbers = dyadic_numbers(3, 5 * 20);
  std::vector<float> x, sums(20);
  for (const bf16 number : numbers) x.push_back(widen(number));
  for (std::size_t i = 0; i < x.size(); ++i) sums[i % 20] += x[i];
  const Buffer<float> x_d(x.data(), 100), y_d(20);
  sum_of_rows(Stream{}, y_d.view<1>({20}), x_d.view<2>({5, 20}));
  std::vector<float> y(20);
  y_d.download(y.data());
  CHECK(y == sums);

  CHECK_THROWS_WITH(run_copy([](const float* from) {
                      Room r;
                      bulk_copy(r.x.address(1), from, 16, r.b[0]);
                    }),
                    Contains("copies in bulk to an address that is no multiple of 16"));
  CHECK_THROWS_WITH(run_copy([](const float* from) {
                      Room r;
                      bulk_copy(r.x.address(0), from + 2, 16, r.b[0]);
                    }),
                    Contains("copies in bulk from an address that is no multiple of 16"));
  CHECK_THROWS_WITH(run_copy([](const float* from) {
                      Room r;
                      bulk_copy(r.x.address(0), from, 24, r.b[0]);
                    }),
                    Contains("copies 24 bytes in bulk, no multiple of 16"));
  CHECK_THROWS_WITH(run_copy([](const float* from) {
                      Room r;
                      bulk_copy(r.x.address(0), from + 60, 32, r.b[0]);
                    }),
                    Contains("touches 32 bytes of global memory outside every buffer"));
}

TEST_CASE("tensor maps and boxes: what they must not be", "[cuda]") {
  const Buffer<bf16> x(64 * 68);
  CHECK_NOTHROW(tensor_map<bf16>(x.view<2>({64, 64}), 256));
  CHECK_THROWS_WITH(tensor_map<bf16>(x.view<2>({64, 68}), 64), Contains("rows of 136 bytes"));
  CHECK_THROWS_WITH(tensor_map<bf16>(x.view<2>({0, 64}), 64), Contains("found 0 x 64"));
  CHECK_THROWS_WITH(tensor_map<bf16>(x.view<2>({64, 64}), 257), Contains("found 257"));
  CHECK_THROWS_WITH(tensor_map<bf16>({x.data() + 4, {2, 64}}, 8), Contains("multiples of 16"));
  const auto box_to = [&](Index byte, Index rows) {
    launch(
        Stream{}, "kernel", {dim3(1), dim3(1), 4096},
        +[](const TensorMap map, Index at) {
          SharedMemory memory;
          const auto tile = memory.take<unsigned char>(3072);
          const auto b = memory.take<Mbarrier>(1);
          b[0].init(1);
          fence_mbarrier_init();
          b[0].arrive_expect_bytes(1024);
          tensor_copy(tile.address(at), map, 0, 0, b[0]);
          b[0].wait(0);
        },
        tensor_map<bf16>({x.data(), {rows, 64}}, 8), byte);
  };
  CHECK_NOTHROW(box_to(1024, 68));
  CHECK_THROWS_WITH(box_to(128, 68), Contains("no multiple of 1024"));
  CHECK_NOTHROW(box_to(0, 4));  // the rest is zeros
  CHECK_THROWS_WITH(
      [&] {
        launch(
            Stream{}, "kernel", {dim3(1), dim3(1), 4096},
            +[](const TensorMap map) {
              SharedMemory memory;
              const auto tile = memory.take<unsigned char>(1024);
              const auto b = memory.take<Mbarrier>(1);
              b[0].init(1);
              fence_mbarrier_init();
              tensor_copy(tile.address(0), map, 0, 64, b[0]);
            },
            tensor_map<bf16>({x.data(), {80, 64}}, 8));
      }(),
      Contains("outside every buffer"));
}

TEST_CASE("an mbarrier orders what came before an arrival with what follows the wait", "[cuda]") {
  CHECK_NOTHROW(run([] {  // thread 40 sees through thread 33 what thread 0 did
    Room r;
    if (threadIdx.x == 0) r.x[0] = 1, r.b[0].arrive();
    if (threadIdx.x == 33) r.b[0].wait(0), r.b[1].arrive();
    if (threadIdx.x == 40) r.b[1].wait(0), r.x[0] = r.x[0] + 1;
  }));
  CHECK_THROWS_WITH(
      run([] {  // and not what came after the arrival
        Room r;
        if (threadIdx.x == 0) r.b[0].arrive(), r.x[0] = 1;
        if (threadIdx.x == 33) {
          r.b[0].wait(0);
          [[maybe_unused]] const float y = r.x[0];
        }
      }),
      Contains("reads byte 0 of shared memory, which thread 0 wrote") && Contains(race));
  const auto told = +[](bool lanes_too) {  // one waits, and tells its warp
    Room r;
    if (threadIdx.x == 0) r.x[0] = 1, r.b[0].arrive();
    if (threadIdx.x < 32) return;
    if (threadIdx.x == 32) r.b[0].wait(0);
    if (lanes_too) __syncwarp();
    if (threadIdx.x == 35 && r.x[0] != 1) fail("read something else");
  };
  CHECK_NOTHROW(launch(Stream{}, "kernel", {dim3(1), dim3(64), room}, told, true));
  CHECK_THROWS_WITH(launch(Stream{}, "kernel", {dim3(1), dim3(64), room}, told, false),
                    Contains("thread 0 wrote") && Contains(race));
  CHECK_THROWS_WITH(run([] {  // nor what a lane did that did not arrive
                      Room r;
                      if (threadIdx.x == 0) r.x[0] = 1;
                      if (threadIdx.x == 1) r.b[0].arrive();
                      if (threadIdx.x == 33) {
                        r.b[0].wait(0);
                        [[maybe_unused]] const float y = r.x[0];
                      }
                    }),
                    Contains("thread 0 wrote") && Contains(race));
  CHECK_THROWS_WITH(
      run([] {  // and only for who waits
        Room r;
        if (threadIdx.x == 0) r.x[0] = 1, r.b[0].arrive();
        if (threadIdx.x == 33) r.b[0].wait(0);
        if (threadIdx.x == 34) r.x[0] = 2;
      }),
      Contains("writes byte 0 of shared memory, which thread 0 wrote") && Contains(race));
}

TEST_CASE("who writes must know of every reader", "[cuda]") {
  const auto kernel = +[](unsigned does_not_arrive) {
    Room r(does_not_arrive < 40 ? 39 : 40);
    if (threadIdx.x == 63) r.x[0] = 1;
    __syncthreads();
    if (threadIdx.x < 40) {
      [[maybe_unused]] const float y = r.x[0];
      if (threadIdx.x != does_not_arrive) r.b[0].arrive();
    }
    if (threadIdx.x == 63) r.b[0].wait(0), r.x[0] = 2;
  };
  const auto run_without = [&](unsigned thread) {
    launch(Stream{}, "kernel", {dim3(1), dim3(64), room}, kernel, thread);
  };
  CHECK_NOTHROW(run_without(40));
  CHECK_THROWS_WITH(run_without(39), Contains("which thread 39 read") && Contains(race));
  CHECK_THROWS_WITH(run_without(17), Contains("which thread 17 read") && Contains(race));
  CHECK_THROWS_WITH(run_without(0), Contains("which thread 0 read") && Contains(race));
}

TEST_CASE("readers are remembered however often others read", "[cuda]") {
  const auto kernel = +[](bool all_arrive) {
    Room r(all_arrive ? 2 : 1);
    if (threadIdx.x == 63) r.x[0] = r.x[1] = 1.0f;
    __syncthreads();
    [[maybe_unused]] float y = r.x[0] + r.x[1];
    if (threadIdx.x == 64 && all_arrive) r.b[0].arrive();
    if (threadIdx.x == 64) return;
    for (int i = 0; i < 6000; ++i) {  // more sets of readers than are kept
      __syncwarp();
      y = r.x[0] + r.x[1];
    }
    __syncwarp();
    if (threadIdx.x == 0) r.b[0].arrive();
    if (threadIdx.x == 63) r.b[0].wait(0), r.x[1] = 2;
  };
  CHECK_NOTHROW(launch(Stream{}, "kernel", {dim3(1), dim3(65), room}, kernel, true));
  CHECK_THROWS_WITH(launch(Stream{}, "kernel", {dim3(1), dim3(65), room}, kernel, false),
                    Contains("writes byte 4 of shared memory, which thread 64 read"));
}

TEST_CASE("bytes of a copy belong to who waited for it", "[cuda]") {
  CHECK_NOTHROW(run_copy([](const float* from) {
    Room r;
    if (threadIdx.x == 0)
      r.b[0].arrive_expect_bytes(64), bulk_copy(r.x.address(0), from, 64, r.b[0]);
    r.b[0].wait(0);
    if (r.x[15] != 3) fail("copied something else");
  }));
  CHECK_THROWS_WITH(
      run_copy([](const float* from) {  // two have landed, one was waited for
        Room r;
        if (threadIdx.x == 0)
          for (int i = 0; i < 2; ++i) {
            r.b[i].arrive_expect_bytes(64);
            bulk_copy(r.x.address(16 * i), from, 64, r.b[i]);
          }
        if (threadIdx.x == 32) r.b[0].wait(0);
        if (threadIdx.x == 33) {
          r.b[1].wait(0);
          [[maybe_unused]] const float y = r.x[0];
        }
      }),
      Contains("thread (33, 0, 0): reads byte 0 of shared memory, which a copy wrote") &&
          Contains(race));
  for (const bool writes : {false, true})
    CHECK_THROWS_WITH(launch(
                          Stream{}, "kernel", {dim3(1), dim3(64), room},
                          +[](const float* from, bool write) {
                            Room r;
                            if (threadIdx.x > 0) return;
                            r.b[0].arrive_expect_bytes(16);
                            bulk_copy(r.x.address(0), from, 16, r.b[0]);
                            if (write)
                              r.x[3] = 1;
                            else
                              bulk_copy(r.x.address(0), from, 16, r.b[1]);
                          },
                          Buffer<float>(64).data(), writes),
                      Contains("a copy is still under way"));
  CHECK_THROWS_WITH(run_copy([](const float* from) {
                      Room r;
                      if (threadIdx.x > 0) return;
                      r.b[0].arrive_expect_bytes(16);
                      bulk_copy(r.x.address(0), from, 16, r.b[0]);
                    }),
                    Contains("has ended") && Contains("of which copies bring 16"));
}

TEST_CASE("an mbarrier is used as it was initialised", "[cuda]") {
  CHECK_THROWS_WITH(run([] {
                      Room r;
                      if (threadIdx.x % 32 == 5) r.b[0].arrive();
                    }),
                    Contains("thread (37, 0, 0): arrives at the mbarrier at byte 1024") &&
                        Contains("beyond the count of 1"));
  CHECK_THROWS_WITH(run([] {
                      Room r;
                      if (threadIdx.x == 7) r.b[0].init(2);
                    }),
                    Contains("initialises the mbarrier at byte 1024 again"));
  CHECK_THROWS_WITH(run([] { SharedMemory().take<Mbarrier>(1)[0].arrive(); }),
                    Contains("where none was initialised"));
  CHECK_THROWS_WITH(run([] {
                      Room r;
                      shared_store(&r.b[1].state, std::uint64_t{0});
                    }),
                    Contains("writes byte 1032 of shared memory, which is an mbarrier"));
  CHECK_THROWS_WITH(run([] { Room r(0); }), Contains("for 0 arrivals"));
  CHECK_THROWS_WITH(run([] {
                      Room r;
                      r.b[0].arrive_expect_bytes(1 << 20);
                    }),
                    Contains("at most 2^20 - 1"));
  CHECK_THROWS_WITH(run([] {
                      Room r;
                      r.b[0].wait(2);
                    }),
                    Contains("for parity 2"));
  CHECK_THROWS_WITH(run([] {
                      Room r;
                      if (threadIdx.x == 0) r.b[0].arrive_expect_bytes(16);
                    }),
                    Contains("lacks bytes at the end of the block"));
}
