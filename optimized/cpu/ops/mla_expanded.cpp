// Why it is fast: the keys and values of a head are one matrix product of the latent rows, and then
// the queries of a tile are to the kernel of mla_dense what the heads of a query are there:
// lanes that share rows.
#include "optimized/cpu/ops/mla_expanded.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>

#include "core/threads.hpp"
#include "optimized/cpu/ops/latent_attention.hpp"
#include "optimized/cpu/ops/products.hpp"

namespace dsa::cpu {
namespace {

constexpr Index block_keys = 4 * chunk_keys;  // expanded at a time
constexpr Index block_heads = 16;             // of so many heads
constexpr Index tile = heads_at_once;         // queries that share the rows of a chunk

struct Sizes {
  Index T, N, R, P, B, U;
  Index heads() const { return std::min(N, block_heads); }
  Index key_first() const { return value_rows(U); }
  Index width() const { return key_first() + padded(B + P); }  // of an expanded row
};

/// Memory of a thread for a tile.
struct TileMemory {
  TileMemory(Pieces& pieces, const Sizes& z)
      : q(pieces.take<std::uint32_t>(latent_query_bytes(tile, z.B + z.P, 0) / 4)),
        one(pieces.take<std::uint32_t>(latent_query_bytes(1, z.B + z.P, 0) / 4)),
        widened(pieces.take_bytes(latent_rows_bytes(z.width(), 0))),
        chunk(pieces.take_bytes(latent_chunk_bytes)),
        partial{pieces.take<float>(tile * padded(z.U)), pieces.take<float>(tile),
                pieces.take<float>(tile)} {}

  std::uint32_t *q, *one;  // queries of the tile, packed; one of them
  std::byte* widened;      // rows of a chunk
  std::byte* chunk;
  Partial partial;
};

/// Memory of a pass: of all threads, and then a piece for each.
template <class X>
struct Memory {
  Memory(Scratch scratch, const Sizes& z) {
    Pieces pieces(scratch.data);
    l = pieces.take<float>(z.T * z.N);
    latent = pieces.take<X>(block_keys * (z.R + z.P));
    expanded = pieces.take<X>(z.heads() * block_keys * z.width());
    zeros = pieces.take<X>(z.width());
    products = pieces.take<Product>(z.heads());
    Pieces of_tile;
    TileMemory(of_tile, z);
    const Index a_thread = std::max(of_tile.bytes(), (linear_scratch(z.R) + 63) / 64 * 64);
    bytes = pieces.bytes() + dsa::threads() * a_thread;
    threads = {scratch.data ? scratch.data + pieces.bytes() : nullptr, a_thread};
  }

  float* l;           // (T, N): of all chunks so far; lse holds m meanwhile
  X* latent;          // (block_keys, R+P)
  X* expanded;        // (heads, block_keys, width): v, k_nope, k_rope, with zeros behind v and k
  X* zeros;           // (width)
  Product* products;  // (heads)
  Scratch threads;
  Index bytes;
};

bool all_finite(const float* x, Index rows, Index n, Index stride) {
  // One added to an exponent that is all ones carries into the sign.
  constexpr std::uint32_t exponent = 0x7f800000u, one = 0x00800000u, sign = 0x80000000u;
  std::uint32_t carried = 0;
  for (Index r = 0; r < rows; ++r)
    for (Index i = 0; i < n; ++i)
      carried |= (std::bit_cast<std::uint32_t>(x[r * stride + i]) & exponent) + one;
  return (carried & sign) == 0;
}

/// The rows of a chunk that each query of a tile sees.
struct RowsSeen {
  alignas(64) std::int32_t begin[tile] = {}, end[tile] = {};
  KeyRange all;      // that some query sees
  bool same = true;  // every query sees all of these, from the first of the chunk on

  RowsSeen(const KeyRanges& visible, Index first, Index count, KeyRange keys, Index start) {
    for (Index i = 0; i < count; ++i) {
      const KeyRange seen = common(visible[first + i], keys);
      if (seen.empty()) continue;
      begin[i] = static_cast<std::int32_t>(seen.begin - start);
      end[i] = static_cast<std::int32_t>(seen.end - start);
      all = joined(all, {begin[i], end[i]});
    }
    for (Index i = 0; i < count; ++i) same &= begin[i] == 0 && end[i] == all.end;
  }
};

/// Some queries of one head, packed, and where their sums go.
struct TileQueries {
  const std::uint32_t* q;
  const std::int32_t *begin, *end;  // the rows of the chunk that each sees; null: all
  Index count;
  Partial partial;
};

template <class X, class Row>
class ExpandedAttention {
 public:
  ExpandedAttention(Cpu cpu, MlaOut y, const MlaExpandedIn<X, Row>& in, const Sizes& sizes,
                    Scratch scratch)
      : cpu_(cpu),
        y_(y),
        in_(in),
        scale_(static_cast<float>(in.scale)),
        z_(sizes),
        memory_(scratch, sizes) {}

  void operator()() const {
    std::fill_n(memory_.zeros, z_.width(), X{});
    const KeyRange all = range_of(in_.visible, 0, z_.T);
    for (Index start = all.begin / chunk_keys * chunk_keys; start < all.end; start += block_keys) {
      const KeyRange keys = common(all, {start, start + block_keys});
      read(keys);
      for (Index head = 0; head < z_.N; head += z_.heads()) {
        const Index heads = std::min(z_.heads(), z_.N - head);
        expand(keys, head, heads);
        const Index tiles = (z_.T + tile - 1) / tile;
        // The last queries see the most keys: begin with them, so that no thread ends alone.
        parallel_for(tiles * heads, tile * (keys.end - keys.begin) * (z_.B + z_.P + z_.U) / 16,
                     [&](Index back, int thread) {
                       const Index u = tiles * heads - 1 - back;
                       attend(keys, u / heads * tile, head, u % heads, thread);
                     });
      }
    }
    parallel_for(z_.T, z_.N * z_.U / 4, [&](Index t) {
      for (Index n = 0; n < z_.N; ++n)
        y_.lse(t, n) = finish_sums(&y_.out(t, n, 0), z_.U, y_.lse(t, n), memory_.l[t * z_.N + n],
                                   in_.visible[t]);
    });
  }

 private:
  /// The row of key s, for the head-th of the heads that are expanded.
  X* expanded_row(Index head, KeyRange keys, Index s) const {
    const Index start = keys.begin / chunk_keys * chunk_keys;
    return memory_.expanded + (head * block_keys + s - start) * z_.width();
  }

  /// Latent rows of the keys, and their rotary channels to their places in the rows of every head.
  void read(KeyRange keys) const {
    const LatentShape shape{storage_of<Row>, z_.R, z_.P};
    parallel_for(keys.end - keys.begin, z_.R + z_.P * z_.heads(), [&](Index at) {
      const Index s = keys.begin + at;
      X* const row = memory_.latent + (s - keys.begin) * (z_.R + z_.P);
      if constexpr (std::is_same_v<Row, e4m3>)
        latent_row_as_bf16_of[int(cpu_.tier)](&row->bits, bytes_at(in_.kv.row(s)), shape);
      else
        std::copy_n(in_.kv.row(s), z_.R + z_.P, row);
      for (Index head = 0; head < z_.heads(); ++head) {
        X* const rope = expanded_row(head, keys, s) + z_.key_first() + z_.B;
        std::fill(std::copy_n(row + z_.R, z_.P, rope), rope + padded(z_.B + z_.P) - z_.B, X{});
      }
    });
  }

  /// [v | k_nope] of heads [head, head + heads).
  void expand(KeyRange keys, Index head, Index heads) const {
    for (Index i = 0; i < heads; ++i) {
      Product& p = *new (memory_.products + i) Product;
      p.x = memory_.latent;
      p.x_stride = z_.R + z_.P;
      p.rows = keys.size();
      p.w = &in_.w[static_cast<std::size_t>(head + i)];
      if constexpr (std::is_same_v<X, float>)
        p.y = expanded_row(i, keys, keys.begin);
      else
        p.y_bf16 = expanded_row(i, keys, keys.begin);
      p.y_stride = z_.width();
    }
    multiply(cpu_, {memory_.products, static_cast<std::size_t>(heads)}, memory_.threads);
  }

  void pack(std::uint32_t* to, Index t, Index n, Index count, std::byte* row) const {
    pack_latent_query_of[int(cpu_.tier)](to, bytes_at(&in_.q(t, n, 0)),
                                         z_.N * (z_.B + z_.P) * static_cast<Index>(sizeof(X)),
                                         {storage_of<X>, z_.B + z_.P, 0}, count, row);
  }

  /// Queries [first, first + tile) of one head against the keys.
  void attend(KeyRange keys, Index first, Index head, Index i, int thread) const {
    const Index count = std::min(tile, z_.T - first), n = head + i;
    const KeyRange mine = common(keys, range_of(in_.visible, first, count));
    if (mine.empty()) return;
    Pieces pieces(memory_.threads.of_thread(thread));
    const TileMemory work(pieces, z_);
    pack(work.q, first, n, count, work.widened);
    for (Index chunk = chunks_of(mine).begin; chunk < chunks_of(mine).end; ++chunk) {
      const Index start = chunk * chunk_keys;
      const RowsSeen seen(in_.visible, first, count, within(mine, chunk), start);
      const X* const row = expanded_row(i, keys, start);
      sum(work,
          {.q = work.q,
           .begin = seen.same ? nullptr : seen.begin,
           .end = seen.same ? nullptr : seen.end,
           .count = count,
           .partial = work.partial},
          row, seen.all);
      // A value that is no finite number, times the weight 0 of a query that does not see it, is
      // NaN: such chunks are summed again for every query by itself.
      if (!seen.same && !all_finite(work.partial.out, count, z_.U, padded(z_.U)))
        for (Index t = 0; t < count; ++t)
          sum_alone(work, {seen.begin[t], seen.end[t]}, row, {first, n, t});
      for (Index t = 0; t < count; ++t)
        if (seen.end[t] > 0) add(work.partial, first, n, t, chunk);
    }
  }

  /// `row`: of the first key of the chunk. Keys outside `all`, which nobody sees, are zeros: pairs
  /// of keys lie where they do for everybody else.
  void sum(const TileMemory& work, const TileQueries& queries, const X* row, KeyRange all) const {
    const std::byte* rows[chunk_keys];
    for (Index s = 0; s < all.end; ++s)
      rows[s] = bytes_at(s < all.begin ? memory_.zeros : row + s * z_.width());
    widen_latent_rows_of[int(cpu_.tier)](rows, all.end, {storage_of<X>, z_.width(), 0},
                                         work.widened);
    attend_chunk_of[int(cpu_.tier)](queries.partial,
                                    {.q = queries.q,
                                     .rows = rows,
                                     .n = all.end,
                                     .begin = queries.begin,
                                     .end = queries.end,
                                     .scale = scale_,
                                     .shape = {.storage = storage_of<X>,
                                               .key_first = z_.key_first(),
                                               .key_channels = z_.B + z_.P,
                                               .value_channels = z_.U},
                                     .heads = queries.count},
                                    work.chunk);
  }

  static Partial partial_of(Partial p, Index t, Index stride) {
    return {p.out + t * stride, p.m + t, p.l + t};
  }

  /// Query `first` + t of head n.
  struct QueryOfTile {
    Index first, n, t;
  };
  void sum_alone(const TileMemory& work, KeyRange seen, const X* row, QueryOfTile query) const {
    if (seen.end == 0) return;
    pack(work.one, query.first + query.t, query.n, 1, work.widened);
    alignas(64) const std::int32_t begin[tile] = {static_cast<std::int32_t>(seen.begin)};
    alignas(64) const std::int32_t end[tile] = {static_cast<std::int32_t>(seen.end)};
    sum(work,
        {.q = work.one,
         .begin = begin,
         .end = end,
         .count = 1,
         .partial = partial_of(work.partial, query.t, padded(z_.U))},
        row, seen);
  }

  void add(Partial partial, Index first, Index n, Index t, Index chunk) const {
    const bool is_first = chunk == in_.visible.begin(first + t) / chunk_keys;
    const Partial sums{&y_.out(first + t, n, 0), &y_.lse(first + t, n),
                       memory_.l + (first + t) * z_.N + n};
    add_chunk_of[int(cpu_.tier)](sums, partial_of(partial, t, padded(z_.U)), is_first, 1, z_.U);
  }

  Cpu cpu_;
  MlaOut y_;
  MlaExpandedIn<X, Row> in_;
  float scale_;
  Sizes z_;
  Memory<X> memory_;
};

/// A matrix for every head, all of one shape.
template <class X>
void expect_alike(std::span<const Matrix> w, Index N) {
  constexpr Dtype dtype = std::is_same_v<X, float> ? Dtype::f32 : Dtype::bf16;
  if (!(static_cast<Index>(w.size()) == N))
    throw Error("there are " + std::to_string(w.size()) + " matrices, expected one for each of " +
                std::to_string(N) + " heads");
  for (const Matrix& one : w)
    if (!(one.dtype() == dtype && one.out() == w[0].out() && one.in() == w[0].in()))
      throw Error("the matrix of a head is " + std::string(name_of(one.dtype())) + " of shape " +
                  to_string<2>({one.out(), one.in()}) + ", expected " +
                  std::string(name_of(dtype)) + " of shape " +
                  to_string<2>({w[0].out(), w[0].in()}));
}

}  // namespace

Matrix expansion_of(Cpu cpu, View<const float, 2> kv_b, Index B, Dtype dtype) {
  const Index U = kv_b.shape[0] - B, R = kv_b.shape[1];
  Tensor<float, 2> both({value_rows(U) + B, R});
  std::copy_n(kv_b.data + B * R, U * R, both.data());
  std::copy_n(kv_b.data, B * R, both.data() + value_rows(U) * R);
  return {cpu, both, dtype};
}

template <class X, class Row>
void mla_expanded(Cpu cpu, MlaOut y, const MlaExpandedIn<X, Row>& in, Scratch scratch) {
  const Index T = in.q.shape[0], N = in.q.shape[1], U = y.out.shape[2];
  expect_shape("out", y.out, {T, N, U});
  expect_shape("lse", y.lse, {T, N});
  expect_visible(in.visible, T, in.kv.rows);
  expect_alike<X>(in.w, N);
  if (T == 0 || N == 0) return;
  const Matrix& w = in.w[0];
  const Index R = w.in(), B = w.out() - value_rows(U), P = in.q.shape[2] - B;
  const Index width = std::is_same_v<Row, e4m3> ? fp8_latent_bytes(R, P) : R + P;
  if (!(B >= 0 && P >= 0 && in.kv.width == width))
    throw Error("kv has rows of " + std::to_string(in.kv.width) + " and q of " +
                std::to_string(in.q.shape[2]) + ", which disagree with matrices of shape " +
                to_string<2>({w.out(), R}) + " and values of " + std::to_string(U));
  const Sizes sizes{.T = T, .N = N, .R = R, .P = P, .B = B, .U = U};
  ExpandedAttention<X, Row>(cpu, y, in, sizes, scratch)();
}

template <class X>
Index mla_expanded_scratch(Index T, Index N, Index R, Index P, Index B, Index U) {
  return Memory<X>({}, {T, N, R, P, B, U}).bytes;
}

template Index mla_expanded_scratch<float>(Index, Index, Index, Index, Index, Index);
template Index mla_expanded_scratch<bf16>(Index, Index, Index, Index, Index, Index);

#define DSA_INSTANTIATE(X, Row) \
  template void mla_expanded(Cpu, MlaOut, const MlaExpandedIn<X, Row>&, Scratch);
DSA_INSTANTIATE(float, float)
DSA_INSTANTIATE(bf16, bf16)
DSA_INSTANTIATE(bf16, e4m3)

}  // namespace dsa::cpu
