// optimized/cuda/ops/mla_v3_gather.cuh — what the three warpgroups of mla v3 share, and the one
// that gathers keys.
#pragma once

#include "optimized/cuda/device/launch.cuh"
#include "optimized/cuda/device/wgmma.cuh"
#include "optimized/cuda/ops/mla.cuh"

namespace dsa::cuda::DSA_PLACE::v3 {

constexpr int block_heads = 64, block_keys = 64, R = 512, P = 64;
constexpr int row_panels = 9, first_half = 4;  // of a row: latents in eight, rotary in one
constexpr int threads = 3 * warpgroup_size, both = 2 * warpgroup_size;
constexpr float lowest = -0x1.fffffep127f, slack = 8;
enum Barrier { scores_issued = 1, first_stored, second_stored, rotary_read };

/// Where panels lie. The first block's probabilities take its rotary panel, which nobody needs
/// then.
constexpr int q_panel = 0, panels = 3 * row_panels + 1;
__device__ constexpr int key_panel(int block) { return row_panels * (1 + block); }
__device__ constexpr int p_panel(int block) {
  return block == 0 ? key_panel(0) + row_panels - 1 : 3 * row_panels;
}
/// A slot is half of a block's rows: panels 0 to 3, or 4 to 8.
__device__ constexpr int slot(int block, int half) { return 2 * block + half; }

struct Memory {
  Panels<64> rows;
  Shared<Mbarrier> full, empty;      // of a slot
  Shared<Mbarrier> q_full, q_empty;  // of a half of q; of both
  Shared<std::uint32_t> key_bits;  // of a block: valid keys (2), and whether there is an impossible
  Shared<float> reference, sum;    // of a head; of a head, by either warpgroup
  Shared<std::int32_t> moved;      // of a warp: whether warpgroup 0 moved the reference

  static constexpr Index bytes = panels * Panels<64>::panel_bytes + 2 * shared_room<Mbarrier>(4) +
                                 shared_room<Mbarrier>(2) + shared_room<Mbarrier>(1) +
                                 shared_room<std::uint32_t>(8) + 3 * shared_room<float>(64) +
                                 shared_room<std::int32_t>(4);

  __device__ explicit Memory(SharedMemory& memory)
      : rows(take_panels<64>(memory, panels)),
        full(memory.take<Mbarrier>(4)),
        empty(memory.take<Mbarrier>(4)),
        q_full(memory.take<Mbarrier>(2)),
        q_empty(memory.take<Mbarrier>(1)),
        key_bits(memory.take<std::uint32_t>(8)),
        reference(memory.take<float>(64)),
        sum(memory.take<float>(128)),
        moved(memory.take<std::int32_t>(4)) {}

  __device__ void init() const {
    for (int s = 0; s < 4; ++s) full[s].init(warpgroup_size + 1), empty[s].init(4);
    for (int half = 0; half < 2; ++half) q_full[half].init(warpgroup_size);
    q_empty[0].init(8);
    fence_mbarrier_init();
  }
};

/// 64 heads of a query, and the pairs of blocks of its keys; one pair without keys where it has
/// none.
template <class Keys>
struct Item {
  int t, first_head, count, pairs;

  __device__ Item(int number, int head_blocks, const Keys& keys)
      : t(number / head_blocks),
        first_head(number % head_blocks * block_heads),
        count(int(keys.count(t))),
        pairs(count > 0 ? (count + 2 * block_keys - 1) / (2 * block_keys) : 1) {}
};

/// The gathering warpgroup: thread t copies chunk t % 8 of every panel of rows t / 8 + 16 i.
template <class Keys>
struct Producer {
  const Memory& memory;
  const MlaIn<bf16>& in;
  const Keys& keys;
  CachePolicy policy = kept_in_l2();
  int parity = 1, q_parity = 1;

  __device__ static int thread() { return threadIdx.x % warpgroup_size; }
  __device__ static int row(int i) { return thread() / 8 + 16 * i; }

  __device__ std::int32_t key(const Item<Keys>& item, int i) const {
    return i < item.count ? std::int32_t(keys.key(item.t, i)) : -1;
  }
  __device__ void keys_of(std::int32_t (&s)[4], const Item<Keys>& item, int first) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) s[i] = key(item, first + row(i));
  }
  /// Null for what is no key.
  __device__ const bf16* source(std::int32_t s) const {
    return 0 <= s && s < in.kv.rows ? in.kv.row(s).data : nullptr;
  }
  template <int half>
  __device__ void copy(int panel, const bf16* const (&from)[4]) const {
    constexpr int begin = half == 0 ? 0 : first_half, end = half == 0 ? first_half : row_panels;
    const int chunk = thread() % 8;
    unsigned char* const to = memory.rows.chunk_of(panel, row(0), chunk);
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = begin; j < end; ++j)
        copy_async_16(to + (16 * i * panel_row_bytes + j * Panels<64>::panel_bytes),
                      from[i] ? from[i] + 64 * j + 8 * chunk : nullptr, from[i] != nullptr, policy);
  }
  template <int half>
  __device__ void load_q(const Item<Keys>& item) const {
    const bf16* from[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int head = item.first_head + row(i);
      from[i] = head < in.q.shape[1] ? &in.q(item.t, head, 0) : nullptr;
    }
    copy<half>(q_panel, from);
    memory.q_full[half].arrive_when_copied();
  }
  /// By one warp: which of a block's keys there are.
  __device__ void write_key_bits(int block, const Item<Keys>& item, int first) const {
    const int lane = threadIdx.x % warp_size;
    std::uint32_t impossible = 0;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const std::int32_t s = key(item, first + warp_size * half + lane);
      const bool valid = 0 <= s && s < in.kv.rows;
      const std::uint32_t bits = __ballot_sync(all_lanes, valid);
      impossible |= __ballot_sync(all_lanes, !valid && s != -1);
      if (lane == 0) memory.key_bits[4 * block + half] = bits;
    }
    if (lane == 0) memory.key_bits[4 * block + 2] = impossible;
  }
  template <int block, int half>
  __device__ void fill(const bf16* const (&from)[4], const Item<Keys>& item, int first) const {
    constexpr int s = slot(block, half);
    memory.empty[s].wait(parity);
    copy<half>(key_panel(block), from);
    memory.full[s].arrive_when_copied();
    if (block == half && thread() < warp_size) write_key_bits(block, item, first);
    if (thread() == 0) memory.full[s].arrive();
  }
  /// In the order in which the consumers release the slots.
  __device__ void run(int begin, int end, int step, int head_blocks) {
    for (int number = begin; number < end; number += step, q_parity ^= 1) {
      const Item<Keys> item(number, head_blocks, keys);
      std::int32_t next[2][4];
      keys_of(next[0], item, 0);
      keys_of(next[1], item, block_keys);
      memory.q_empty[0].wait(q_parity);
      load_q<0>(item);
#pragma unroll 1
      for (int pair = 0; pair < item.pairs; ++pair, parity ^= 1) {
        const int first = 2 * block_keys * pair;
        const bf16* from[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) from[i] = source(next[0][i]);
        keys_of(next[0], item, first + 2 * block_keys);
        fill<0, 0>(from, item, first);
        if (pair == 0) load_q<1>(item);
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
