// optimized/cuda/quantise.cu — v1: one block a row.
#include "optimized/cuda/launch.cuh"
#include "optimized/cuda/quantise.cuh"
#include "optimized/cuda/rows.cuh"

namespace dsa::cuda::DSA_PLACE {
namespace {

constexpr int threads = 128;

/// The scale of numbers of which `amax` is the largest magnitude.
__device__ float scale_for(float amax, bool ue8m0) {
  const float scale = (amax > 1e-4f || amax != amax ? amax : 1e-4f) * float(1 / 448.0);
  if (!ue8m0) return scale;
  const std::uint32_t bits = bits_of(scale);
  return float_of((bits + 0x7fffff) & 0xff800000u);  // the next power of two, or this one
}

__device__ e4m3 quantised(float x, float scale) { return narrow<e4m3>(x / scale); }

__device__ void write_float(DeviceView<e4m3, 1> row, Index byte, float x) {
  for (int i = 0; i < 4; ++i) row(byte + i) = {std::uint8_t(bits_of(x) >> 8 * i)};
}

/// `scale` is empty where it is to stand in the row, behind the numbers.
__global__ void hadamard_kernel(DeviceView<e4m3, 2> y, DeviceView<float, 1> scale,
                                DeviceView<const float, 2> x, bool ue8m0) {
  const Index t = blockIdx.x, D = x.shape[1];
  SharedMemory memory;
  const Shared<float> row = memory.take<float>(D);
  const Shared<float> scratch = memory.take<float>(threads / warp_size);
  for (Index d = threadIdx.x; d < D; d += threads) row[d] = widen(narrow<bf16>(x(t, d)));
  for (Index half = 1; half < D; half *= 2) {
    __syncthreads();
    for (Index pair = threadIdx.x; pair < D / 2; pair += threads) {
      const Index i = pair / half * 2 * half + pair % half;
      const float a = row[i], b = row[i + half];
      row[i] = a + b;
      row[i + half] = a - b;
    }
  }
  __syncthreads();
  const float factor = float(1 / sqrt(double(D)));
  float amax = 0;
  for (Index d = threadIdx.x; d < D; d += threads) {
    const float rotated = widen(narrow<bf16>(row[d] * factor));
    row[d] = rotated;
    amax = Maximum{}(amax, fabsf(rotated));
  }
  const float s = scale_for(across_block(amax, Maximum{}, scratch), ue8m0);
  for (Index d = threadIdx.x; d < D; d += threads) y(t, d) = quantised(row[d], s);
  if (threadIdx.x != 0) return;
  if (scale.shape[0] > 0)
    scale(t) = s;
  else
    write_float(y[t], D, s);
}

__global__ void latent_kernel(DeviceView<e4m3, 2> y, DeviceView<const float, 2> x, Index R,
                              bool ue8m0) {
  static_assert(threads == fp8_run);
  const Index t = blockIdx.x, runs = (R + fp8_run - 1) / fp8_run;
  SharedMemory memory;
  const Shared<float> scratch = memory.take<float>(threads / warp_size);
  for (Index run = 0; run < runs; ++run) {
    const Index c = run * fp8_run + threadIdx.x;
    const float value = c < R ? x(t, c) : 0;
    const float s = scale_for(across_block(fabsf(value), Maximum{}, scratch), ue8m0);
    if (c < R) y(t, c) = quantised(value, s);
    if (threadIdx.x == 0) write_float(y[t], R + 4 * run, s);
  }
  for (Index p = threadIdx.x; p < x.shape[1] - R; p += threads) {
    const std::uint32_t bits = narrow<bf16>(x(t, R + p)).bits;
    const Index byte = R + 4 * runs + 2 * p;
    y(t, byte) = {std::uint8_t(bits)}, y(t, byte + 1) = {std::uint8_t(bits >> 8)};
  }
}

void rotate(Stream stream, DeviceView<e4m3, 2> y, DeviceView<float, 1> scale,
            DeviceView<const float, 2> x, bool ue8m0) {
  const Index rows = x.shape[0], D = x.shape[1];
  require(
      D > 0 && (D & (D - 1)) == 0,
      "the Hadamard rotation needs a head size that is a power of two, got " + std::to_string(D));
  launch(stream, "hadamard_e4m3 v1",
         {grid_of(rows), threads, shared_room<float>(D) + shared_room<float>(threads / warp_size)},
         hadamard_kernel, y, scale, x, ue8m0);
}

}  // namespace

void hadamard_e4m3(Stream stream, DeviceView<e4m3, 2> y, DeviceView<float, 1> scale,
                   DeviceView<const float, 2> x, bool ue8m0) {
  expect_shape("y", y, {x.shape[0], x.shape[1]});
  expect_shape("scale", scale, {x.shape[0]});
  rotate(stream, y, scale, x, ue8m0);
}

void hadamard_e4m3_rows(Stream stream, DeviceView<e4m3, 2> y, DeviceView<const float, 2> x,
                        bool ue8m0) {
  expect_shape("y", y, {x.shape[0], key_width<e4m3>(x.shape[1])});
  rotate(stream, y, {}, x, ue8m0);
}

void latent_e4m3_rows(Stream stream, DeviceView<e4m3, 2> y, DeviceView<const float, 2> x, Index R,
                      bool ue8m0) {
  const Index T = x.shape[0], P = x.shape[1] - R;
  expect_shape("y", y, {T, latent_width<e4m3>(R, P)});
  launch(stream, "latent_e4m3 v1", {grid_of(T), threads, shared_room<float>(threads / warp_size)},
         latent_kernel, y, x, R, ue8m0);
}

}  // namespace dsa::cuda::DSA_PLACE
