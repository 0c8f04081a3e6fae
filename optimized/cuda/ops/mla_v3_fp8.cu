// v3 over rows of e4m3, for sm_90a: decoding from V3.2's cache. The multiplying warpgroups are
// those of mla_v3.cu. Two others read rows of 656 bytes and write them to the slots as bf16
// (mla_v3_widen.cuh). Of 512 threads, each of a multiplying warpgroup has 200 registers, each of
// the others 56.
//
// Why the bounds hold: a number of e4m3 times its scale is computed in fp32 and rounded to bf16
// once. With scales that are powers of two nothing is rounded; with others a row's error is that of
// bf16, which the bounds of the suite name. bf16 has the exponents of fp32, so this is true for
// every scale. In f16 a small scale beside a large one in a row would lose bits, and so would a
// small probability. The prototype did widen to f16: two instructions for two numbers, where bf16
// takes six.
//
// Few queries: their keys are cut into ranges, a block each. A second kernel, launched early, joins
// the ranges in their order. The number of ranges depends on the shape and the device alone.
#include "optimized/cuda/ops/mla_v3_launch.cuh"
#include "optimized/cuda/ops/mla_v3_pair.cuh"
#include "optimized/cuda/ops/mla_v3_widen.cuh"

namespace dsa::cuda::DSA_PLACE::v3 {

template <class Keys>
__global__ void __launch_bounds__(threads<e4m3>, 1)
    mla_fp8_kernel(MlaOut y, MlaIn<e4m3> in, Keys keys, float scale, Work work) {
  SharedMemory shared;
  const Memory memory(shared);
  if (threadIdx.x == 0) memory.init(producers<e4m3> * warpgroup_size / warp_size);
  __syncthreads();
  if (work.ranges > 1) launch_dependents();
  const int warpgroup = __shfl_sync(all_lanes, int(threadIdx.x) / warpgroup_size, 0);
  if (warpgroup >= 2) {
    shrink_registers<56>();
    WideningProducer<Keys>(memory, in, keys).run(work);
  } else {
    grow_registers<200>();
    multiply<e4m3>(memory, y, keys, scale, work, warpgroup);
  }
}

template <class Keys>
void mla(Stream stream, MlaOut y, const MlaIn<e4m3>& in, Keys keys, Index ranges,
         DeviceView<float, 1> workspace) {
  launch_ranges(stream, y, in, keys, ranges, workspace, mla_fp8_kernel<Keys>);
}

template void mla(Stream, MlaOut, const MlaIn<e4m3>&, Chosen, Index, DeviceView<float, 1>);

}  // namespace dsa::cuda::DSA_PLACE::v3
