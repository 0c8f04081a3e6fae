// optimized/cuda/ops/mla_v3_widen.cuh — the two warpgroups of mla v3 that read rows of e4m3, 656
// bytes each, and write them to the slots as bf16.
//
// A warp has eight rows of every slot. Their bytes are in its registers before the slot is free:
// what is left to do then is to widen and to store. In the order of the slots, which is that in
// which the consumers release them: fill a slot, say so, ask for the bytes of the next.
#pragma once

#include "optimized/cuda/device/rows.cuh"
#include "optimized/cuda/ops/mla_v3_consumer.cuh"

namespace dsa::cuda::DSA_PLACE::v3 {

using Words = Four<std::uint32_t>;  // 16 bytes

/// Bytes of a row from `byte` on, by its address; zeros if that is 0.
__device__ __forceinline__ Words load_row_16(std::uintptr_t row, Index byte) {
#ifdef DSA_CUDA_ON_HOST
  return row ? load_four(reinterpret_cast<const std::uint32_t*>(row + std::uintptr_t(byte)))
             : Words{};
#else
  Words x;
  asm volatile(
      "{ .reg .pred p; setp.ne.u64 p, %5, 0; mov.u32 %0, 0; mov.u32 %1, 0; mov.u32 %2, 0; "
      "mov.u32 %3, 0; @p ld.global.L1::no_allocate.L2::128B.v4.u32 {%0,%1,%2,%3}, [%4]; }"
      : "=&r"(x.at[0]), "=&r"(x.at[1]), "=&r"(x.at[2]), "=&r"(x.at[3])
      : "l"(row + std::uintptr_t(byte)), "l"(row)
      : "memory");
  return x;
#endif
}
__device__ __forceinline__ float load_row_float(std::uintptr_t row, Index byte) {
#ifdef DSA_CUDA_ON_HOST
  if (row == 0) return 0;
  const auto* at = reinterpret_cast<const float*>(row + std::uintptr_t(byte));
  check_wide(at, sizeof *at);
  return *at;
#else
  float x;
  asm volatile(
      "{ .reg .pred p; setp.ne.u64 p, %2, 0; mov.f32 %0, 0f00000000; "
      "@p ld.global.L1::no_allocate.f32 %0, [%1]; }"
      : "=&f"(x)
      : "l"(row + std::uintptr_t(byte)), "l"(row)
      : "memory");
  return x;
#endif
}

/// In the order of the program: what is stored early needs no register.
__device__ __forceinline__ void store_chunk(unsigned char* to, const Words& x) {
#ifdef DSA_CUDA_ON_HOST
  shared_store(reinterpret_cast<Words*>(to), x);
#else
  asm volatile("st.shared.v4.u32 [%0], {%1,%2,%3,%4};" ::"r"(shared_address(to)), "r"(x.at[0]),
               "r"(x.at[1]), "r"(x.at[2]), "r"(x.at[3])
               : "memory");
#endif
}

/// e4m3 numbers 2 i and 2 i + 1 of four, times their scale in fp32, rounded to bf16 once. A scale
/// that is a power of two costs nothing.
__device__ __forceinline__ std::uint32_t scaled_pair(std::uint32_t four, int i, float scale) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  float low, high;
  asm("{ .reg .b16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h; }"
      : "=f"(low), "=f"(high)
      : "r"(f16_pair(four, i)));
#else
  const float low = widen(e4m3{std::uint8_t(four >> 16 * i)});
  const float high = widen(e4m3{std::uint8_t(four >> (16 * i + 8))});
#endif
  return pack(low * scale, high * scale);
}
__device__ __forceinline__ Words scaled_eight(std::uint32_t low, std::uint32_t high, float scale) {
  return {{scaled_pair(low, 0, scale), scaled_pair(low, 1, scale), scaled_pair(high, 0, scale),
           scaled_pair(high, 1, scale)}};
}

/// Lane l asks for chunk l % 8 of rows l / 8 and l / 8 + 4 of the warp's eight; it knows the
/// address of row l % 8, so that every address is computed once a block.
template <class Keys>
struct WideningProducer {
  static constexpr int lane_rows = 2, warp_rows = 8, scales_at = 512, rotary_at = 528;
  const Memory& memory;
  const MlaIn<e4m3>& in;
  const Keys& keys;
  std::uintptr_t row = 0;       // of the block that is filled
  std::int32_t next_key = -1;   // of the block behind it
  std::uint32_t bits = 0;       // of the block's eight rows: valid keys; impossible ones (8 up)
  Words latents[lane_rows][2];  // of the next slot: 16 bytes of its two runs
  Words rotary[lane_rows];      // where the slot has them
  float scale[lane_rows];       // of run lane % 4
  int parity = 1;
  unsigned thread = threadIdx.x - unsigned(both);
  int place;  // of the lane's first chunk, from the slot's first panel on

  /// Of 16 bytes of e4m3 come two chunks. Lanes 4 to 7 of eight write the second one first: so the
  /// eight meet no bank twice. Chunks are permuted as in any panel, by the row's number.
  __device__ WideningProducer(const Memory& memory_, const MlaIn<e4m3>& in_, const Keys& keys_)
      : memory(memory_), in(in_), keys(keys_) {
    const int c = lane() % 8, second = c / 4, in_eight = lane() / 8;
    const int to = (first_row() + in_eight) * int(panel_row_bytes);
    place = second * int(Panels<64>::panel_bytes) + to + 16 * ((c % 4 * 2 + second) ^ in_eight);
  }

  __device__ int lane() const { return int(thread % warp_size); }
  __device__ int first_row() const { return int(thread / warp_size) * warp_rows; }
  /// Of the block whose first key is `first`.
  __device__ std::int32_t key(const Item<Keys>& item, int first) const {
    return item.key(keys, first + first_row() + lane() % warp_rows);
  }
  __device__ bool next_is_key() const { return 0 <= next_key && next_key < in.kv.rows; }
  __device__ std::uintptr_t next_row() const {
    return next_is_key() ? reinterpret_cast<std::uintptr_t>(in.kv.row(next_key).data) : 0;
  }
  /// Four lanes share a row's six lines of 128 bytes.
  __device__ void prefetch(std::uintptr_t from) const {
    if (from == 0) return;
    const auto line = from + std::uintptr_t(128 * (lane() / warp_rows));
    prefetch_l2(reinterpret_cast<const void*>(line));
    if (lane() < 2 * warp_rows) prefetch_l2(reinterpret_cast<const void*>(line + 512));
  }
  /// On to the block behind. Its address is computed a second time: two registers less.
  __device__ void go_on() {
    row = next_row();
    bits = (__ballot_sync(all_lanes, next_is_key()) & 0xff) |
           (__ballot_sync(all_lanes, !next_is_key() && next_key != -1) & 0xff) << 8;
  }
  __device__ std::uintptr_t row_of(int i) const {
    return __shfl_sync(all_lanes, row, lane() / 8 + 4 * i);
  }
  template <int half>
  __device__ __forceinline__ void load_latents() {
    const Index chunk = 16 * (lane() % 8);
#pragma unroll
    for (int i = 0; i < lane_rows; ++i) {
      const std::uintptr_t from = row_of(i);
      if constexpr (half == 1) rotary[i] = load_row_16(from, rotary_at + chunk);
#pragma unroll
      for (int run = 0; run < 2; ++run)
        latents[i][run] = load_row_16(from, 256 * half + 128 * run + chunk);
    }
  }
  __device__ __forceinline__ void load_scales() {
#pragma unroll
    for (int i = 0; i < lane_rows; ++i)
      scale[i] = load_row_float(row_of(i), scales_at + 4 * (lane() % 4));
  }
  /// A row four further has the third bit of its chunks' numbers turned.
  __device__ __forceinline__ void store(int panel, int at, int i, const Words& x) const {
    const int offset = panel * int(Panels<64>::panel_bytes) + 4 * i * int(panel_row_bytes);
    store_chunk(memory.rows.bytes.address(offset + (at ^ 64 * i)), x);
  }
  __device__ __forceinline__ void store_rotary(int panel) const {
    const int in_eight = lane() / 8;
    const int at = (first_row() + in_eight) * int(panel_row_bytes) + 16 * (lane() % 8 ^ in_eight);
#pragma unroll
    for (int i = 0; i < lane_rows; ++i) store(panel, at, i, rotary[i]);
  }
  template <int block, int half>
  __device__ __forceinline__ void store_row(int i) const {
    const bool second = lane() % 8 >= 4;
#pragma unroll
    for (int run = 0; run < 2; ++run) {
      const int panel = key_panel(block) + first_half * half + 2 * run;
      const float by = __shfl_sync(all_lanes, scale[i], lane() / 4 * 4 + 2 * half + run);
      const auto& x = latents[i][run].at;
      store(panel, place, i, scaled_eight(second ? x[2] : x[0], second ? x[3] : x[1], by));
      store(panel, place ^ 16, i, scaled_eight(second ? x[0] : x[2], second ? x[1] : x[3], by));
      __syncwarp();  // else ptxas widens the next run meanwhile, in registers that there are not
    }
  }
  /// A byte of a warp.
  __device__ void write_key_bits(int block) const {
    if (lane() != 0) return;
    auto* const valid = reinterpret_cast<std::uint8_t*>(memory.key_bits.address(4 * block));
    shared_store(valid + first_row() / warp_rows, std::uint8_t(bits));
    shared_store(valid + 8 + first_row() / warp_rows, std::uint8_t(bits >> 8));
  }
  template <int block, int half>
  __device__ __forceinline__ void fill() {
    constexpr int s = slot(block, half);
    memory.empty[s].wait(parity);
    if constexpr (half == 1) store_rotary(key_panel(block) + row_panels - 1);
#pragma unroll
    for (int i = 0; i < lane_rows; ++i) store_row<block, half>(i);
    if constexpr (block == half) write_key_bits(block);
    fence_async_proxy();
    __syncwarp();
    if (lane() == 0) memory.full[s].arrive();
  }
  /// `behind`: the first key of the block behind the next.
  template <int block>
  __device__ __forceinline__ void fill_block(const Item<Keys>& item, int behind) {
    fill<block, block>();
    prefetch(next_row());
    load_latents<1 - block>();
    fill<block, 1 - block>();
    go_on();
    load_latents<1 - block>();
    load_scales();
    next_key = key(item, behind);
  }
  __device__ void copy_half_of_q(const Item<Keys>& item) const {
    if (int(threadIdx.x) < both + warpgroup_size)
      copy_q<0>(memory, in.q, item.t, item.first_head, kept_in_l2());
    else
      copy_q<1>(memory, in.q, item.t, item.first_head, kept_in_l2());
  }
  __device__ void run(Work work) {
    for (int round = 0;; ++round) {
      const int number = int(blockIdx.x) + round * int(gridDim.x);
      if (number >= work.items()) return;
      const Item<Keys> item(number, work, keys);
      int first = 2 * block_keys * item.first_pair;
      next_key = key(item, first);
      go_on();
      load_latents<0>();
      load_scales();
      prefetch(row);
      next_key = key(item, first + block_keys);
      memory.q_empty[0].wait(1 - round % 2);
      copy_half_of_q(item);
#pragma unroll 1
      do {
        fill_block<0>(item, first + 2 * block_keys);
        fill_block<1>(item, first + 3 * block_keys);
        first += 2 * block_keys, parity ^= 1;
      } while (first < item.count);
    }
  }
};

}  // namespace dsa::cuda::DSA_PLACE::v3
