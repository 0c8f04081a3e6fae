#include "optimized/cuda/host/warp.hpp"

#include <bit>

namespace dsa::cuda::host {
namespace {

float of_bf16(std::uint32_t bits) { return std::bit_cast<float>(bits << 16); }
float of_f16(std::uint32_t bits) {
  const std::uint32_t sign = (bits & 0x8000u) << 16, magnitude = bits & 0x7fffu;
  if (magnitude < 0x400u) return std::bit_cast<float>(sign | 0x33800000u) * float(magnitude);
  const std::uint32_t exponent = magnitude >= 0x7c00u ? 0x7f800000u : 0u;  // inf or NaN
  return std::bit_cast<float>(sign | ((magnitude << 13) + (112u << 23)) | exponent);
}

struct Fragments {
  float* d;
  const std::uint32_t *a, *b;
};

/// value: a number from its 16 bits.
template <float (*value)(std::uint32_t)>
void multiply(void* const* lanes) {
  float a[16][16], b[16][8];
  for (int i = 0; i < warp_size; ++i) {
    if (!lanes[i]) fail("an mma needs a warp of 32 threads");
    const auto* f = static_cast<const Fragments*>(lanes[i]);
    const int g = i / 4, c = 2 * (i % 4);
    for (int r = 0; r < 4; ++r) {
      float* at = &a[g + 8 * (r % 2)][c + 8 * (r / 2)];
      at[0] = value(f->a[r] & 0xffffu), at[1] = value(f->a[r] >> 16);
    }
    for (int r = 0; r < 2; ++r) {
      b[c + 8 * r][g] = value(f->b[r] & 0xffffu);
      b[c + 8 * r + 1][g] = value(f->b[r] >> 16);
    }
  }
  for (int i = 0; i < warp_size; ++i) {
    const auto* f = static_cast<const Fragments*>(lanes[i]);
    for (int r = 0; r < 4; ++r) {
      const int row = i / 4 + 8 * (r / 2), column = 2 * (i % 4) + r % 2;
      float sum = f->d[r];
      for (int k = 0; k < 16; ++k) sum += a[row][k] * b[k][column];
      f->d[r] = sum;
    }
  }
}

struct Rows {
  const std::byte* row;
  bool transposed;
  std::uint32_t* r;
};

void distribute(void* const* lanes) {
  for (int i = 0; i < warp_size; ++i) {
    if (!lanes[i]) fail("ldmatrix needs a warp of 32 threads");
    auto* to = static_cast<Rows*>(lanes[i]);
    for (int matrix = 0; matrix < 4; ++matrix) {
      std::uint16_t pair[2];
      for (int j = 0; j < 2; ++j) {
        const int row = to->transposed ? 2 * (i % 4) + j : i / 4;
        const int column = to->transposed ? i / 4 : 2 * (i % 4) + j;
        const auto* from = static_cast<const Rows*>(lanes[8 * matrix + row]);
        std::memcpy(&pair[j], from->row + 2 * column, sizeof pair[j]);
      }
      to->r[matrix] = pair[0] | std::uint32_t{pair[1]} << 16;
    }
  }
}

struct StoredRows {
  std::byte* row;
  const std::uint32_t* r;
};

void collect(void* const* lanes) {
  for (int i = 0; i < warp_size; ++i) {
    if (!lanes[i]) fail("stmatrix needs a warp of 32 threads");
    const auto* from = static_cast<const StoredRows*>(lanes[i]);
    for (int matrix = 0; matrix < 4; ++matrix)
      std::memcpy(static_cast<StoredRows*>(lanes[8 * matrix + i / 4])->row + 4 * (i % 4),
                  &from->r[matrix], sizeof from->r[matrix]);
  }
}

}  // namespace

void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], int line) {
  Fragments mine{d, a, b};
  warp_operation("an mma", line, &mine, multiply<of_bf16>, false);
}

void mma_f16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], int line) {
  Fragments mine{d, a, b};
  warp_operation("an mma", line, &mine, multiply<of_f16>, false);
}

void load_matrices(std::uint32_t (&r)[4], const void* row, bool transposed, int line) {
  if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0)
    fail("gives ldmatrix an address that is no multiple of 16");
  reads_shared(row, 16);
  Rows mine{static_cast<const std::byte*>(row), transposed, r};
  warp_operation("ldmatrix", line, &mine, distribute, false);
}

void store_matrices(void* row, const std::uint32_t (&r)[4], int line) {
  if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0)
    fail("gives stmatrix an address that is no multiple of 16");
  writes_shared(row, 16);
  StoredRows mine{static_cast<std::byte*>(row), r};
  warp_operation("stmatrix", line, &mine, collect, false);
}

}  // namespace dsa::cuda::host
