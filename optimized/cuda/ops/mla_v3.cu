// v3, for sm_90a: a block takes 64 heads of one query, then those of another, as long as there are
// any. A warpgroup gathers keys, 64 at a time, by cp.async; two others multiply by wgmma. Of every
// pair of blocks of keys, the first one's scores and probabilities are the work of warpgroup 0, the
// second one's that of warpgroup 1; of the sums over both, warpgroup 0 holds channels 0 to 255 and
// warpgroup 1 the rest. They are staggered: while one turns scores into probabilities, the tensor
// cores work for the other.
//
//   tensor cores:  q K0 | q K1, P0 V0 left | P0 V0 right | P1 V1 right, P1 V1 left | next q K0
//
//   warpgroup 0:  issues q K0; probabilities P0 during q K1; P0 V0 left; P1 V1 left
//
//   warpgroup 1:  issues q K1 after q K0; P0 V0 right behind it; probabilities P1; P1 V1 right
//
// The reference that probabilities are relative to goes from one warpgroup to the other, and moves
// only where a block's largest score exceeds it by more than 2^8: the factor is in a probability
// and in the sum alike. Probabilities are rounded to bf16; their sum is not.
#include "optimized/cuda/device/device.cuh"
#include "optimized/cuda/ops/mla_v3_gather.cuh"
#include "optimized/cuda/ops/mla_v3_launch.cuh"
#include "optimized/cuda/ops/mla_v3_pair.cuh"

namespace dsa::cuda::DSA_PLACE::v3 {

template <class Keys>
__global__ void __launch_bounds__(threads<bf16>, 1)
    mla_kernel(MlaOut y, MlaIn<bf16> in, Keys keys, float scale, Work work) {
  SharedMemory shared;
  const Memory memory(shared);
  if (threadIdx.x == 0) memory.init(warpgroup_size + 1);
  __syncthreads();
  if (work.ranges > 1) launch_dependents();
  const int warpgroup = __shfl_sync(all_lanes, int(threadIdx.x) / warpgroup_size, 0);
  if (warpgroup == 2) {
    shrink_registers<72>();
    Producer<Keys>{memory, in, keys}.run(work);
  } else {
    grow_registers<216>();
    multiply<bf16>(memory, y, keys, scale, work, warpgroup);
  }
}

static __global__ void __launch_bounds__(join_threads) join_kernel(MlaOut y, Parts parts) {
  wait_for_earlier_grids();
  join_parts(y, parts, blockIdx.x, blockIdx.y);
}

void join(Stream stream, MlaOut y, const Parts& parts) {
  launch(stream, "mla v3, join",
         {grid_of(y.out.shape[0], y.out.shape[1]), join_threads,
          join_shared_bytes(parts.lse.shape[0]), false, true},
         join_kernel, y, parts);
}

std::string mla_refuses(Index R_, Index P_, double scale) {
  if (R_ != R || P_ != P)
    return "mla v3 takes R 512 and P 64, got " + std::to_string(R_) + " and " + std::to_string(P_);
  if (!(scale > 0)) return "mla v3 takes a scale above 0, got " + std::to_string(scale);
  if (!has_hopper_code())
    return "mla v3 needs a device of compute capability 9.0 and a build for it (90a)";
  return "";
}

Index mla_ranges(Index T, Index N, Index most_keys) {
  constexpr Index most = 16;  // of more, the join would read more than a block gathers
  const Index items = std::max<Index>(1, T * ceil_divide(N, block_heads));
  const Index pairs = std::max<Index>(1, most_keys / (2 * block_keys));
  return std::clamp<Index>(multiprocessors() / items, 1, std::min(most, pairs));
}

template <class Keys>
void mla(Stream stream, MlaOut y, const MlaIn<bf16>& in, Keys keys, Index ranges,
         DeviceView<float, 1> workspace) {
  launch_ranges(stream, y, in, keys, ranges, workspace, mla_kernel<Keys>);
}

template void mla(Stream, MlaOut, const MlaIn<bf16>&, Chosen, Index, DeviceView<float, 1>);

}  // namespace dsa::cuda::DSA_PLACE::v3
