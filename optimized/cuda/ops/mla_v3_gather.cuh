// optimized/cuda/ops/mla_v3_gather.cuh — the warpgroup of mla v3 that gathers rows of bf16.
#pragma once

#include "optimized/cuda/ops/mla_v3_memory.cuh"

namespace dsa::cuda::DSA_PLACE::v3 {

/// Thread t copies chunk t % 8 of every panel of rows t / 8 + 16 i.
template <class Keys>
struct Producer {
  const Memory& memory;
  const MlaIn<bf16>& in;
  const Keys& keys;
  CachePolicy policy = kept_in_l2();
  int parity = 1;

  __device__ static int thread() { return threadIdx.x % warpgroup_size; }
  __device__ void keys_of(std::int32_t (&s)[4], const Item<Keys>& item, int first) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) s[i] = item.key(keys, first + thread() / 8 + 16 * i);
  }
  /// Null for what is no key.
  __device__ const bf16* source(std::int32_t s) const {
    return 0 <= s && s < in.kv.rows ? in.kv.row(s).data : nullptr;
  }
  /// By one warp: which of a block's keys there are, and which cannot be.
  __device__ void write_key_bits(int block, const Item<Keys>& item, int first) const {
    const int lane = threadIdx.x % warp_size;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const std::int32_t s = item.key(keys, first + warp_size * half + lane);
      const bool valid = 0 <= s && s < in.kv.rows;
      const std::uint32_t bits = __ballot_sync(all_lanes, valid);
      const std::uint32_t impossible = __ballot_sync(all_lanes, !valid && s != -1);
      if (lane == 0) memory.key_bits[4 * block + half] = bits;
      if (lane == 0) memory.key_bits[4 * block + 2 + half] = impossible;
    }
  }
  template <int block, int half>
  __device__ void fill(const bf16* const (&from)[4], const Item<Keys>& item, int first) const {
    constexpr int s = slot(block, half);
    memory.empty[s].wait(parity);
    copy_half<half>(memory, key_panel(block), from, policy);
    memory.full[s].arrive_when_copied();
    if (block == half && thread() < warp_size) write_key_bits(block, item, first);
    if (thread() == 0) memory.full[s].arrive();
  }
  /// In the order in which the consumers release the slots.
  __device__ void run(Work work) {
    for (int round = 0;; ++round) {
      const int number = int(blockIdx.x) + round * int(gridDim.x);
      if (number >= work.items()) return;
      const Item<Keys> item(number, work, keys);
      int first = 2 * block_keys * item.first_pair;
      std::int32_t next[2][4];
      keys_of(next[0], item, first);
      keys_of(next[1], item, first + block_keys);
      memory.q_empty[0].wait(1 - round % 2);
      copy_q<0>(memory, in.q, item.t, item.first_head, policy);
#pragma unroll 1
      for (int pair = 0; pair < item.pairs; ++pair, parity ^= 1, first += 2 * block_keys) {
        const bf16* from[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) from[i] = source(next[0][i]);
        keys_of(next[0], item, first + 2 * block_keys);
        fill<0, 0>(from, item, first);
        if (pair == 0) copy_q<1>(memory, in.q, item.t, item.first_head, policy);
        fill<0, 1>(from, item, first);
#pragma unroll
        for (int i = 0; i < 4; ++i) from[i] = source(next[1][i]);
        keys_of(next[1], item, first + 3 * block_keys);
        fill<1, 1>(from, item, first + block_keys);
        fill<1, 0>(from, item, first + block_keys);
      }
    }
  }
};

}  // namespace dsa::cuda::DSA_PLACE::v3
