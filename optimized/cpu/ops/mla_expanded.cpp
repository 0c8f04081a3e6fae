// Why it is fast: the keys and values of a head are one matrix product of the latent rows, and then
// the queries of a tile are to the kernel of mla_dense what the heads of a query are there:
// lanes that share rows.
#include "optimized/cpu/ops/mla_expanded.hpp"

#include <omp.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>

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
    bytes = pieces.bytes() + omp_get_max_threads() * a_thread;
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
  // Of an exponent that is all ones, one more carries into the sign.
  constexpr std::uint32_t exponent = 0x7f800000u, one = 0x00800000u, sign = 0x80000000u;
  std::uint32_t carried = 0;
  for (Index r = 0; r < rows; ++r)
    for (Index i = 0; i < n; ++i)
      carried |= (std::bit_cast<std::uint32_t>(x[r * stride + i]) & exponent) + one;
  return (carried & sign) == 0;
}

/// Of every query of a tile, the rows of a chunk that it sees.
struct Views {
  alignas(64) std::int32_t begin[tile] = {}, end[tile] = {};
  Range all;         // that some query sees
  bool same = true;  // every query sees all of these, from the first of the chunk on

  Views(const Visible& visible, Index first, Index count, Range keys, Index start) {
    for (Index i = 0; i < count; ++i) {
      const Index b = std::max<Index>(visible.begin(first + i), keys.begin) - start,
                  e = std::min<Index>(visible.end(first + i), keys.end) - start;
      if (b >= e) continue;
      begin[i] = static_cast<std::int32_t>(b), end[i] = static_cast<std::int32_t>(e);
      all = all.end == 0 ? Range{b, e} : Range{std::min(all.begin, b), std::max(all.end, e)};
    }
    for (Index i = 0; i < count; ++i) same &= begin[i] == 0 && end[i] == all.end;
  }
};

template <class X, class Row>
class ExpandedAttention {
 public:
  ExpandedAttention(Cpu cpu, View<float, 3> out, View<float, 2> lse, View<const X, 3> q,
                    Pages<const Row> kv, std::span<const Matrix> w, Visible visible, double scale,
                    const Sizes& sizes, Scratch scratch)
      : cpu_(cpu),
        out_(out),
        lse_(lse),
        q_(q),
        kv_(kv),
        w_(w),
        visible_(visible),
        scale_(static_cast<float>(scale)),
        z_(sizes),
        memory_(scratch, sizes) {}

  void operator()() const {
    std::fill_n(memory_.zeros, z_.width(), X{});
    const Range all = range_of(visible_, 0, z_.T);
    for (Index start = all.begin / chunk_keys * chunk_keys; start < all.end; start += block_keys) {
      const Range keys{std::max(start, all.begin), std::min(start + block_keys, all.end)};
      read(keys);
      for (Index head = 0; head < z_.N; head += z_.heads()) {
        const Index heads = std::min(z_.heads(), z_.N - head);
        expand(keys, head, heads);
        const Index tiles = (z_.T + tile - 1) / tile;
        // The last queries see the most keys: begin with them, so that no thread ends alone.
#pragma omp parallel for schedule(dynamic)
        for (Index u = tiles * heads - 1; u >= 0; --u)
          attend(keys, u / heads * tile, head, u % heads);
      }
    }
#pragma omp parallel for schedule(static)
    for (Index t = 0; t < z_.T; ++t)
      for (Index n = 0; n < z_.N; ++n)
        lse_(t, n) = finish_sums(&out_(t, n, 0), z_.U, lse_(t, n), memory_.l[t * z_.N + n],
                                 {visible_.begin(t), visible_.end(t)});
  }

 private:
  /// Of key s of a block, in the order of the heads that are expanded.
  X* expanded_row(Index head, Range keys, Index s) const {
    const Index start = keys.begin / chunk_keys * chunk_keys;
    return memory_.expanded + (head * block_keys + s - start) * z_.width();
  }

  /// Latent rows of the keys, and their rotary channels to their places in the rows of every head.
  void read(Range keys) const {
    const LatentShape shape{storage_of<Row>, z_.R, z_.P};
#pragma omp parallel for schedule(static)
    for (Index s = keys.begin; s < keys.end; ++s) {
      X* const row = memory_.latent + (s - keys.begin) * (z_.R + z_.P);
      if constexpr (std::is_same_v<Row, e4m3>)
        latent_row_as_bf16_of[int(cpu_.tier)](&row->bits, bytes_at(kv_.row(s)), shape);
      else
        std::copy_n(kv_.row(s), z_.R + z_.P, row);
      for (Index head = 0; head < z_.heads(); ++head) {
        X* const rope = expanded_row(head, keys, s) + z_.key_first() + z_.B;
        std::fill(std::copy_n(row + z_.R, z_.P, rope), rope + padded(z_.B + z_.P) - z_.B, X{});
      }
    }
  }

  /// [v | k_nope] of heads [head, head + heads).
  void expand(Range keys, Index head, Index heads) const {
    for (Index i = 0; i < heads; ++i) {
      Product& p = *new (memory_.products + i) Product;
      p.x = memory_.latent, p.x_stride = z_.R + z_.P;
      p.rows = keys.end - keys.begin;
      p.w = &w_[static_cast<std::size_t>(head + i)];
      if constexpr (std::is_same_v<X, float>)
        p.y = expanded_row(i, keys, keys.begin);
      else
        p.y_bf16 = expanded_row(i, keys, keys.begin);
      p.y_stride = z_.width();
    }
    multiply(cpu_, {memory_.products, static_cast<std::size_t>(heads)}, memory_.threads);
  }

  void pack(std::uint32_t* to, Index t, Index n, Index count, std::byte* row) const {
    pack_latent_query_of[int(cpu_.tier)](to, bytes_at(&q_(t, n, 0)),
                                         z_.N * (z_.B + z_.P) * static_cast<Index>(sizeof(X)),
                                         {storage_of<X>, z_.B + z_.P, 0}, count, row);
  }

  /// Queries [first, first + tile) of one head against the keys.
  void attend(Range keys, Index first, Index head, Index i) const {
    const Index count = std::min(tile, z_.T - first), n = head + i;
    const Range seen = range_of(visible_, first, count);
    const Range mine{std::max(keys.begin, seen.begin), std::min(keys.end, seen.end)};
    if (mine.begin >= mine.end) return;
    Pieces pieces(memory_.threads.of_thread(omp_get_thread_num()));
    const TileMemory work(pieces, z_);
    pack(work.q, first, n, count, work.widened);
    for (Index chunk = chunks_of(mine).begin; chunk < chunks_of(mine).end; ++chunk) {
      const Index start = chunk * chunk_keys;
      const Views views(visible_, first, count, within(mine, chunk), start);
      const X* const row = expanded_row(i, keys, start);
      sum(work, work.partial, work.q, row, views.all,
          views.same ? Seen{} : Seen{views.begin, views.end}, count);
      // A value that is no finite number, times the weight 0 of a query that does not see it, is
      // NaN: such chunks are summed again for every query by itself.
      if (!views.same && !all_finite(work.partial.out, count, z_.U, padded(z_.U)))
        for (Index t = 0; t < count; ++t) sum_alone(work, views, row, first, n, t);
      for (Index t = 0; t < count; ++t)
        if (views.end[t] > 0) add(work.partial, first, n, t, chunk);
    }
  }

  /// `row`: of the first key of the chunk. Keys outside `all`, which nobody sees, are zeros: pairs
  /// of keys lie where they do for everybody else.
  void sum(const TileMemory& work, Partial partial, const std::uint32_t* q, const X* row, Range all,
           Seen seen, Index count) const {
    const std::byte* rows[chunk_keys];
    for (Index s = 0; s < all.end; ++s)
      rows[s] = bytes_at(s < all.begin ? memory_.zeros : row + s * z_.width());
    widen_latent_rows_of[int(cpu_.tier)](rows, all.end, {storage_of<X>, z_.width(), 0},
                                         work.widened);
    attend_chunk_of[int(cpu_.tier)](partial, q, rows, all.end, seen, scale_,
                                    {storage_of<X>, z_.key_first(), z_.B + z_.P, z_.U}, count,
                                    work.chunk);
  }

  static Partial partial_of(Partial p, Index t, Index stride) {
    return {p.out + t * stride, p.m + t, p.l + t};
  }

  void sum_alone(const TileMemory& work, const Views& views, const X* row, Index first, Index n,
                 Index t) const {
    if (views.end[t] == 0) return;
    pack(work.one, first + t, n, 1, work.widened);
    alignas(64) std::int32_t begin[tile] = {views.begin[t]}, end[tile] = {views.end[t]};
    sum(work, partial_of(work.partial, t, padded(z_.U)), work.one, row,
        {views.begin[t], views.end[t]}, {begin, end}, 1);
  }

  void add(Partial partial, Index first, Index n, Index t, Index chunk) const {
    const bool is_first = chunk == visible_.begin(first + t) / chunk_keys;
    add_chunk_of[int(cpu_.tier)](&out_(first + t, n, 0), &lse_(first + t, n),
                                 memory_.l + (first + t) * z_.N + n,
                                 partial_of(partial, t, padded(z_.U)), is_first, 1, z_.U);
  }

  Cpu cpu_;
  View<float, 3> out_;
  View<float, 2> lse_;
  View<const X, 3> q_;
  Pages<const Row> kv_;
  std::span<const Matrix> w_;
  Visible visible_;
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
void mla_expanded(Cpu cpu, View<float, 3> out, View<float, 2> lse, View<const X, 3> q,
                  Pages<const Row> kv, std::span<const Matrix> w, Visible visible, double scale,
                  Scratch scratch) {
  const Index T = q.shape[0], N = q.shape[1], U = out.shape[2];
  expect_shape("out", out, {T, N, U});
  expect_shape("lse", lse, {T, N});
  expect_visible(visible, T, kv.rows);
  expect_alike<X>(w, N);
  if (T == 0 || N == 0) return;
  const Index R = w[0].in(), B = w[0].out() - value_rows(U), P = q.shape[2] - B;
  const Index width = std::is_same_v<Row, e4m3> ? fp8_latent_bytes(R, P) : R + P;
  if (!(B >= 0 && P >= 0 && kv.width == width))
    throw Error("kv has rows of " + std::to_string(kv.width) + " and q of " +
                std::to_string(q.shape[2]) + ", which disagree with matrices of shape " +
                to_string<2>({w[0].out(), R}) + " and values of " + std::to_string(U));
  ExpandedAttention<X, Row>(cpu, out, lse, q, kv, w, visible, scale, {T, N, R, P, B, U}, scratch)();
}

template <class X>
Index mla_expanded_scratch(Index T, Index N, Index R, Index P, Index B, Index U) {
  return Memory<X>({}, {T, N, R, P, B, U}).bytes;
}

template Index mla_expanded_scratch<float>(Index, Index, Index, Index, Index, Index);
template Index mla_expanded_scratch<bf16>(Index, Index, Index, Index, Index, Index);

#define DSA_INSTANTIATE(X, Row)                                                     \
  template void mla_expanded(Cpu, View<float, 3>, View<float, 2>, View<const X, 3>, \
                             Pages<const Row>, std::span<const Matrix>, Visible, double, Scratch);
DSA_INSTANTIATE(float, float)
DSA_INSTANTIATE(bf16, bf16)
DSA_INSTANTIATE(bf16, e4m3)

}  // namespace dsa::cpu
