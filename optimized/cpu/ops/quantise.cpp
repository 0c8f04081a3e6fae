#include "optimized/cpu/ops/quantise.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/dtype.hpp"
#include "core/threads.hpp"
#include "optimized/cpu/kernels/convert.hpp"
#include "optimized/cpu/kernels/quantise.hpp"

namespace dsa::cpu {
namespace {

constexpr Index most_channels = 1024;  // of a head: what a thread keeps on its stack

/// Rotates and quantises a row of D; returns its scale.
float rotate_and_quantise(Cpu cpu, e4m3* y, const float* x, Index D, bool ue8m0) {
  alignas(64) float rotated[most_channels];
  hadamard_row_of[int(cpu.tier)](rotated, x, D);
  return quantise_row_of[int(cpu.tier)](&y->bits, rotated, D, ue8m0);
}

void expect_head_size(Index D) {
  if (!(0 < D && D <= most_channels && (D & (D - 1)) == 0))
    throw Error("the Hadamard rotation needs a head size that is a power of two up to " +
                std::to_string(most_channels) + ", got " + std::to_string(D));
}

}  // namespace

void to_bf16(Cpu cpu, View<bf16, 2> y, View<const float, 2> x) {
  const Index T = x.shape[0], C = x.shape[1];
  expect_shape("y", y, {T, C});
  parallel_for(T, C / 8, [&](Index t) {
    narrow_row_of[int(cpu.tier)](&y.data[t * C].bits, x.data + t * C, C);
  });
}

void hadamard_e4m3(Cpu cpu, View<e4m3, 2> y, View<float, 1> scale, View<const float, 2> x,
                   bool ue8m0) {
  const Index rows = x.shape[0], D = x.shape[1];
  expect_shape("y", y, {rows, D});
  expect_shape("scale", scale, {rows});
  expect_head_size(D);
  parallel_for(rows, D, [&](Index r) {
    scale.data[r] = rotate_and_quantise(cpu, y.data + r * D, x.data + r * D, D, ue8m0);
  });
}

void hadamard_e4m3_rows(Cpu cpu, View<e4m3, 2> y, View<const float, 2> x, bool ue8m0) {
  const Index rows = x.shape[0], D = x.shape[1], width = fp8_index_bytes(D);
  expect_shape("y", y, {rows, width});
  expect_head_size(D);
  parallel_for(rows, D, [&](Index r) {
    e4m3* const row = y.data + r * width;
    const float scale = rotate_and_quantise(cpu, row, x.data + r * D, D, ue8m0);
    std::memcpy(&row[D].bits, &scale, sizeof scale);
  });
}

void through_bf16(View<float, 2> x) {
  for (float& value : x) value = static_cast<float>(round_to(Dtype::bf16, value));
}

void through_e4m3(Cpu cpu, View<float, 2> x, bool rotated, bool ue8m0) {
  const Index rows = x.shape[0], D = x.shape[1];
  if (rotated) expect_head_size(D);
  through_bf16(x);
  parallel_for(rows, 4 * D, [&](Index r) {
    float* const row = x.data + r * D;
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(D));
    if (rotated) hadamard_row_of[int(cpu.tier)](row, row, D);
    const float scale = quantise_row_of[int(cpu.tier)](codes.data(), row, D, ue8m0);
    decode(Dtype::f8_e4m3, reinterpret_cast<const std::byte*>(codes.data()), D, row);
    for (Index d = 0; d < D; ++d) row[d] *= scale;
  });
}

void latent_e4m3_rows(Cpu cpu, View<e4m3, 2> y, View<const float, 2> x, Index R, bool ue8m0) {
  const Index T = x.shape[0], P = x.shape[1] - R, width = fp8_latent_bytes(R, P);
  if (!(0 <= R && 0 <= P))
    throw Error("R is " + std::to_string(R) + "; expected at most the width of x, " +
                std::to_string(x.shape[1]));
  if (!(P <= most_channels))
    throw Error("P is " + std::to_string(P) + "; expected at most " +
                std::to_string(most_channels));
  expect_shape("y", y, {T, width});
  parallel_for(T, R + P, [&](Index t) {
    const float* const row = x.data + t * (R + P);
    std::uint8_t *const codes = &y.data[t * width].bits, *scales = codes + R;
    for (Index r = 0; r < R; r += fp8_run) {
      const float scale =
          quantise_row_of[int(cpu.tier)](codes + r, row + r, std::min(fp8_run, R - r), ue8m0);
      std::memcpy(scales, &scale, sizeof scale);
      scales += sizeof scale;
    }
    std::uint16_t rope[most_channels];  // the row may lie at an odd address
    narrow_row_of[int(cpu.tier)](rope, row + R, P);
    std::memcpy(scales, rope, 2 * static_cast<std::size_t>(P));
  });
}

}  // namespace dsa::cpu
