#include "optimized/cpu/kernels/latent_attention.hpp"

#include "optimized/cpu/kernels/arithmetic.hpp"
#include "optimized/cpu/kernels/counted.hpp"

namespace dsa::cpu::DSA_TIER {
namespace {

constexpr int tile_keys = 12;                    // sums of scores kept in registers
constexpr int tile_heads = width == 16 ? 8 : 4;  // sums of rows: heads x two vectors
constexpr Index run_channels = 2 * width;        // a value tile is cut into runs of so many

struct Sizes {
  Index words, groups, steps, runs;
};
template <class A>
Sizes sizes_of(Index key_channels, Index value_channels, Index heads, Index n) {
  return {(key_channels + A::channels - 1) / A::channels, (heads + width - 1) / width,
          (n + A::channels - 1) / A::channels, (value_channels + run_channels - 1) / run_channels};
}

/// dots[k][lane] of `keys` keys, `at` bytes into their rows, with the heads of a group. Meanwhile
/// `soon` rows come nearer.
template <class A, int keys>
void score_keys(float* dots, const Word* q, const std::byte* const* rows, Index at, Index soon,
                Index words) {
  constexpr Index line = 16;
  const Word* row[keys];
  for (int k = 0; k < keys; ++k) row[k] = reinterpret_cast<const Word*>(rows[k] + at);
  Vector sums[keys] = {};
  for (Index first = 0; first < words; first += line) {
    for (Index k = 0; k < soon; ++k) __builtin_prefetch(rows[keys + k] + at + 4 * first);
    const Index end = words - first < line ? words : first + line;
    for (Index i = first; i < end; ++i) {
      const Vector heads = vector_at(q + i * width);
#pragma GCC unroll 12
      for (int k = 0; k < keys; ++k)
        sums[k] = A::add_product(sums[k], A::broadcast(row[k] + i), heads);
    }
  }
  for (int k = 0; k < keys; ++k) put(dots + k * width, sums[k]);
}

/// Dots (n, lanes) of the heads [first, ...) become scores, -infinity where a head does not see the
/// key. Returns the largest.
Vector scaled(float* dots, const ChunkIn& in, Index first) {
  Vector largest = fill(-__builtin_inff());
  for (Index k = 0; k < in.n; ++k) {
    Vector score = vector_at(dots + k * width) * in.scale;
    if (in.begin) {
      const Integers at = fill(static_cast<std::int32_t>(k));
      const Integers sees =
          (integers_at(in.begin + first) <= at) & (at < integers_at(in.end + first));
      score = sees ? score : fill(-__builtin_inff());
    }
    put(dots + k * width, score);
    largest = larger(score, largest);
  }
  return largest;
}

/// Turns the dots (n, lanes) of heads [first, ...) into weights exp(scale dot - m). Writes m and l.
void weigh(float* dots, const ChunkIn& in, Index first, float* m, float* l) {
  const Vector largest = scaled(dots, in, first);
  // Scores that are all -infinity have no weight, rather than exp(NaN).
  const Vector shift = largest == -__builtin_inff() ? Vector{} : largest;
  Vector sum{};
  for (Index k = 0; k < in.n; ++k) {
    const Vector weight = exponential(vector_at(dots + k * width) - shift);
    put(dots + k * width, weight);
    sum += weight;
  }
  put(m, largest);
  put(l, sum);
}

/// Word k of a lane: the weights of the keys that one product takes.
void pack_weights(FloatRows, Word* packed, const float* weights, Index n) {
  std::memcpy(packed, weights, static_cast<std::size_t>(4 * n * width));
}

/// Channels [first, first + width) of the rows that one product takes.
void pack_values(FloatRows, Word* packed, const std::byte* const* rows, Index, Index first,
                 Index channels) {
  const Index here = channels - first < width ? channels - first : width;
  if (here == width) {
    put(packed, vector_at(rows[0] + 4 * first));
    return;
  }
  put(packed, Vector{});
  if (here > 0) std::memcpy(packed, rows[0] + 4 * first, static_cast<std::size_t>(4 * here));
}

#ifdef __AVX512BF16__
__m512i low_halves(__m256i halves) { return _mm512_cvtepu16_epi32(halves); }
__m512i high_halves(__m256i halves) { return _mm512_slli_epi32(low_halves(halves), 16); }

void pack_weights(PairRows, Word* packed, const float* weights, Index n) {
  for (Index k = 0; k < n; k += 2) {
    const Vector first = vector_at(weights + k * width);
    const Vector second = k + 1 < n ? vector_at(weights + (k + 1) * width) : Vector{};
    put(packed + k / 2 * width,
        (Integers)_mm512_or_epi32(low_halves((__m256i)_mm512_cvtneps_pbh((__m512)first)),
                                  high_halves((__m256i)_mm512_cvtneps_pbh((__m512)second))));
  }
}

void pack_values(PairRows, Word* packed, const std::byte* const* rows, Index n, Index first,
                 Index channels) {
  const Index here = channels - first < width ? channels - first : width;
  const auto lanes = static_cast<__mmask16>(here > 0 ? (1u << here) - 1 : 0);
  const __m256i low = _mm256_maskz_loadu_epi16(lanes, rows[0] + 2 * first);
  const __m256i high =
      n > 1 ? _mm256_maskz_loadu_epi16(lanes, rows[1] + 2 * first) : _mm256_setzero_si256();
  put(packed, (Integers)_mm512_or_epi32(low_halves(low), high_halves(high)));
}
#endif

/// out[h][run] of `heads` heads: weights (steps, lanes) times values (steps, run_channels).
template <class A, int heads>
void sum_rows(float* out, Index stride, const Word* weights, const Word* values, Index steps) {
  Vector sums[heads][2] = {};
  for (Index i = 0; i < steps; ++i) {
    const Vector a = vector_at(values + i * run_channels);
    const Vector b = vector_at(values + i * run_channels + width);
#pragma GCC unroll 8
    for (int h = 0; h < heads; ++h) {
      sums[h][0] = A::add_product(sums[h][0], A::broadcast(weights + i * width + h), a);
      sums[h][1] = A::add_product(sums[h][1], A::broadcast(weights + i * width + h), b);
    }
  }
  for (int h = 0; h < heads; ++h) {
    put(out + h * stride, sums[h][0]);
    put(out + h * stride + width, sums[h][1]);
  }
}

template <class A>
void attend(Partial partial, const ChunkIn& in, std::byte* scratch) {
  const ChunkShape& shape = in.shape;
  const Word* const q = in.q;
  const std::byte* const* const rows = in.rows;
  const Index n = in.n, heads = in.heads;
  const Sizes size = sizes_of<A>(shape.key_channels, shape.value_channels, heads, n);
  const Index at = shape.key_first * static_cast<Index>(sizeof(typename A::Channel));
  const Index stride = padded(shape.value_channels);
  auto* const dots = reinterpret_cast<float*>(scratch);  // (keys, lanes)
  auto* const weights =
      reinterpret_cast<Word*>(dots + chunk_keys * width);     // (groups, steps, lanes)
  Word* const values = weights + chunk_keys * heads_at_once;  // (steps, run_channels)
  const Index group_weights = size.steps * width;
  for (Index group = 0; group < size.groups; ++group) {
    for (Index k = 0; k < n; k += tile_keys)
      counted<tile_keys>(n - k, [&]<int keys>() {
        // Rows are new to the caches in the first group of heads only.
        const Index later = group == 0 ? n - k - keys : 0;
        score_keys<A, keys>(dots + k * width, q + group * size.words * width, rows + k, at,
                            later < tile_keys ? later : tile_keys, size.words);
      });
    float m[width], l[width];
    const Index first = group * width;
    weigh(dots, in, first, m, l);
    for (Index i = 0; i < width && first + i < heads; ++i) {
      partial.m[first + i] = m[i];
      partial.l[first + i] = l[i];
    }
    pack_weights(A(), weights + group * group_weights, dots, n);
  }
  for (Index run = 0; run < size.runs; ++run) {
    const Index channel = run * run_channels;
    for (Index i = 0; i < size.steps; ++i)
      for (Index half = 0; half < run_channels; half += width)
        pack_values(A(), values + i * run_channels + half, rows + i * A::channels,
                    n - i * A::channels, channel + half, shape.value_channels);
    for (Index h = 0; h < heads; h += tile_heads)
      counted<tile_heads>(heads - h, [&]<int tile>() {
        sum_rows<A, tile>(partial.out + h * stride + channel, stride,
                          weights + h / width * group_weights + h % width, values, size.steps);
      });
  }
}

/// A row of e4m3: R values in runs of 128 with a scale each, then P bf16.
template <class A>
void widen_latent_e4m3(typename A::Channel* to, const std::byte* row, LatentShape shape) {
  constexpr Index scaled = 128;
  const Index scales = (shape.R + scaled - 1) / scaled;
  for (Index i = 0; i < scales; ++i) {
    const Index first = i * scaled, n = shape.R - first < scaled ? shape.R - first : scaled;
    float scale;
    std::memcpy(&scale, row + shape.R + 4 * i, 4);
    widen_e4m3<A>(to + first, reinterpret_cast<const std::uint8_t*>(row) + first, n, &scale);
  }
  A::widen_bf16(to + shape.R, row + shape.R + 4 * scales, shape.P);
  for (Index i = shape.R + shape.P; i < padded(shape.R + shape.P); ++i) to[i] = 0;
}

/// A channel that holds a bf16, as a bf16: one overload for each type of channel.
[[maybe_unused]] std::uint16_t bf16_of(std::uint16_t channel) { return channel; }
[[maybe_unused]] std::uint16_t bf16_of(float channel) {
  return static_cast<std::uint16_t>(__builtin_bit_cast(std::uint32_t, channel) >> 16);
}

}  // namespace

void pack_latent_query(std::uint32_t* packed, const std::byte* q, Index stride, LatentShape shape,
                       Index heads, std::byte* scratch) {
  with_arithmetic(shape.storage, [&](auto arithmetic) {
    using A = decltype(arithmetic);
    const Storage storage = shape.storage == Storage::f32 ? Storage::f32 : Storage::bf16;
    const Index channels = shape.R + shape.P;
    const Sizes size = sizes_of<A>(channels, 0, heads, 0);
    auto* const row = reinterpret_cast<typename A::Channel*>(scratch);
    for (Index n = 0; n < size.groups * width; ++n) {
      widen_row<A>(row, q + n * stride, storage, n < heads ? channels : 0);
      for (Index i = 0; i < size.words; ++i)
        packed[(n / width * size.words + i) * width + n % width] =
            n < heads ? reinterpret_cast<const Word*>(row)[i] : 0;
    }
  });
}

void widen_latent_rows(const std::byte** rows, Index n, LatentShape shape, std::byte* widened) {
  with_arithmetic(shape.storage, [&](auto arithmetic) {
    using A = decltype(arithmetic);
    using Channel = typename A::Channel;
    const Index channels = shape.R + shape.P;
    const bool ready = shape.storage == Storage::f32 ||
                       (shape.storage == Storage::bf16 && A::channels == 2 && channels % 2 == 0);
    if (ready) return;
    for (Index i = 0; i < n; ++i) {
      constexpr Index ahead = 3;
      if (i + ahead < n) prefetch(rows[i + ahead], bytes_of(shape.storage, channels));
      auto* const to = reinterpret_cast<Channel*>(widened) + i * padded(channels);
      if (shape.storage == Storage::e4m3)
        widen_latent_e4m3<A>(to, rows[i], shape);
      else
        widen_row<A>(to, rows[i], shape.storage, channels);
      rows[i] = reinterpret_cast<const std::byte*>(to);
    }
  });
}

void latent_row_as_bf16(std::uint16_t* to, const std::byte* row, LatentShape shape) {
  constexpr Index scaled_run = 128;
  const Index scales = (shape.R + scaled_run - 1) / scaled_run;
  for (Index i = 0; i < scales; ++i) {
    const Index first = i * scaled_run,
                n = shape.R - first < scaled_run ? shape.R - first : scaled_run;
    float scale;
    std::memcpy(&scale, row + shape.R + 4 * i, 4);
    Bf16Rows::Channel run[scaled_run];
    widen_e4m3<Bf16Rows>(run, reinterpret_cast<const std::uint8_t*>(row) + first, n, &scale);
    for (Index r = 0; r < n; ++r) to[first + r] = bf16_of(run[r]);
  }
  std::memcpy(to + shape.R, row + shape.R + 4 * scales, static_cast<std::size_t>(2 * shape.P));
}

void attend_chunk(Partial partial, const ChunkIn& in, std::byte* scratch) {
  with_arithmetic(in.shape.storage,
                  [&](auto arithmetic) { attend<decltype(arithmetic)>(partial, in, scratch); });
}

void add_chunk(Partial sums, Partial chunk, bool first, Index heads, Index R) {
  for (Index n = 0; n < heads; ++n) {
    float* const to = sums.out + n * R;
    const float* const from = chunk.out + n * padded(R);
    if (first) {
      std::memcpy(to, from, static_cast<std::size_t>(4 * R));
      sums.m[n] = chunk.m[n];
      sums.l[n] = chunk.l[n];
      continue;
    }
    const float largest = sums.m[n] > chunk.m[n] ? sums.m[n] : chunk.m[n];
    const float shift = largest == -__builtin_inff() ? 0 : largest;
    const float a = exponential(fill(sums.m[n] - shift))[0],
                b = exponential(fill(chunk.m[n] - shift))[0];
    for (Index r = 0; r < R; ++r) to[r] = to[r] * a + from[r] * b;
    sums.m[n] = largest;
    sums.l[n] = sums.l[n] * a + chunk.l[n] * b;
  }
}

}  // namespace dsa::cpu::DSA_TIER
