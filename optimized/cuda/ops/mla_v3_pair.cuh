// optimized/cuda/ops/mla_v3_pair.cuh — the two multiplying warpgroups of mla v3, over pairs of
// blocks of keys. mla_v3.cu begins with their schedule.
#pragma once

#include "optimized/cuda/ops/mla_v3_consumer.cuh"

namespace dsa::cuda::DSA_PLACE::v3 {

/// An item whose sums are still in flight: they are written after the next scores were computed.
struct Finished {
  int row = -1, first_head = 0;
  Pair total{};
};

template <class Row>
struct First : Consumer {
  Finished finished;
  using Consumer::Consumer;

  /// Behind P1 V1 of the pair before, if there is one.
  __device__ __forceinline__ void compute_scores(DeviceView<float, 3> out, bool is_first) {
    wait_full<Row>(slot(0, 0));
    wgmma_fence(scores);
    multiply_keys<0>(0, false);
    wgmma_commit();
    wgmma_wait<0>(scores, sums);  // of the pair before only, ptxas serialises every wgmma (C7514)
    if (!is_first || finished.row >= 0) release(memory.empty, slot(1, 0));
    if (is_first) wait_q(1);
    wait_full<Row>(slot(0, 1));
    wgmma_fence();
    multiply_keys<1>(0, true);
    wgmma_commit();
    named_barrier_arrive(scores_issued, both);
    wgmma_wait<0>(scores, sums);
    if (is_first && finished.row >= 0)
      write_sums(out, finished.row, finished.first_head, *this, finished.total);
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
    multiply_latents<Row>(0, true, !is_first);
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
    multiply_latents<Row>(1, false, true);
    wgmma_commit();
  }
  __device__ __forceinline__ void finish(DeviceView<float, 2> lse, int row_of_y, int first_head) {
    total = total.over_quad() + load(memory.sum, 64);
    finished = {row_of_y, first_head, total};
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int head = first_head + row() + 8 * r;
      if (lane() % 4 == 0 && head < lse.shape[1])
        lse(row_of_y, head) =
            total.at[r] == 0 ? -INFINITY : reference.at[r] * 0.693147180559945f + logf(total.at[r]);
    }
  }
  template <class Keys>
  __device__ __forceinline__ void run(MlaOut y, const Keys& keys, Work work) {
    for (int number = int(blockIdx.x); number < work.items();
         number += int(gridDim.x), q_parity ^= 1) {
      const Item<Keys> item(number, work, keys);
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
      finish(y.lse, item.row, item.first_head);
    }
    wgmma_wait<0>(sums);
    if (finished.row >= 0)
      write_sums(y.out, finished.row, finished.first_head, *this, finished.total);
  }
};

template <class Row>
struct Second : Consumer {
  using Consumer::Consumer;

  __device__ __forceinline__ void issue_scores() {
    named_barrier_wait(scores_issued, both);
    wait_full<Row>(slot(1, 1));
    wgmma_fence(scores);
    multiply_keys<1>(1, false);
    wait_full<Row>(slot(1, 0));
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
    multiply_latents<Row>(0, false, !is_first);
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
    multiply_latents<Row>(1, true, true);
    wgmma_commit();
    wgmma_wait<0>(sums, p);
    release(memory.empty, slot(1, 1));
  }
  template <class Keys>
  __device__ __forceinline__ void run(MlaOut y, const Keys& keys, Work work) {
    for (int number = int(blockIdx.x); number < work.items();
         number += int(gridDim.x), q_parity ^= 1) {
      const Item<Keys> item(number, work, keys);
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
      write_sums(y.out, item.row, item.first_head, *this, total);
    }
  }
};

/// By the block's first two warpgroups. y: of all ranges.
template <class Row, class Keys>
__device__ __forceinline__ void multiply(const Memory& memory, MlaOut y, const Keys& keys,
                                         float scale, Work work, int warpgroup) {
  if (warpgroup == 0)
    First<Row>(memory, scale, 0).run(y, keys, work);
  else
    Second<Row>(memory, scale, 1).run(y, keys, work);
}

}  // namespace dsa::cuda::DSA_PLACE::v3
