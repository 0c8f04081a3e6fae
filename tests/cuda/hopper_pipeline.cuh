// o = (x k^T) k over blocks of 64 keys, as a rung v3 does it: a warpgroup copies keys by cp.async
// into two slots, another one multiplies by wgmma. Scores of odd blocks are used transposed. With
// one mistake at a time, for whoever has to notice.
#pragma once

#include "optimized/cuda/device/launch.cuh"
#include "optimized/cuda/device/wgmma.cuh"

namespace dsa::cuda::DSA_PLACE::hopper {

enum class Mistake {
  none,
  no_proxy_fence,      // between cp.async and wgmma
  no_fence_of_stored,  // between stmatrix and wgmma
  no_wgmma_wait,       // before the scores are read
  no_wgmma_fence,      // after the scores were read
  operand_changed,     // in registers, in flight
  released_early,      // a slot, before its readers have finished
  full_parity,
  wrong_stride,         // of the descriptor of the keys
  wrong_transposition,  // of the keys as b
  beyond_the_panels,
  wrong_count,       // of a named barrier
  comes_twice,       // to a named barrier
  no_named_barrier,  // between the warps that store and those that read
  no_full_wait,
  copies_not_awaited,  // an ordinary arrival in the place of arrive_when_copied
  one_warp_waits_not,  // for the wgmma
  never_waited,
  registers_kept,  // by the copying warpgroup
};

inline constexpr int heads = 64, keys = 64, channels = 64, threads = 3 * warpgroup_size;
inline constexpr Index shared_bytes = 4 * Panels<64>::panel_bytes + 2 * shared_room<Mbarrier>(2);

struct Pipeline {
  Panels<64> x, slots, p;        // slots: two panels
  Shared<Mbarrier> full, empty;  // of a slot
  Mistake mistake;

  __device__ Pipeline(SharedMemory& memory, Mistake mistake_)
      : x(take_panels<64>(memory, 1)),
        slots(take_panels<64>(memory, 2)),
        p(take_panels<64>(memory, 1)),
        full(memory.take<Mbarrier>(2)),
        empty(memory.take<Mbarrier>(2)),
        mistake(mistake_) {
    if (threadIdx.x == 0) {
      for (int s = 0; s < 2; ++s) full[s].init(warpgroup_size), empty[s].init(4);
      fence_mbarrier_init();
    }
    __syncthreads();
  }

  /// 64 rows of 64 channels to a panel, by a warpgroup.
  __device__ static void copy(Panels<64> to, Index panel, DeviceView<const bf16, 2> from,
                              Index row) {
    const int t = threadIdx.x % warpgroup_size;
    for (int i = t; i < 64 * 8; i += warpgroup_size)
      copy_async_16(to.chunk(i / 8, 8 * panel + i % 8), &from(row + i / 8, i % 8 * 8), true,
                    kept_in_l2());
  }

  __device__ void produce(Index block, DeviceView<const bf16, 2> k) const {
    const Index s = block % 2;
    const int parity = int(block / 2 % 2);
    empty[s].wait(1 - parity);
    copy(slots, s, k, block * keys);
    if (mistake == Mistake::copies_not_awaited)
      full[s].arrive();
    else
      full[s].arrive_when_copied();
  }

  /// The keys of a slot as columns, k along the channels.
  __device__ PanelOperand<Major::k, 64> keys_as_rows(int s) const {
    PanelOperand<Major::k, 64> k = slots.by_rows(s);
    if (mistake == Mistake::wrong_stride) k.descriptor += std::uint64_t{512 / 16} << 32;
    if (mistake == Mistake::beyond_the_panels) k = k.step(8);
    return k;
  }

  /// d = x k^T.
  __device__ void score(Accumulator<keys>& d, int s) const {
    wgmma_fence(d);
    for (int i = 0; i < channels / 16; ++i)
      if (mistake == Mistake::wrong_transposition)
        wgmma<bf16>(d, x.by_rows().step(i),
                    PanelOperand<Major::mn, 64>(as_channels(keys_as_rows(s))), i > 0);
      else
        wgmma<bf16>(d, x.by_rows().step(i), keys_as_rows(s).step(i), i > 0);
    wgmma_commit();
    if (mistake != Mistake::no_wgmma_wait) wgmma_wait<0>(d);
  }

  /// Accumulators as a row operand.
  __device__ static void pack(Registers<std::uint32_t, keys / 4>& packed,
                              const Accumulator<keys>& d) {
#pragma unroll
    for (int i = 0; i < keys / 4; ++i)
      packed[i] = std::uint32_t{narrow<bf16>(d[2 * i]).bits} |
                  std::uint32_t{narrow<bf16>(d[2 * i + 1]).bits} << 16;
  }

  /// o += p k, p from registers.
  __device__ void add_from_registers(Accumulator<channels>& o,
                                     Registers<std::uint32_t, keys / 4>& packed, int s,
                                     bool add) const {
    if (mistake != Mistake::no_wgmma_fence) wgmma_fence(o, packed);
#pragma unroll
    for (int i = 0; i < keys / 16; ++i)
      wgmma<bf16>(o, packed, i, slots.by_channels(s).step(i), add || i > 0);
    wgmma_commit();
    if (mistake == Mistake::operand_changed) packed[0] = 0;
  }

  /// The same, p from shared memory.
  __device__ void add_from_shared(Accumulator<channels>& o,
                                  const Registers<std::uint32_t, keys / 4>& packed, int s) const {
    named_barrier_wait(3, warpgroup_size);  // until all have read what was stored before
    const int lane = threadIdx.x % warp_size;
    const Index row = threadIdx.x / warp_size * 16 + lane % 16;
#pragma unroll
    for (int i = 0; i < keys / 16; ++i)
      store_matrices(p.chunk(row, 2 * i + lane / 16),
                     {packed[4 * i], packed[4 * i + 1], packed[4 * i + 2], packed[4 * i + 3]});
    if (mistake != Mistake::no_fence_of_stored) fence_async_proxy();
    const bool odd = mistake == Mistake::wrong_count && threadIdx.x / warp_size == 3;
    if (mistake == Mistake::comes_twice && threadIdx.x == 0) named_barrier_arrive(1, 128);
    if (mistake != Mistake::no_named_barrier) named_barrier_wait(1, odd ? 64 : 128);
    wgmma_fence(o);
    // Transposed: a warp reads what the others stored.
    for (int i = 0; i < keys / 16; ++i)
      wgmma<bf16>(o, p.by_channels().step(i), slots.by_channels(s).step(i), true);
    wgmma_commit();
  }

  __device__ void consume(Index block, Accumulator<channels>& o) const {
    const int s = int(block % 2), parity = int(block / 2 % 2);
    if (mistake != Mistake::no_full_wait)
      full[s].wait(mistake == Mistake::full_parity ? 1 - parity : parity);
    if (mistake != Mistake::no_proxy_fence) fence_async_proxy();
    Accumulator<keys> d;
    Registers<std::uint32_t, keys / 4> packed;
    score(d, s);
    pack(packed, d);
    if (block % 2 == 0)
      add_from_registers(o, packed, s, block > 0);
    else
      add_from_shared(o, packed, s);
    const bool releases = threadIdx.x % warp_size == 0;
    if (mistake == Mistake::released_early && releases) empty[s].arrive();
    if (mistake == Mistake::never_waited) return;
    if (mistake != Mistake::one_warp_waits_not || threadIdx.x >= warp_size)
      wgmma_wait<0>(o, packed);
    if (mistake != Mistake::released_early && releases) empty[s].arrive();
  }

 private:
  __device__ static PanelOperand<Major::mn, 64> as_channels(PanelOperand<Major::k, 64> k) {
#ifdef DSA_CUDA_ON_HOST
    return {k.descriptor, k.place};
#else
    return {k.descriptor};
#endif
  }
};

static __global__ void __launch_bounds__(threads, 1)
    pipeline_kernel(DeviceView<float, 2> o, DeviceView<const bf16, 2> x,
                    DeviceView<const bf16, 2> k, Mistake mistake) {
  SharedMemory memory;
  const Pipeline pipeline(memory, mistake);
  const Index blocks = k.shape[0] / keys;
  if (threadIdx.x >= 2 * warpgroup_size) return;  // there for their registers
  if (threadIdx.x >= warpgroup_size) {
    if (mistake != Mistake::registers_kept) shrink_registers<40>();
    for (Index block = 0; block < blocks; ++block) pipeline.produce(block, k);
    return;
  }
  grow_registers<232>();
  Pipeline::copy(pipeline.x, 0, x, 0);
  copy_async_commit();
  copy_async_wait<0>();
  fence_async_proxy();
  named_barrier_wait(2, warpgroup_size);
  Accumulator<channels> sums;
  for (Index block = 0; block < blocks; ++block) pipeline.consume(block, sums);
  if (mistake == Mistake::never_waited) return;
  const int t = threadIdx.x;
#pragma unroll
  for (int i = 0; i < channels / 2; ++i)
    o(t / 32 * 16 + t % 32 / 4 + 8 * (i / 2 % 2), 8 * (i / 4) + 2 * (t % 4) + i % 2) = sums[i];
}

/// o (64, 64); x (64, 64); k (64 blocks, 64).
inline void pipeline(Stream stream, DeviceView<float, 2> o, DeviceView<const bf16, 2> x,
                     DeviceView<const bf16, 2> k, Mistake mistake) {
  launch(stream, "hopper pipeline", {1, threads, shared_bytes, true}, pipeline_kernel, o, x, k,
         mistake);
}

}  // namespace dsa::cuda::DSA_PLACE::hopper
