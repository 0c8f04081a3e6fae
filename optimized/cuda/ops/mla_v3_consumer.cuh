// optimized/cuda/ops/mla_v3_consumer.cuh — what the two multiplying warpgroups of mla v3 do alike.
#pragma once

#include "optimized/cuda/ops/mla_v3_memory.cuh"

namespace dsa::cuda::DSA_PLACE::v3 {

__device__ inline float exp2_fast(float x) {
#ifdef DSA_CUDA_ON_HOST
  return std::exp2(x);
#else
  float y;
  asm volatile("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}
__device__ inline std::uint32_t pack(float low, float high) {
#ifdef DSA_CUDA_ON_HOST
  return std::uint32_t{narrow<bf16>(low).bits} | std::uint32_t{narrow<bf16>(high).bits} << 16;
#else
  std::uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#endif
}

/// A number for each of a thread's two rows: heads 16 warp + lane / 4, and 8 more.
struct Pair {
  float at[2];

  __device__ Pair operator*(Pair other) const {
    return {{at[0] * other.at[0], at[1] * other.at[1]}};
  }
  __device__ Pair operator+(Pair other) const {
    return {{at[0] + other.at[0], at[1] + other.at[1]}};
  }
  /// Over the four threads of the row.
  __device__ Pair over_quad() const {
    Pair sum = *this;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sum.at[r] += __shfl_xor_sync(all_lanes, sum.at[r], 1);
      sum.at[r] += __shfl_xor_sync(all_lanes, sum.at[r], 2);
    }
    return sum;
  }
};
__device__ inline Pair exp2_of_difference(Pair a, Pair b) {
  return {{exp2_fast(a.at[0] - b.at[0]), exp2_fast(a.at[1] - b.at[1])}};
}
__device__ inline bool differs_from_one(Pair x) { return x.at[0] != 1 || x.at[1] != 1; }

/// What both multiplying warpgroups do alike. `half`: of the channels of the sums.
struct Consumer {
  const Memory& memory;
  float scale;  // times log2 e
  int half;
  int parity = 0, q_parity = 0;
  Accumulator<256> sums;
  Accumulator<block_keys> scores;
  Registers<std::uint32_t, 16> p;
  Pair reference{}, total{};

  __device__ Consumer(const Memory& memory_, float scale_, int half_)
      : memory(memory_), scale(scale_), half(half_) {}

  __device__ static int lane() { return threadIdx.x % warp_size; }
  __device__ static int row() { return threadIdx.x % warpgroup_size / warp_size * 16 + lane() / 4; }
  __device__ void begin_item() { reference = {{lowest, lowest}}, total = {}; }
  /// What cp.async wrote is fenced here. What was widened, its writers have fenced.
  template <class Row>
  __device__ void wait_full(int s) const {
    memory.full[s].wait(parity);
    if constexpr (producers<Row> == 1) fence_async_proxy();
  }
  __device__ void wait_q(int q_half) const {
    memory.q_full[q_half].wait(q_parity);
    fence_async_proxy();
  }
  __device__ void release(const Shared<Mbarrier>& barrier, int s) const {
    __syncwarp();
    if (lane() == 0) barrier[s].arrive();
  }
  __device__ static Pair load(Shared<float> x, int first = 0) {
    return {{x[first + row()], x[first + row() + 8]}};
  }
  __device__ static void store(Shared<float> x, Pair value, int first = 0) {
    __syncwarp();  // the row's other threads may be reading what is there
    if (lane() % 4 != 0) return;
    x[first + row()] = value.at[0];
    x[first + row() + 8] = value.at[1];
  }

  /// scores = q K over one half of the channels, or scores += that.
  template <int key_half>
  __device__ __forceinline__ void multiply_keys(int block, bool add) {
    constexpr int begin = key_half == 0 ? 0 : 4 * first_half;
    constexpr int end = key_half == 0 ? 4 * first_half : 4 * row_panels;
#pragma unroll
    for (int i = begin; i < end; ++i)
      wgmma<bf16>(scores, memory.rows.by_rows(q_panel).step(i),
                  memory.rows.by_rows(key_panel(block)).step(i), add || i > begin);
  }
  /// sums (+)= P V, probabilities from registers or from their panel. A block of 512 threads begins
  /// with 128 registers a thread, and ptxas gives no instruction more (C7602): two of half the
  /// width.
  template <class Row>
  __device__ __forceinline__ void multiply_latents(int block, bool from_registers, bool add) {
    constexpr int n = producers<Row> == 1 ? 256 : 128;
    const auto probabilities = memory.rows.by_rows(p_panel(block));
#pragma unroll
    for (int i = 0; i < block_keys / 16; ++i)
#pragma unroll
      for (int first = 0; first < 256; first += n) {
        const auto v = memory.rows.by_channels(key_panel(block) + first_half * half + first / 64);
        if (from_registers)
          wgmma_columns<bf16, n>(sums, first, p, i, v.step(i), add || i > 0);
        else
          wgmma_columns<bf16, n>(sums, first, probabilities.step(i), v.step(i), add || i > 0);
      }
  }

  __device__ __forceinline__ void mask(int block) {
    const std::uint32_t valid[2] = {memory.key_bits[4 * block], memory.key_bits[4 * block + 1]};
    const bool impossible = (memory.key_bits[4 * block + 2] | memory.key_bits[4 * block + 3]) != 0;
    if ((valid[0] & valid[1]) == 0xffffffffu) return;
#pragma unroll
    for (int i = 0; i < block_keys / 2; ++i) {
      const int key = 8 * (i / 4) + 2 * (lane() % 4) + i % 2;
      const bool is_key = valid[i / 16] >> key % 32 & 1;
      if (!is_key) scores[i] = -INFINITY;
      if (impossible) scores[i] = NAN;
    }
  }
  /// Turns scores into probabilities relative to the new reference. Their sums, of this thread.
  __device__ __forceinline__ Pair softmax(int block) {
    mask(block);
    Pair largest{{-INFINITY, -INFINITY}};
#pragma unroll
    for (int i = 0; i < block_keys / 2; ++i)
      largest.at[i / 2 % 2] = fmaxf(largest.at[i / 2 % 2], scores[i]);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float x = largest.at[r];
      x = fmaxf(x, __shfl_xor_sync(all_lanes, x, 1));
      x = fmaxf(x, __shfl_xor_sync(all_lanes, x, 2)) * scale;
      if (x > reference.at[r] + slack) reference.at[r] = x;
    }
    Pair sum{};
#pragma unroll
    for (int i = 0; i < block_keys / 2; ++i) {
      scores[i] = exp2_fast(fmaf(scores[i], scale, -reference.at[i / 2 % 2]));
      sum.at[i / 2 % 2] += scores[i];
    }
#pragma unroll
    for (int i = 0; i < 16; ++i) p[i] = pack(scores[2 * i], scores[2 * i + 1]);
    return sum;
  }
  __device__ __forceinline__ void store_probabilities(int block) {
    const int to = row() - lane() / 4 + lane() % 16;
#pragma unroll
    for (int i = 0; i < 4; ++i)
      store_matrices(memory.rows.chunk_of(p_panel(block), to, 2 * i + lane() / 16),
                     {p[4 * i], p[4 * i + 1], p[4 * i + 2], p[4 * i + 3]});
    fence_async_proxy();
  }
  __device__ __forceinline__ void rescale(Pair by) {
#pragma unroll
    for (int i = 0; i < 128; ++i) sums[i] *= by.at[i / 2 % 2];
  }
  __device__ __forceinline__ void rescale_if_moved(Pair by) {
    if (__any_sync(all_lanes, differs_from_one(by))) rescale(by);
  }
};

/// Sums over probabilities. Two threads exchange halves, so that each writes 16 bytes.
__device__ __forceinline__ void write_sums(DeviceView<float, 3> out, Index t, Index first_head,
                                           Consumer& c, Pair total) {
  const int lane = Consumer::lane(), quad = lane % 4;
  const bool odd = quad % 2 == 1;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float by = total.at[r] == 0 ? 0 : 1 / total.at[r];
    const int head = first_head + Consumer::row() + 8 * r;
#pragma unroll
    for (int j = 0; j < 32; j += 2) {
      const int i = 4 * j + 2 * r;
      const float mine[4] = {c.sums[i] * by, c.sums[i + 1] * by, c.sums[i + 4] * by,
                             c.sums[i + 5] * by};
      const float x = __shfl_xor_sync(all_lanes, odd ? mine[0] : mine[2], 1);
      const float y = __shfl_xor_sync(all_lanes, odd ? mine[1] : mine[3], 1);
      const Index channel = 256 * c.half + 8 * j + (odd ? 8 + 2 * (quad - 1) : 2 * quad);
      if (head < out.shape[1])
        store_four(&out(t, head, channel), odd ? Four<float>{{x, y, mine[2], mine[3]}}
                                               : Four<float>{{mine[0], mine[1], x, y}});
    }
  }
}

}  // namespace dsa::cuda::DSA_PLACE::v3
