// optimized/cpu/ops/latent_attention.hpp — mla_sparse and mla_dense: chunks of keys over threads.
//
// `Keys` says which keys a query sees as positions, cut into chunks at multiples of 128:
//   list(t, thread's memory)  made ready for query t (the chosen keys)
//   range(t)                  the positions of query t
//   row(position)             the address of a row
// With at least as many queries (times groups of heads) as threads, each thread takes some of them
// whole, in blocks of queries that share the rows of a chunk. With fewer, the threads take the
// chunks of one query, a wave of one chunk a thread at a time, and add them up in ascending order,
// each thread for some of the heads. Both ways compute the same function of the same chunks.
#pragma once

#include <cmath>
#include <limits>

#include "core/threads.hpp"
#include "optimized/cpu/kernels/latent_attention.hpp"
#include "optimized/cpu/ops/mla.hpp"
#include "optimized/cpu/ops/scratch.hpp"
#include "optimized/cpu/ops/stored.hpp"
#include "optimized/cpu/ops/tier.hpp"
#include "optimized/shared/pieces.hpp"

namespace dsa::cpu {

/// Chunks that hold keys of a range, and the keys of one of them.
inline KeyRange chunks_of(KeyRange keys) {
  if (keys.empty()) return {};
  return {keys.begin / chunk_keys, (keys.end + chunk_keys - 1) / chunk_keys};
}
inline KeyRange within(KeyRange keys, Index chunk) {
  return common(keys, {chunk * chunk_keys, (chunk + 1) * chunk_keys});
}

/// Sums over all chunks of `keys` become their mean (n channels). Returns the logarithm of l.
inline float finish_sums(float* out, Index n, float m, float l, KeyRange keys) {
  const bool none = keys.empty();
  const float reciprocal = 1 / l;
  for (Index i = 0; i < n; ++i) out[i] = none ? 0 : out[i] * reciprocal;
  return none ? -std::numeric_limits<float>::infinity()
              : static_cast<float>(m + std::log(static_cast<double>(l)));
}

/// A thread's memory for a block of queries.
struct LatentWorkspace {
  LatentWorkspace(Pieces& pieces, Index block, Index N, Index R, Index P)
      : heads(std::min(N, heads_at_once)),
        query_words(latent_query_bytes(heads, R, P) / 4),
        q(pieces.take<std::uint32_t>(block * query_words)),
        widened(pieces.take_bytes(latent_rows_bytes(R, P))),
        chunk(pieces.take_bytes(latent_chunk_bytes)),
        partial{pieces.take<float>(heads * padded(R)), pieces.take<float>(heads),
                pieces.take<float>(heads)},
        m(pieces.take<float>(block * heads)),
        l(pieces.take<float>(block * heads)) {}

  Index heads, query_words;
  std::uint32_t* q;    // a block of packed queries
  std::byte* widened;  // rows of a chunk
  std::byte* chunk;
  Partial partial;
  float *m, *l;  // (block, heads): of all chunks so far
};

/// Queries [first, first + count), heads [head, head + heads).
struct LatentUnit {
  Index first, count, head, heads;
};

template <class Q, class Row, class Keys>
class LatentAttention {
 public:
  LatentAttention(Cpu cpu, MlaOut y, const MlaIn<Q, Row>& in, Keys keys, Index block,
                  Scratch scratch)
      : y_(y),
        q_(in.q),
        keys_(keys),
        scale_(static_cast<float>(in.scale)),
        block_(block),
        scratch_(scratch),
        shape_{storage_of<Row>, y.out.shape[2], in.q.shape[2] - y.out.shape[2]},
        pack_(pack_latent_query_of[int(cpu.tier)]),
        widen_(widen_latent_rows_of[int(cpu.tier)]),
        attend_(attend_chunk_of[int(cpu.tier)]),
        add_(add_chunk_of[int(cpu.tier)]) {}

  void operator()() const {
    const Index T = q_.shape[0], N = q_.shape[1];
    const Index head_groups = (N + heads_at_once - 1) / heads_at_once;
    const Index group_ns = query_ns() / std::max<Index>(head_groups, 1);
    const Index parts = threads_for(T * head_groups * group_ns);
    const bool alone = T * head_groups >= parts;
    const Index count = alone ? std::clamp<Index>(T * head_groups / parts, 1, block_) : 1;
    const Index units = (T + count - 1) / count * head_groups;
    const auto unit_of = [&](Index u) {
      const Index first = u / head_groups * count, head = u % head_groups * heads_at_once;
      return LatentUnit{first, std::min(count, T - first), head, std::min(heads_at_once, N - head)};
    };
    if (alone) {
      // The last queries see the most keys: begin with them, so that no thread ends alone.
      parallel_for(units, count * group_ns, [&](Index back, int thread) {
        attend_alone(unit_of(units - 1 - back), thread);
      });
    } else {
      for (Index u = 0; u < units; ++u) attend_together(unit_of(u), parts);
    }
  }

 private:
  /// About how long the first or the last query takes, whichever sees more keys.
  Index query_ns() const {
    Index keys = 0;
    for (Index t = 0; t < q_.shape[0]; t = std::max(t + 1, q_.shape[0] - 1))
      keys = std::max(keys, keys_.most(t));
    return keys * q_.shape[1] * (2 * shape_.R + shape_.P) / 16;
  }

  LatentWorkspace workspace(int thread, Pieces& pieces) const {
    pieces = Pieces(scratch_.of_thread(thread));
    return LatentWorkspace(pieces, block_, q_.shape[1], shape_.R, shape_.P);
  }

  ChunkShape chunk_shape() const { return {shape_.storage, 0, shape_.R + shape_.P, shape_.R}; }
  /// The smallest range that holds those of a unit's queries.
  KeyRange range_of_unit(const Keys& keys, const LatentUnit& unit) const {
    KeyRange all;
    for (Index t = unit.first; t < unit.first + unit.count; ++t) all = joined(all, keys.range(t));
    return all;
  }

  void pack(const LatentWorkspace& work, const LatentUnit& unit) const {
    for (Index i = 0; i < unit.count; ++i) {
      const Index row = (unit.first + i) * q_.shape[1] + unit.head;
      pack_(work.q + i * work.query_words, bytes_at(q_.data + row * q_.shape[2]),
            q_.shape[2] * static_cast<Index>(sizeof(Q)), shape_, unit.heads, work.widened);
    }
  }

  /// Rows [at.begin, at.end) made ready.
  void find(const LatentWorkspace& work, const Keys& keys, KeyRange at,
            const std::byte** rows) const {
    for (Index s = at.begin; s < at.end; ++s) rows[s - at.begin] = keys.row(s);
    widen_(rows, at.end - at.begin, shape_, work.widened);
  }

  /// The heads of a unit for one query, whose rows have been found.
  void attend(const LatentWorkspace& work, const LatentUnit& unit, const std::uint32_t* q,
              const std::byte* const* rows, Index n) const {
    attend_(work.partial,
            {.q = q,
             .rows = rows,
             .n = n,
             .scale = scale_,
             .shape = chunk_shape(),
             .heads = unit.heads},
            work.chunk);
  }

  void attend_alone(const LatentUnit& unit, int thread) const {
    Pieces pieces;
    const LatentWorkspace work = workspace(thread, pieces);
    Keys keys = keys_;
    keys.list(unit.first, pieces);
    pack(work, unit);
    const KeyRange all = range_of_unit(keys, unit);
    for (Index chunk = chunks_of(all).begin; chunk < chunks_of(all).end; ++chunk) {
      const KeyRange at = within(all, chunk);
      const std::byte* rows[chunk_keys];
      find(work, keys, at, rows);
      for (Index i = 0; i < unit.count; ++i) {
        const Index t = unit.first + i;
        const KeyRange mine = within(keys.range(t), chunk);
        if (mine.empty()) continue;
        attend(work, unit, work.q + i * work.query_words, rows + (mine.begin - at.begin),
               mine.size());
        add_({&y_.out(t, unit.head, 0), work.m + i * work.heads, work.l + i * work.heads},
             work.partial, chunk == chunks_of(keys.range(t)).begin, unit.heads, shape_.R);
      }
    }
    for (Index i = 0; i < unit.count; ++i)
      for (Index h = 0; h < unit.heads; ++h)
        finish(unit.first + i, unit.head + h, work.m[i * work.heads + h],
               work.l[i * work.heads + h], keys.range(unit.first + i));
  }

  /// The unit is one query, whose chunks are computed in waves, one chunk in each of `parts` pieces
  /// of the scratch.
  void attend_together(const LatentUnit& unit, Index parts) const {
    Pieces pieces;
    const LatentWorkspace total = workspace(0, pieces);
    Keys keys = keys_;
    keys.list(unit.first, pieces);
    pack(total, unit);
    const KeyRange mine = keys.range(unit.first), chunks = chunks_of(mine);
    const Index chunk_ns = chunk_keys * unit.heads * (2 * shape_.R + shape_.P) / 16;
    for (Index wave = chunks.begin; wave < chunks.end; wave += parts) {
      const Index ready = std::min(parts, chunks.end - wave);
      parallel_for(ready, chunk_ns, [&](Index part) {
        Pieces part_pieces;
        const LatentWorkspace work = workspace(static_cast<int>(part), part_pieces);
        const KeyRange at = within(mine, wave + part);
        const std::byte* rows[chunk_keys];
        find(work, keys, at, rows);
        attend(work, unit, total.q, rows, at.size());
      });
      parallel_for(unit.heads, ready * shape_.R / 4, [&](Index h) {
        for (Index part = 0; part < ready; ++part) {
          Pieces part_pieces;
          const Partial partial = workspace(static_cast<int>(part), part_pieces).partial;
          add_({&y_.out(unit.first, unit.head + h, 0), total.m + h, total.l + h},
               {partial.out + h * padded(shape_.R), partial.m + h, partial.l + h},
               wave + part == chunks.begin, 1, shape_.R);
        }
      });
    }
    for (Index h = 0; h < unit.heads; ++h)
      finish(unit.first, unit.head + h, total.m[h], total.l[h], mine);
  }

  void finish(Index t, Index n, float m, float l, KeyRange keys) const {
    y_.lse(t, n) = finish_sums(&y_.out(t, n, 0), shape_.R, m, l, keys);
  }

  MlaOut y_;
  View<const Q, 3> q_;
  Keys keys_;
  float scale_;
  Index block_;
  Scratch scratch_;
  LatentShape shape_;
  PackLatentQuery* pack_;
  WidenLatentRows* widen_;
  AttendChunk* attend_;
  AddChunk* add_;
};

/// Error: the shapes of an attention in absorbed form disagree.
template <class Q, class Row>
void expect_latent(MlaOut y, const MlaIn<Q, Row>& in) {
  const Index T = in.q.shape[0], N = in.q.shape[1], R = y.out.shape[2], P = in.q.shape[2] - R;
  expect_shape("out", y.out, {T, N, R});
  expect_shape("lse", y.lse, {T, N});
  if (!(R > 0 && P >= 0))
    throw Error("out has " + std::to_string(R) + " channels, expected 1 to " +
                std::to_string(in.q.shape[2]) + ", those of q");
  const Index width = std::is_same_v<Row, e4m3> ? fp8_latent_bytes(R, P) : R + P;
  if (!(in.kv.width == width))
    throw Error("kv has rows of " + std::to_string(in.kv.width) + ", expected " +
                std::to_string(width));
}

}  // namespace dsa::cpu
