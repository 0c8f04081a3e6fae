// v3, for sm_90a: a block takes 64 heads of one query, then those of another, as long as there are
// any. A warpgroup gathers keys, 64 at a time, by cp.async; two others multiply by wgmma. Of every
// pair of blocks of keys, the first one's scores and probabilities are the work of warpgroup 0, the
// second one's that of warpgroup 1; of the sums over both, warpgroup 0 holds channels 0 to 255 and
// warpgroup 1 the rest. They are staggered: while one turns scores into probabilities, the tensor
// cores work for the other.
//
//   tensor cores:  q K0 | q K1, P0 V0 left | P0 V0 right | P1 V1 right, P1 V1 left | q K0 of the
//   next warpgroup 0:   issues q K0; probabilities P0 during q K1; P0 V0 left; P1 V1 left warpgroup
//   1:   issues q K1 once q K0 is issued; P0 V0 right behind it; probabilities P1; P1 V1 right
//
// The reference that probabilities are relative to goes from one warpgroup to the other, and moves
// only where a block's largest score exceeds it by more than 2^8: the factor is in a probability
// and in the sum alike. Probabilities are rounded to bf16; their sum is not.
#include <algorithm>

#include "optimized/cuda/device/device.cuh"
#include "optimized/cuda/ops/mla_v3_consumer.cuh"

namespace dsa::cuda::DSA_PLACE::v3 {

/// An item whose sums are still in flight: they are written after the next scores were computed.
struct Finished {
  int t = -1, first_head = 0;
  Pair total{};
};

struct First : Consumer {
  Finished finished;
  using Consumer::Consumer;

  /// Behind P1 V1 of the pair before, if there is one.
  __device__ __forceinline__ void compute_scores(DeviceView<float, 3> out, bool is_first) {
    wait_full(slot(0, 0));
    wgmma_fence(scores);
    multiply_keys<0>(0, false);
    wgmma_commit();
    wgmma_wait<0>(scores, sums);  // of the pair before only, ptxas serialises every wgmma (C7514)
    if (!is_first || finished.t >= 0) release(memory.empty, slot(1, 0));
    if (is_first) wait_q(1);
    wait_full(slot(0, 1));
    wgmma_fence();
    multiply_keys<1>(0, true);
    wgmma_commit();
    named_barrier_arrive(scores_issued, both);
    wgmma_wait<0>(scores, sums);
    if (is_first && finished.t >= 0)
      write_sums(out, finished.t, finished.first_head, *this, finished.total);
  }
  __device__ __forceinline__ void add_first_block(bool is_first, bool is_last) {
    const Pair before = reference, sum = softmax(0);
    const Pair shrink = exp2_of_difference(before, reference);
    const bool moves = __any_sync(all_lanes, differs_from_one(shrink));
    total = total * shrink + sum;
    store(memory.reference, reference);
    if (is_last) store(memory.sum, total.over_quad());
    if (lane() == 0) memory.moved[threadIdx.x / warp_size] = moves;
    named_barrier_wait(rotary_read, warpgroup_size);
    store_probabilities(0);
    named_barrier_arrive(first_stored, both);
    if (!is_first && moves) rescale(shrink);
    wgmma_fence(sums, p);
    multiply_latents(0, true, !is_first);
    wgmma_commit();
    wgmma_wait<0>(sums, p);
    release(memory.empty, slot(0, 0));
  }
  __device__ __forceinline__ void add_second_block() {
    named_barrier_wait(second_stored, both);
    const Pair now = load(memory.reference), shrink = exp2_of_difference(reference, now);
    total = total * shrink;
    reference = now;
    rescale_if_moved(shrink);
    wgmma_fence(sums);
    multiply_latents(1, false, true);
    wgmma_commit();
  }
  __device__ __forceinline__ void finish(DeviceView<float, 2> lse, int t, int first_head) {
    total = total.over_quad() + load(memory.sum, 64);
    finished = {t, first_head, total};
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int head = first_head + row() + 8 * r;
      if (lane() % 4 == 0 && head < lse.shape[1])
        lse(t, head) =
            total.at[r] == 0 ? -INFINITY : reference.at[r] * 0.693147180559945f + logf(total.at[r]);
    }
  }
  template <class Keys>
  __device__ __forceinline__ void run(MlaOut y, const Keys& keys, int items, int head_blocks) {
    for (int number = int(blockIdx.x); number < items; number += int(gridDim.x), q_parity ^= 1) {
      const Item<Keys> item(number, head_blocks, keys);
      begin_item();
      wait_q(0);
#pragma unroll 1
      for (int pair = 0; pair < item.pairs; ++pair, parity ^= 1) {
        const bool is_last = pair + 1 == item.pairs;
        compute_scores(y.out, pair == 0);
        if (is_last) release(memory.q_empty, 0);
        add_first_block(pair == 0, is_last);
        add_second_block();
      }
      finish(y.lse, item.t, item.first_head);
    }
    wgmma_wait<0>(sums);
    if (finished.t >= 0) write_sums(y.out, finished.t, finished.first_head, *this, finished.total);
  }
};

struct Second : Consumer {
  using Consumer::Consumer;

  __device__ __forceinline__ void issue_scores() {
    named_barrier_wait(scores_issued, both);
    wait_full(slot(1, 1));
    wgmma_fence(scores);
    multiply_keys<1>(1, false);
    wait_full(slot(1, 0));
    wgmma_fence();
    multiply_keys<0>(1, true);
    wgmma_commit();
  }
  /// Behind the scores. All warps of the warpgroup wait for them here, or none does.
  __device__ __forceinline__ void add_first_block(bool is_first) {
    named_barrier_wait(first_stored, both);
    const Pair now = load(memory.reference), shrink = exp2_of_difference(reference, now);
    bool moves = false;
    for (int warp = 0; warp < 4; ++warp) moves |= memory.moved[warp] != 0;
    total = total * shrink;
    reference = now;
    if (!is_first && moves) {
      wgmma_wait<0>(scores, sums);
      rescale(shrink);
      sums.hold();
    }
    wgmma_fence();  // of no registers: the scores are in flight
    multiply_latents(0, false, !is_first);
    wgmma_commit();
    wgmma_wait<1>(scores);
  }
  __device__ __forceinline__ void add_second_block(bool is_last) {
    const Pair before = reference, sum = softmax(1);
    const Pair shrink = exp2_of_difference(before, reference);
    total = total * shrink + sum;
    store(memory.reference, reference);
    if (is_last) {
      const Pair firsts = load(memory.sum) * shrink, mine = total.over_quad();
      store(memory.sum, mine, 64);
      total = mine + firsts;
    }
    store_probabilities(1);
    named_barrier_arrive(second_stored, both);
    wgmma_wait<0>(sums);
    release(memory.empty, slot(0, 1));
    rescale_if_moved(shrink);
    wgmma_fence(sums, p);
    multiply_latents(1, true, true);
    wgmma_commit();
    wgmma_wait<0>(sums, p);
    release(memory.empty, slot(1, 1));
  }
  template <class Keys>
  __device__ __forceinline__ void run(MlaOut y, const Keys& keys, int items, int head_blocks) {
    for (int number = int(blockIdx.x); number < items; number += int(gridDim.x), q_parity ^= 1) {
      const Item<Keys> item(number, head_blocks, keys);
      begin_item();
      wait_q(0), wait_q(1);
#pragma unroll 1
      for (int pair = 0; pair < item.pairs; ++pair, parity ^= 1) {
        const bool is_last = pair + 1 == item.pairs;
        issue_scores();
        add_first_block(pair == 0);
        if (is_last) release(memory.q_empty, 0);
        add_second_block(is_last);
      }
      write_sums(y.out, item.t, item.first_head, *this, total);
    }
  }
};

template <class Keys>
__global__ void __launch_bounds__(threads, 1)
    mla_kernel(MlaOut y, MlaIn<bf16> in, Keys keys, float scale, int head_blocks) {
  SharedMemory shared;
  const Memory memory(shared);
  if (threadIdx.x == 0) memory.init();
  __syncthreads();
  const int items = int(y.out.shape[0]) * head_blocks;
  const int warpgroup = __shfl_sync(all_lanes, int(threadIdx.x) / warpgroup_size, 0);
  if (warpgroup == 2) {
    shrink_registers<72>();
    Producer<Keys>{memory, in, keys}.run(int(blockIdx.x), items, int(gridDim.x), head_blocks);
  } else {
    grow_registers<216>();
    if (warpgroup == 0)
      First(memory, scale, 0).run(y, keys, items, head_blocks);
    else
      Second(memory, scale, 1).run(y, keys, items, head_blocks);
  }
}

std::string mla_refuses(Index R_, Index P_, double scale) {
  if (R_ != R || P_ != P)
    return "mla v3 takes R 512 and P 64, got " + std::to_string(R_) + " and " + std::to_string(P_);
  if (!(scale > 0)) return "mla v3 takes a scale above 0, got " + std::to_string(scale);
  if (!has_hopper_code())
    return "mla v3 needs a device of compute capability 9.0 and a build for it (90a)";
  return "";
}

template <class Keys>
void mla(Stream stream, MlaOut y, const MlaIn<bf16>& in, Keys keys) {
  const std::string refusal = mla_refuses(y.out.shape[2], in.q.shape[2] - y.out.shape[2], in.scale);
  require(refusal.empty(), refusal);
  const Index head_blocks = ceil_divide(y.out.shape[1], block_heads);
  const Index items = y.out.shape[0] * head_blocks;
  require(items <= 0x7fffffff, "mla v3 takes fewer than 2^31 blocks of 64 heads, got " +
                                   std::to_string(items) + "; split the batch");
  launch(stream, "mla v3",
         {grid_of(std::min(items, multiprocessors())), static_cast<unsigned>(threads),
          Memory::bytes, true},
         mla_kernel<Keys>, y, in, keys, static_cast<float>(in.scale * 1.4426950408889634),
         static_cast<int>(head_blocks));
}

template void mla(Stream, MlaOut, const MlaIn<bf16>&, Chosen);

}  // namespace dsa::cuda::DSA_PLACE::v3
