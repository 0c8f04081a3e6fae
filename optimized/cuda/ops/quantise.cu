#include "optimized/cuda/device/launch.cuh"
#include "optimized/cuda/device/rows.cuh"
#include "optimized/cuda/ops/quantise.cuh"

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

void expect_head_size(Index D) {
  require(
      D > 0 && (D & (D - 1)) == 0,
      "the Hadamard rotation needs a head size that is a power of two, got " + std::to_string(D));
}

void expect_apart(DeviceView<e4m3, 2> y, DeviceView<float, 1> scale, DeviceView<const float, 2> x) {
  expect_shape("y", y, {x.shape[0], x.shape[1]});
  expect_shape("scale", scale, {x.shape[0]});
  expect_head_size(x.shape[1]);
}

void expect_rows(DeviceView<e4m3, 2> y, DeviceView<const float, 2> x) {
  expect_shape("y", y, {x.shape[0], key_width<e4m3>(x.shape[1])});
  expect_head_size(x.shape[1]);
}

void expect_latent_rows(DeviceView<e4m3, 2> y, DeviceView<const float, 2> x, Index R) {
  expect_shape("y", y, {x.shape[0], latent_width<e4m3>(R, x.shape[1] - R)});
}

}  // namespace

namespace v1 {

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
  launch(stream, "hadamard_e4m3 v1",
         {grid_of(rows), threads, shared_room<float>(D) + shared_room<float>(threads / warp_size)},
         hadamard_kernel, y, scale, x, ue8m0);
}

void hadamard_e4m3(Stream stream, DeviceView<e4m3, 2> y, DeviceView<float, 1> scale,
                   DeviceView<const float, 2> x, bool ue8m0) {
  expect_apart(y, scale, x);
  rotate(stream, y, scale, x, ue8m0);
}

void hadamard_e4m3_rows(Stream stream, DeviceView<e4m3, 2> y, DeviceView<const float, 2> x,
                        bool ue8m0) {
  expect_rows(y, x);
  rotate(stream, y, {}, x, ue8m0);
}

void latent_e4m3_rows(Stream stream, DeviceView<e4m3, 2> y, DeviceView<const float, 2> x, Index R,
                      bool ue8m0) {
  expect_latent_rows(y, x, R);
  launch(stream, "latent_e4m3 v1",
         {grid_of(x.shape[0]), threads, shared_room<float>(threads / warp_size)}, latent_kernel, y,
         x, R, ue8m0);
}

}  // namespace v1

namespace v2 {

constexpr int rows_per_block = threads / warp_size;
constexpr Index most_channels = 4 * warp_size;

__device__ Index row_of_warp() {
  return blockIdx.x * Index(rows_per_block) + threadIdx.x / warp_size;
}

/// Four bytes of a row, the lowest first, at a multiple of four.
__device__ void write_word(DeviceView<e4m3, 1> row, Index byte, std::uint32_t bits) {
  Four<e4m3> four;
  for (int i = 0; i < 4; ++i) four.at[i] = {std::uint8_t(bits >> 8 * i)};
  store_four(&row(byte), four);
}

/// Writes the warp's numbers, four a lane, those of this lane if they are `mine`, and returns their
/// scale.
__device__ float write_quantised(DeviceView<e4m3, 1> row, Index first, Four<float> x, bool mine,
                                 bool ue8m0) {
  float amax = 0;
  for (int i = 0; i < 4; ++i) amax = Maximum{}(amax, fabsf(x.at[i]));
  const float scale = scale_for(across_warp(amax, Maximum{}), ue8m0);
  Four<e4m3> y;
  for (int i = 0; i < 4; ++i) y.at[i] = quantised(x.at[i], scale);
  if (mine) store_four(&row(first), y);
  return scale;
}

/// Lane l holds channels 4 l ... 4 l + 3, and zeros beyond D: the sums and differences of v1, two
/// steps of them within a lane, the others between lanes.
__device__ void rotate(Four<float>& x, Index D) {
  const int lane = threadIdx.x % warp_size;
  const float a = x.at[0] + x.at[1], b = x.at[0] - x.at[1];
  const float c = x.at[2] + x.at[3], d = x.at[2] - x.at[3];
  x = {{a + c, b + d, a - c, b - d}};
  for (int lanes = 1; lanes < D / 4; lanes *= 2)
    for (int i = 0; i < 4; ++i) {
      const float other = __shfl_xor_sync(all_lanes, x.at[i], lanes);
      x.at[i] = lane & lanes ? other - x.at[i] : x.at[i] + other;
    }
}

/// `scale` is empty where it is to stand in the row, behind the numbers.
__global__ void hadamard_kernel(DeviceView<e4m3, 2> y, DeviceView<float, 1> scale,
                                DeviceView<const float, 2> x, bool ue8m0) {
  const Index t = row_of_warp(), D = x.shape[1], first = 4 * (threadIdx.x % warp_size);
  if (t >= x.shape[0]) return;
  const bool mine = first < D;
  Four<float> row{};
  if (mine) row = load_four(&x(t, first));
  for (int i = 0; i < 4; ++i) row.at[i] = widen(narrow<bf16>(row.at[i]));
  rotate(row, D);
  const float factor = float(1 / sqrt(double(D)));
  for (int i = 0; i < 4; ++i) row.at[i] = widen(narrow<bf16>(row.at[i] * factor));
  const float s = write_quantised(y[t], first, row, mine, ue8m0);
  if (first != 0) return;
  if (scale.shape[0] > 0)
    scale(t) = s;
  else
    write_word(y[t], D, bits_of(s));
}

__global__ void latent_kernel(DeviceView<e4m3, 2> y, DeviceView<const float, 2> x, Index R,
                              bool ue8m0) {
  static_assert(most_channels == fp8_run);
  const Index t = row_of_warp(), lane = threadIdx.x % warp_size;
  if (t >= x.shape[0]) return;
  const Index P = x.shape[1] - R, runs = (R + fp8_run - 1) / fp8_run;
  for (Index run = 0; run < runs; ++run) {
    const Index c = run * fp8_run + 4 * lane;
    const Four<float> four = c < R ? load_four(&x(t, c)) : Four<float>{};
    const float s = write_quantised(y[t], c, four, c < R, ue8m0);
    if (lane == 0) write_word(y[t], R + 4 * run, bits_of(s));
  }
  for (Index p = 2 * lane; p < P; p += 2 * warp_size) {
    const std::uint32_t low = narrow<bf16>(x(t, R + p)).bits;
    const std::uint32_t high = narrow<bf16>(x(t, R + p + 1)).bits;
    write_word(y[t], R + 4 * runs + 2 * p, low | high << 16);
  }
}

std::string hadamard_refuses(Index D) {
  if (4 <= D && D <= most_channels) return "";
  return "hadamard_e4m3 v2 takes head sizes from 4 to " + std::to_string(most_channels) + ", got " +
         std::to_string(D);
}

std::string latent_refuses(Index R, Index P) {
  if (R % 4 == 0 && P % 4 == 0) return "";
  return "latent_e4m3 v2 takes R and P that are multiples of 4, got " + std::to_string(R) +
         " and " + std::to_string(P);
}

void rotate(Stream stream, DeviceView<e4m3, 2> y, DeviceView<float, 1> scale,
            DeviceView<const float, 2> x, bool ue8m0) {
  const std::string refusal = hadamard_refuses(x.shape[1]);
  require(refusal.empty(), refusal);
  launch(stream, "hadamard_e4m3 v2", {grid_of(ceil_divide(x.shape[0], rows_per_block)), threads},
         hadamard_kernel, y, scale, x, ue8m0);
}

void hadamard_e4m3(Stream stream, DeviceView<e4m3, 2> y, DeviceView<float, 1> scale,
                   DeviceView<const float, 2> x, bool ue8m0) {
  expect_apart(y, scale, x);
  rotate(stream, y, scale, x, ue8m0);
}

void hadamard_e4m3_rows(Stream stream, DeviceView<e4m3, 2> y, DeviceView<const float, 2> x,
                        bool ue8m0) {
  expect_rows(y, x);
  rotate(stream, y, {}, x, ue8m0);
}

void latent_e4m3_rows(Stream stream, DeviceView<e4m3, 2> y, DeviceView<const float, 2> x, Index R,
                      bool ue8m0) {
  expect_latent_rows(y, x, R);
  const std::string refusal = latent_refuses(R, x.shape[1] - R);
  require(refusal.empty(), refusal);
  launch(stream, "latent_e4m3 v2", {grid_of(ceil_divide(x.shape[0], rows_per_block)), threads},
         latent_kernel, y, x, R, ue8m0);
}

}  // namespace v2

void hadamard_e4m3(Stream stream, DeviceView<e4m3, 2> y, DeviceView<float, 1> scale,
                   DeviceView<const float, 2> x, bool ue8m0) {
  if (v2::hadamard_refuses(x.shape[1]).empty())
    return v2::hadamard_e4m3(stream, y, scale, x, ue8m0);
  v1::hadamard_e4m3(stream, y, scale, x, ue8m0);
}

void hadamard_e4m3_rows(Stream stream, DeviceView<e4m3, 2> y, DeviceView<const float, 2> x,
                        bool ue8m0) {
  if (v2::hadamard_refuses(x.shape[1]).empty()) return v2::hadamard_e4m3_rows(stream, y, x, ue8m0);
  v1::hadamard_e4m3_rows(stream, y, x, ue8m0);
}

void latent_e4m3_rows(Stream stream, DeviceView<e4m3, 2> y, DeviceView<const float, 2> x, Index R,
                      bool ue8m0) {
  if (v2::latent_refuses(R, x.shape[1] - R).empty())
    return v2::latent_e4m3_rows(stream, y, x, R, ue8m0);
  v1::latent_e4m3_rows(stream, y, x, R, ue8m0);
}

}  // namespace dsa::cuda::DSA_PLACE
