// A product x W^T in bf16 as a rung v3 would begin it: one warp copies boxes of both matrices into
// two stages, four multiply what has landed. With one mistake at a time, for whoever has to notice.
#pragma once

#include "optimized/cuda/device/async.cuh"
#include "optimized/cuda/device/product_tile.cuh"

namespace dsa::cuda::DSA_PLACE {

enum class Mistake {
  none,
  no_fence,
  no_barrier_after_init,
  full_parity,   // the consumers' wait
  empty_parity,  // the producer's wait
  no_full_wait,
  no_empty_wait,
  no_arrival,
  arrival_without_syncwarp,
  every_lane_arrives,
  no_expectation,
  too_few_bytes,
  too_many_bytes,
  every_lane_copies,
};

inline constexpr int consumers = product_threads, pipeline_threads = consumers + warp_size;
inline constexpr Index box_bytes = product_rows * stage_bytes;
inline constexpr Index pipeline_shared_bytes =
    product_shared_bytes + 2 * shared_room<Mbarrier>(product_stages);

struct Pipeline {
  Tile x, w;                     // two stages each
  Shared<Mbarrier> full, empty;  // of a stage
  Mistake mistake;

  __device__ Pipeline(SharedMemory& memory, Mistake mistake_)
      : x(take_tile(memory, product_stages * product_rows, stage_bytes)),
        w(take_tile(memory, product_stages * product_rows, stage_bytes)),
        full(memory.take<Mbarrier>(product_stages)),
        empty(memory.take<Mbarrier>(product_stages)),
        mistake(mistake_) {
    if (threadIdx.x == 0) {
      for (Index s = 0; s < product_stages; ++s)
        full[s].init(1), empty[s].init(consumers / warp_size);
      if (mistake != Mistake::no_fence) fence_mbarrier_init();
    }
    if (mistake != Mistake::no_barrier_after_init) __syncthreads();
  }
  /// The parity of the phase in which a stage holds this run; the phase before has the other one.
  __device__ static int parity(Index run) { return int(run / product_stages % 2); }

  /// One thread's work.
  __device__ void produce(Index run, const TensorMap& x_map, const TensorMap& w_map) const {
    const Index s = run % product_stages;
    if (mistake != Mistake::no_empty_wait)
      empty[s].wait(mistake == Mistake::empty_parity ? parity(run) : 1 - parity(run));
    const int wrong =
        mistake == Mistake::too_few_bytes ? -16 : 16 * (mistake == Mistake::too_many_bytes);
    if (mistake == Mistake::no_expectation)
      full[s].arrive();
    else
      full[s].arrive_expect_bytes(2 * int(box_bytes) + wrong);
    const Index column = run * (stage_bytes / 2);
    tensor_copy(x.chunk(stage_of(run), 0), x_map, column, blockIdx.x * product_rows, full[s]);
    tensor_copy(w.chunk(stage_of(run), 0), w_map, column, blockIdx.y * product_rows, full[s]);
  }
  __device__ void consume(Index run, Sums<bf16>& sums) const {
    const Index s = run % product_stages;
    if (mistake != Mistake::no_full_wait)
      full[s].wait(mistake == Mistake::full_parity ? 1 - parity(run) : parity(run));
    sums.add(x, w, stage_of(run));
    if (mistake != Mistake::arrival_without_syncwarp) __syncwarp();
    const bool arrives = threadIdx.x % warp_size == 0 || mistake == Mistake::every_lane_arrives;
    if (arrives && mistake != Mistake::no_arrival) empty[s].arrive();
  }
};

/// C is the length of the rows of both matrices.
static __global__ void __launch_bounds__(pipeline_threads)
    pipeline_kernel(DeviceView<float, 2> y, const __grid_constant__ TensorMap x,
                    const __grid_constant__ TensorMap w, Index C, Mistake mistake) {
  SharedMemory memory;
  const Pipeline pipeline(memory, mistake);
  const Index runs = (2 * C + stage_bytes - 1) / stage_bytes;
  if (threadIdx.x >= consumers) {
    if (threadIdx.x == consumers || mistake == Mistake::every_lane_copies)
      for (Index run = 0; run < runs; ++run) pipeline.produce(run, x, w);
    return;
  }
  Sums<bf16> sums;
  for (Index run = 0; run < runs; ++run) pipeline.consume(run, sums);
  Sums<bf16>::each([&](int i, int j, int row, int column) {
    const Index t = blockIdx.x * product_rows + row, n = blockIdx.y * product_rows + column;
    if (t < y.shape[0] && n < y.shape[1]) y(t, n) = sums.d[i][j];
  });
}

/// y (T, N) = x (T, C) w (N, C)^T.
inline void pipeline(Stream stream, DeviceView<float, 2> y, DeviceView<const bf16, 2> x,
                     DeviceView<const bf16, 2> w, Mistake mistake) {
  launch(stream, "pipeline",
         {grid_of(ceil_divide(y.shape[0], product_rows), ceil_divide(y.shape[1], product_rows)),
          pipeline_threads, pipeline_shared_bytes},
         pipeline_kernel, y, tensor_map(x, product_rows), tensor_map(w, product_rows), x.shape[1],
         mistake);
}

/// One thread copies rows of floats in bulk, the others add them up.
static __global__ void sum_of_rows_kernel(DeviceView<float, 1> y, DeviceView<const float, 2> x) {
  const Index rows = x.shape[0], C = x.shape[1];
  SharedMemory memory;
  const Shared<float> row = memory.take<float>(C);
  const Shared<Mbarrier> landed = memory.take<Mbarrier>(1);
  if (threadIdx.x == 0) landed[0].init(1), fence_mbarrier_init();
  __syncthreads();
  for (Index c = threadIdx.x; c < C; c += blockDim.x) y(c) = 0;
  for (Index t = 0; t < rows; ++t) {
    if (threadIdx.x == 0) {
      landed[0].arrive_expect_bytes(int(4 * C));
      bulk_copy(row.address(0), &x(t, 0), 4 * C, landed[0]);
    }
    landed[0].wait(int(t % 2));
    for (Index c = threadIdx.x; c < C; c += blockDim.x) y(c) += row[c];
    __syncthreads();
  }
}

/// y (C) = sum of x (rows, C) over its rows. C is a multiple of 4.
inline void sum_of_rows(Stream stream, DeviceView<float, 1> y, DeviceView<const float, 2> x) {
  const Index bytes = shared_room<float>(y.shape[0]) + shared_room<Mbarrier>(1);
  launch(stream, "sum_of_rows", {1, 64, bytes}, sum_of_rows_kernel, y, x);
}

}  // namespace dsa::cuda::DSA_PLACE
