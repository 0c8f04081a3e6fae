#include "optimized/cpu/kernels/gathered_heads.hpp"

#include "optimized/cpu/kernels/counted.hpp"
#include "optimized/cpu/kernels/seen.hpp"

namespace dsa::cpu::DSA_TIER {
namespace {

constexpr int tile_keys = 8, tile_channels = 8;  // sums kept in registers
constexpr Index ahead = 4;                       // rows that come nearer meanwhile

/// Dots of `keys` rows with the heads of one register.
template <int keys>
void dots_of(float* z, const float* q, const GatheredRows& rows, const std::int32_t* ids) {
  const Index M = rows.M, channels = rows.channels;
  const float* row[keys];
  for (int j = 0; j < keys; ++j) row[j] = rows.data + ids[j] * channels * M;
  Vector sums[keys] = {};
  for (Index at = 0; at < channels * M; at += M) {
    const Vector heads = vector_at(q + at);
#pragma GCC unroll 8
    for (int j = 0; j < keys; ++j) sums[j] = fused(heads, vector_at(row[j] + at), sums[j]);
  }
#pragma GCC unroll 8
  for (int j = 0; j < keys; ++j) put(z + j * M, sums[j]);
}

/// `channels` channels from `first` of the sum, for the heads of one register.
template <int channels>
void sums_of(float* out, const float* p, const GatheredRows& rows, Index first) {
  const Index M = rows.M, row = rows.channels * M;
  const float* const data = rows.data + first;
  Vector sums[channels] = {};
  for (Index j = 0; j < rows.n; ++j) {
    const Vector weight = vector_at(p + j * M);
    const float* const x = data + rows.ids[j] * row;
    if (j + ahead < rows.n) {
      const float* const next = data + rows.ids[j + ahead] * row;
#pragma GCC unroll 8
      for (int c = 0; c < channels; ++c) __builtin_prefetch(next + c * M);
    }
#pragma GCC unroll 8
    for (int c = 0; c < channels; ++c) sums[c] = fused(weight, vector_at(x + c * M), sums[c]);
  }
#pragma GCC unroll 8
  for (int c = 0; c < channels; ++c) put(out + c * M, sums[c]);
}

}  // namespace

void gathered_dots(float* z, const float* q, const GatheredRows& rows) {
  for (Index h = 0; h < rows.M; h += width) {
    GatheredRows lane = rows;
    lane.data += h;
    for (Index j = 0; j < rows.n; j += tile_keys)
      counted<tile_keys>(rows.n - j, [&]<int keys>() {
        dots_of<keys>(z + j * rows.M + h, q + h, lane, rows.ids + j);
      });
  }
}

void gathered_sum(float* out, const float* p, const GatheredRows& rows) {
  for (Index c = 0; c < rows.channels; c += tile_channels)
    for (Index h = 0; h < rows.M; h += width)
      counted<tile_channels>(rows.channels - c, [&]<int channels>() {
        sums_of<channels>(out + c * rows.M + h, p + h, rows, c * rows.M + h);
      });
}

void scatter_product(float* d, const float* p, const float* x, const GatheredRows& rows) {
  const Index M = rows.M, row = rows.channels * M;
  for (Index j = 0; j < rows.n; ++j) {
    float* const to = d + rows.ids[j] * row;
    for (Index h = 0; h < M; h += width) {
      const Vector weight = vector_at(p + j * M + h);
#pragma GCC unroll 4
      for (Index at = h; at < row; at += M)
        put(to + at, fused(weight, vector_at(x + at), vector_at(to + at)));
    }
  }
}

void gathered_softmax(float* z, float* m, float* l, float scale, Index n, Index M) {
  for (Index h = 0; h < M; h += width) {
    Vector largest = fill(-__builtin_inff()), sum{};
    for (Index j = 0; j < n; ++j) largest = larger(vector_at(z + j * M + h) * scale, largest);
    for (Index j = 0; j < n; ++j) {
      const Vector p = exponential(vector_at(z + j * M + h) * scale - largest);
      put(z + j * M + h, p);
      sum += p;
    }
    put(m + h, largest);
    put(l + h, sum);
  }
}

void gathered_gradient(float* z, float* d_p, const float* lse, const float* delta, float scale,
                       Index n, Index M) {
  for (Index j = 0; j < n; ++j)
    for (Index h = 0; h < M; h += width) {
      float* const at = z + j * M + h;
      float* const d = d_p + j * M + h;
      const Vector p = exponential(vector_at(at) * scale - vector_at(lse + h));
      put(at, p);
      put(d, p * ((vector_at(d) - vector_at(delta + h)) * scale));
    }
}

void gathered_mass(float* u, const float* z, const float* lse, float scale, Index n, Index M) {
  for (Index j = 0; j < n; ++j) {
    Vector sum{};
    for (Index h = 0; h < M; h += width)
      sum += exponential(vector_at(z + j * M + h) * scale - vector_at(lse + h));
    u[j] = sum_of(sum);
  }
}

}  // namespace dsa::cpu::DSA_TIER
