// optimized/cuda/ops/mla_v3_memory.cuh — what the warpgroups of mla v3 share: memory, and work.
#pragma once

#include "optimized/cuda/device/launch.cuh"
#include "optimized/cuda/device/wgmma.cuh"
#include "optimized/cuda/ops/mla.cuh"

namespace dsa::cuda::DSA_PLACE::v3 {

constexpr int block_heads = 64, block_keys = 64, R = 512, P = 64;
constexpr int row_panels = 9, first_half = 4;  // of a row: latents in eight, rotary in one
constexpr int both = 2 * warpgroup_size;       // warpgroups that multiply
constexpr float lowest = -0x1.fffffep127f, slack = 8;
enum Barrier { scores_issued = 1, first_stored, second_stored, rotary_read };

/// Rows of e4m3 are widened by two warpgroups, rows of bf16 are copied by one.
template <class Row>
inline constexpr int producers = std::is_same_v<Row, e4m3> ? 2 : 1;
template <class Row>
inline constexpr int threads = both + producers<Row>* warpgroup_size;

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
  Shared<std::uint32_t> key_bits;    // of a block: keys that there are (2), impossible keys (2)
  Shared<float> reference, sum;      // of a head; of a head, by either warpgroup
  Shared<std::int32_t> moved;        // of a warp: whether warpgroup 0 moved the reference

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

  /// `fillers`: how many arrivals fill a slot.
  __device__ void init(int fillers) const {
    for (int s = 0; s < 4; ++s) full[s].init(fillers), empty[s].init(4);
    for (int half = 0; half < 2; ++half) q_full[half].init(warpgroup_size);
    q_empty[0].init(8);
    fence_mbarrier_init();
  }
};

/// T queries, their heads in blocks of 64, their keys in ranges of whole pairs of blocks.
struct Work {
  int queries, head_blocks, ranges;

  __device__ int items() const { return queries * head_blocks * ranges; }
};

/// 64 heads of a query, and the pairs of blocks of a range of its keys; one pair without keys where
/// it has none. `row`: of the results of all ranges, (ranges T).
template <class Keys>
struct Item {
  int t, row, first_head, first_pair, pairs, count;

  __device__ Item(int number, Work work, const Keys& keys)
      : t(number / work.head_blocks / work.ranges),
        first_head(number % work.head_blocks * block_heads) {
    const int range = number / work.head_blocks % work.ranges;
    const int all = int(keys.count(t)), all_pairs = (all + 2 * block_keys - 1) / (2 * block_keys);
    const int end = int(Index(range + 1) * all_pairs / work.ranges);
    row = range * work.queries + t;
    first_pair = int(Index(range) * all_pairs / work.ranges);
    pairs = end > first_pair ? end - first_pair : 1;
    count = int(smaller(all, Index(end) * (2 * block_keys)));
  }
  /// -1 beyond the last.
  __device__ std::int32_t key(const Keys& keys, int i) const {
    return i < count ? std::int32_t(keys.key(t, i)) : -1;
  }
};

/// Chunks of rows thread / 8 + 16 i, which may be null, to half of the panels that begin at
/// `panel`. By a warpgroup: a thread copies chunk thread % 8 of every panel.
template <int half>
__device__ __forceinline__ void copy_half(const Memory& memory, int panel,
                                          const bf16* const (&from)[4], CachePolicy policy) {
  constexpr int begin = half == 0 ? 0 : first_half, end = half == 0 ? first_half : row_panels;
  const int thread = threadIdx.x % warpgroup_size, chunk = thread % 8;
  unsigned char* const to = memory.rows.chunk_of(panel, thread / 8, chunk);
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = begin; j < end; ++j)
      copy_async_16(to + (16 * i * panel_row_bytes + j * Panels<64>::panel_bytes),
                    from[i] ? from[i] + 64 * j + 8 * chunk : nullptr, from[i] != nullptr, policy);
}
/// Heads from `first_head` on of query t.
template <int half>
__device__ __forceinline__ void copy_q(const Memory& memory, DeviceView<const bf16, 3> q, int t,
                                       int first_head, CachePolicy policy) {
  const bf16* from[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int head = first_head + int(threadIdx.x) % warpgroup_size / 8 + 16 * i;
    from[i] = head < q.shape[1] ? &q(t, head, 0) : nullptr;
  }
  copy_half<half>(memory, q_panel, from, policy);
  memory.q_full[half].arrive_when_copied();
}

}  // namespace dsa::cuda::DSA_PLACE::v3
