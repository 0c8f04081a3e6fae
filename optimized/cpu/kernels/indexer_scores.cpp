#include "optimized/cpu/kernels/indexer_scores.hpp"

#include "optimized/cpu/kernels/arithmetic.hpp"
#include "optimized/cpu/kernels/counted.hpp"

namespace dsa::cpu::DSA_TIER {
namespace {

// Sums kept in registers: heads x vectors of keys.
#if defined(__AVX512F__)
constexpr int tile_heads = 8, tile_vectors = 3;
#elif defined(__AVX2__)
constexpr int tile_heads = 4, tile_vectors = 3;
#else
constexpr int tile_heads = 4, tile_vectors = 2;
#endif

template <class A>
Index words_of(Index D) {
  return (D + A::channels - 1) / A::channels;
}

/// Word i of 16 rows to packed[48 i ..]. Rows have whole runs of 16 words.
void transpose_16(Word* packed, const Word* const* rows, Index words) {
#ifdef __AVX512F__
  for (Index i = 0; i < words; i += 16) {
    __m512i x[16], y[16];
    for (int r = 0; r < 16; ++r) x[r] = _mm512_loadu_si512(rows[r] + i);
    for (int r = 0; r < 16; r += 2) {
      y[r] = _mm512_unpacklo_epi32(x[r], x[r + 1]);
      y[r + 1] = _mm512_unpackhi_epi32(x[r], x[r + 1]);
    }
    // x[4 g + c]: in its quarter q of 128 bits, words 4 q + c of rows 4 g to 4 g + 3.
    for (int g = 0; g < 16; g += 4)
      for (int c = 0; c < 2; ++c) {
        x[g + 2 * c] = _mm512_unpacklo_epi64(y[g + c], y[g + 2 + c]);
        x[g + 2 * c + 1] = _mm512_unpackhi_epi64(y[g + c], y[g + 2 + c]);
      }
    for (int c = 0; c < 4; ++c) {
      const __m512i even_low = _mm512_shuffle_i32x4(x[c], x[4 + c], 0x88),
                    odd_low = _mm512_shuffle_i32x4(x[c], x[4 + c], 0xdd),
                    even_high = _mm512_shuffle_i32x4(x[8 + c], x[12 + c], 0x88),
                    odd_high = _mm512_shuffle_i32x4(x[8 + c], x[12 + c], 0xdd);
      Word* const to = packed + (i + c) * panel_keys;
      _mm512_storeu_si512(to, _mm512_shuffle_i32x4(even_low, even_high, 0x88));
      _mm512_storeu_si512(to + 4 * panel_keys, _mm512_shuffle_i32x4(odd_low, odd_high, 0x88));
      _mm512_storeu_si512(to + 8 * panel_keys, _mm512_shuffle_i32x4(even_low, even_high, 0xdd));
      _mm512_storeu_si512(to + 12 * panel_keys, _mm512_shuffle_i32x4(odd_low, odd_high, 0xdd));
    }
  }
#else
  for (Index i = 0; i < words; ++i)
    for (Index row = 0; row < 16; ++row) packed[i * panel_keys + row] = rows[row][i];
#endif
}

/// Adds `heads` heads to the scores of a panel; q is (words, heads).
template <class A, int heads>
void add_heads(float* scores, const Word* q, const Word* keys, Index words, const float* w,
               bool relu) {
  for (Index first = 0; first < panel_keys; first += tile_vectors * width) {
    Vector sums[heads][tile_vectors] = {};
    for (Index i = 0; i < words; ++i) {
      Vector key[tile_vectors];
#pragma GCC unroll 4
      for (int v = 0; v < tile_vectors; ++v)
        key[v] = vector_at(keys + i * panel_keys + first + v * width);
#pragma GCC unroll 8
      for (int h = 0; h < heads; ++h)
#pragma GCC unroll 4
        for (int v = 0; v < tile_vectors; ++v)
          sums[h][v] = A::add_product(sums[h][v], A::broadcast(q + i * heads + h), key[v]);
    }
#pragma GCC unroll 4
    for (int v = 0; v < tile_vectors; ++v) {
      Vector total = vector_at(scores + first + v * width);
#pragma GCC unroll 8
      for (int h = 0; h < heads; ++h)
        total = fused(fill(w[h]), relu ? rectified(sums[h][v]) : sums[h][v], total);
      put(scores + first + v * width, total);
    }
  }
}

}  // namespace

void pack_index_query(std::uint32_t* packed, const std::byte* q, IndexShape shape,
                      std::byte* scratch) {
  const Storage storage = shape.storage;
  const Index H = shape.H, D = shape.D;
  with_arithmetic(storage, [&](auto arithmetic) {
    using A = decltype(arithmetic);
    const Index words = words_of<A>(D);
    auto* const row = reinterpret_cast<typename A::Channel*>(scratch);
    for (Index h = 0; h < H; ++h) {
      widen_row<A>(row, q + h * bytes_of(storage, D), storage, D);
      const Index group = h / tile_heads * tile_heads;
      const Index heads = H - group < tile_heads ? H - group : tile_heads;
      for (Index i = 0; i < words; ++i)
        packed[group * words + i * heads + h - group] = reinterpret_cast<const Word*>(row)[i];
    }
  });
}

void pack_index_keys(std::uint32_t* packed, float* scales, const std::byte* const* rows, Index n,
                     IndexShape shape, std::byte* scratch) {
  const Storage storage = shape.storage;
  const Index D = shape.D;
  with_arithmetic(storage, [&](auto arithmetic) {
    using A = decltype(arithmetic);
    using Channel = typename A::Channel;
    const bool ready = padded(D) == D && bytes_of(storage, 1) == sizeof(Channel);
    for (Index first = 0; first < panel_keys; first += 16) {
      const Word* words[16];
      for (Index row = 0; row < 16; ++row) {
        auto* const to = reinterpret_cast<Channel*>(scratch) + row * padded(D);
        const std::byte* const from = first + row < n ? rows[first + row] : nullptr;
        if (from && ready) {
          words[row] = reinterpret_cast<const Word*>(from);
          continue;
        }
        if (from)
          widen_row<A>(to, from, storage, D);
        else
          std::memset(to, 0, static_cast<std::size_t>(padded(D)) * sizeof *to);
        words[row] = reinterpret_cast<const Word*>(to);
      }
      transpose_16(packed + first, words, padded(D) / A::channels);
    }
  });
  for (Index i = 0; i < panel_keys; ++i) {
    scales[i] = 1;
    if (storage == Storage::e4m3 && i < n) std::memcpy(scales + i, rows[i] + D, 4);
  }
}

void score_panel(float* scores, const ScorePanelIn& in) {
  const Storage storage = in.shape.storage;
  const Index H = in.shape.H, D = in.shape.D;
  for (Index i = 0; i < panel_keys; ++i) scores[i] = 0;
  with_arithmetic(storage, [&](auto arithmetic) {
    using A = decltype(arithmetic);
    const Index words = words_of<A>(D);
    for (Index h = 0; h < H; h += tile_heads)
      counted<tile_heads>(H - h, [&]<int heads>() {
        add_heads<A, heads>(scores, in.q + h * words, in.keys, words, in.w + h, in.relu);
      });
  });
  if (storage == Storage::e4m3)
    for (Index i = 0; i < panel_keys; ++i) scores[i] *= in.scales[i];
}

}  // namespace dsa::cpu::DSA_TIER
