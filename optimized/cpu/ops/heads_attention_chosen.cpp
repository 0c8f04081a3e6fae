#include <cmath>
#include <limits>
#include <utility>

#include "core/threads.hpp"
#include "optimized/cpu/ops/heads_blocks.hpp"
#include "optimized/cpu/ops/interleaved.hpp"
#include "optimized/shared/pieces.hpp"

namespace dsa::cpu {
namespace {

using Chosen = View<const std::int32_t, 2>;

/// Queries whose weights are kept before they are added to the keys: of the order of a cache. The
/// sums do not depend on it.
constexpr Index kept_queries = 128;

struct Sizes {
  Index T, N, C, U, K, M;
  Sizes(const HeadsIn& in, Chosen chosen, Index lanes)
      : T(in.k.shape[0]),
        N(in.q.shape[1]),
        C(in.q.shape[2]),
        U(in.v.shape[2]),
        K(chosen.shape[1]),
        M(lanes) {}
};

/// About how long one query takes, forward.
Index query_ns(const HeadsIn& in, Chosen chosen) {
  return chosen.shape[1] * in.q.shape[1] * (in.q.shape[2] + in.v.shape[2]) / 8 + 1;
}

/// Which documents are taken by blocks, with a mask, and which by their rows; what a row chose.
struct Plan {
  std::vector<KeyRange> by_blocks, by_rows;
  std::vector<std::uint64_t> words;
  KeyMask mask;

  Plan(const HeadsIn& in, Chosen chosen);
};

/// A product of blocks takes as long for five keys as one that gathers them takes for two.
bool worth_blocks(KeyRange document, Index chosen) {
  return document.size() * (document.size() + 1) <= 5 * chosen;
}

/// Keys that the rows of a document chose. A row that is not among the queries counts as one that
/// chose all it could: so a part of the rows is computed as it is in the whole.
Index chosen_of(KeyRange document, const std::vector<Index>& counts, Index first, Index K) {
  const Index end = first + static_cast<Index>(counts.size());
  Index sum = 0;
  for (Index t = document.begin; t < document.end; ++t)
    sum += first <= t && t < end ? counts[static_cast<std::size_t>(t - first)]
                                 : std::min(K, t + 1 - document.begin);
  return sum;
}

Plan::Plan(const HeadsIn& in, Chosen chosen) {
  const Index Q = in.q.shape[0], K = chosen.shape[1], first = in.first();
  expect_shape("chosen", chosen, {Q, K});
  std::vector<Index> counts(static_cast<std::size_t>(Q));
  parallel_for(Q, K + 1, [&](Index q) {
    counts[static_cast<std::size_t>(q)] = count_chosen(chosen, q, first + q, in.begin(first + q));
  });
  for (const KeyRange& whole : documents_of(in.begin)) {
    const KeyRange document = with_keys(whole, in);
    if (document.empty()) continue;
    const bool blocks = worth_blocks(whole, chosen_of(whole, counts, first, K));
    (blocks ? by_blocks : by_rows).push_back(document);
    if (blocks) mask.row = std::max(mask.row, panels_of(document.size()));
  }
  words.resize(static_cast<std::size_t>(Q * mask.row));
  mask.words = words.data();
  for (const KeyRange& document : by_blocks)
    for (Index q = std::max<Index>(document.begin - first, 0); q < document.end - first; ++q)
      for (Index i = 0; i < counts[static_cast<std::size_t>(q)]; ++i) {
        const Index key = chosen(q, i) - document.begin;
        words[static_cast<std::size_t>(q * mask.row + key / block_keys)] |= std::uint64_t{1}
                                                                            << key % block_keys;
      }
}

/// Keys and values, interleaved, for all threads.
struct Keys {
  float *k, *v;  // (T, C, M), (T, U, M)
  Keys(Pieces& pieces, const Sizes& z)
      : k(pieces.take<float>(z.T * z.C * z.M)), v(pieces.take<float>(z.T * z.U * z.M)) {}
};

/// One query, forward.
struct ForwardScratch {
  float *q, *p, *out, *m, *l;
  ForwardScratch(Pieces& pieces, const Sizes& z)
      : q(pieces.take<float>(z.C * z.M)),
        p(pieces.take<float>(z.K * z.M)),
        out(pieces.take<float>(z.U * z.M)),
        m(pieces.take<float>(z.M)),
        l(pieces.take<float>(z.M)) {}
};

void attend(Cpu cpu, const Interleaved& lay, const HeadsOut& y, const HeadsIn& in, Chosen chosen,
            const Keys& keys, const ForwardScratch& at, Index t) {
  const Sizes z(in, chosen, lay.M());
  const Index q = t - in.first(), n = count_chosen(chosen, q, t, in.begin(t));
  const std::int32_t* const ids = chosen.data + q * z.K;
  float* const out = y.out.data + q * z.N * z.U;
  if (n == 0) {
    std::fill_n(out, z.N * z.U, 0.0f);
    std::fill_n(&y.lse(q, 0), z.N, -std::numeric_limits<float>::infinity());
    return;
  }
  lay.row(at.q, in.q.data + q * z.N * z.C, z.C);
  gathered_dots_of[int(cpu.tier)](at.p, at.q, {keys.k, ids, n, z.C, z.M});
  gathered_softmax_of[int(cpu.tier)](at.p, at.m, at.l, static_cast<float>(in.scale), n, z.M);
  gathered_sum_of[int(cpu.tier)](at.out, at.p, {keys.v, ids, n, z.U, z.M}, false);
  for (Index h = 0; h < z.N; ++h) y.lse(q, h) = at.m[h] + std::log(at.l[h]);
  for (Index h = 0; h < z.M; ++h) at.l[h] = 1 / at.l[h];
  for (Index u = 0; u < z.U; ++u)
    for (Index h = 0; h < z.M; ++h) at.out[u * z.M + h] *= at.l[h];
  lay.row_back(out, at.out, z.U);
}

/// Gradients of keys and values, and what some queries give to them.
struct Shared {
  Keys keys, d_keys;
  float *q, *d_out, *p, *d_z;  // (kept_queries, ...): (C, M), (U, M), (K, M), (K, M)
  std::int32_t* n;             // (kept_queries)
  Shared(Pieces& pieces, const Sizes& z)
      : keys(pieces, z),
        d_keys(pieces, z),
        q(pieces.take<float>(kept_queries * z.C * z.M)),
        d_out(pieces.take<float>(kept_queries * z.U * z.M)),
        p(pieces.take<float>(kept_queries * z.K * z.M)),
        d_z(pieces.take<float>(kept_queries * z.K * z.M)),
        n(pieces.take<std::int32_t>(kept_queries)) {}
};
struct QueryScratch {
  float *d_q, *lse, *delta;
  QueryScratch(Pieces& pieces, const Sizes& z)
      : d_q(pieces.take<float>(z.C * z.M)),
        lse(pieces.take<float>(z.M)),
        delta(pieces.take<float>(z.M)) {}
};

/// Query t, the i-th of those kept: its own gradient, and p and d_z for its keys.
void differentiate_query(Cpu cpu, const Interleaved& lay, const HeadsGradient& d, const HeadsIn& in,
                         const HeadsResult& y, Chosen chosen, const Shared& shared,
                         const QueryScratch& at, Index t, Index i) {
  const Sizes z(in, chosen, lay.M());
  const Index row = t - in.first(), n = count_chosen(chosen, row, t, in.begin(t));
  const std::int32_t* const ids = chosen.data + row * z.K;
  shared.n[i] = static_cast<std::int32_t>(n);
  float *const q = shared.q + i * z.C * z.M, *const d_out = shared.d_out + i * z.U * z.M,
               *const p = shared.p + i * z.K * z.M, *const d_z = shared.d_z + i * z.K * z.M;
  lay.row(q, in.q.data + row * z.N * z.C, z.C);
  lay.row(d_out, y.d_out.data + row * z.N * z.U, z.U);
  for (Index h = 0; h < z.M; ++h) at.lse[h] = at.delta[h] = 0;
  for (Index h = 0; h < z.N; ++h) {
    at.lse[h] = y.lse(row, h);
    for (Index u = 0; u < z.U; ++u) at.delta[h] += y.d_out(row, h, u) * y.out(row, h, u);
  }
  gathered_dots_of[int(cpu.tier)](p, q, {shared.keys.k, ids, n, z.C, z.M});
  gathered_dots_of[int(cpu.tier)](d_z, d_out, {shared.keys.v, ids, n, z.U, z.M});
  gathered_gradient_of[int(cpu.tier)](p, d_z, at.lse, at.delta, static_cast<float>(in.scale), n,
                                      z.M);
  gathered_sum_of[int(cpu.tier)](at.d_q, d_z, {shared.keys.k, ids, n, z.C, z.M}, false);
  lay.row_back(d.d_q.data + row * z.N * z.C, at.d_q, z.C);
}

/// Of a range of keys: which of the kept queries chose each, in their order, and where their
/// weights lie.
struct KeyScratch {
  std::int32_t *end, *query, *place;  // (T + 1), (kept_queries K), (kept_queries K)
  float *p, *d_z;                     // (kept_queries, M) of one key
  KeyScratch(Pieces& pieces, const Sizes& z)
      : end(pieces.take<std::int32_t>(z.T + 1)),
        query(pieces.take<std::int32_t>(kept_queries * z.K)),
        place(pieces.take<std::int32_t>(kept_queries * z.K)),
        p(pieces.take<float>(kept_queries * z.M)),
        d_z(pieces.take<float>(kept_queries * z.M)) {}
};

/// Lists the keys of `seen` that queries [q, q + count) chose: key s has entries
/// up to end[s - begin], from where those of the key before end.
void list_queries(const Sizes& z, Chosen chosen, const Shared& shared, const KeyScratch& at,
                  Index q, Index count, KeyRange seen) {
  const auto for_entries = [&](auto f) {
    for (Index i = 0; i < count; ++i) {
      const std::int32_t* const ids = chosen.data + (q + i) * z.K;
      const std::int32_t* const last = ids + shared.n[i];
      for (const std::int32_t* id = std::lower_bound(ids, last, seen.begin);
           id != last && *id < seen.end; ++id)
        f(i, *id - seen.begin, i * z.K + (id - ids));
    }
  };
  std::fill_n(at.end, seen.size() + 1, 0);
  for_entries([&](Index, Index key, Index) { ++at.end[key]; });
  std::int32_t before = 0;  // counts become the first entries
  for (Index key = 0; key <= seen.size(); ++key) before += std::exchange(at.end[key], before);
  for_entries([&](Index i, Index key, Index place) {
    const std::int32_t entry = at.end[key]++;
    at.query[entry] = static_cast<std::int32_t>(i);
    at.place[entry] = static_cast<std::int32_t>(place);
  });
}

/// What queries [q, q + count) give to the keys of `seen`.
void add_to_keys(Cpu cpu, const Sizes& z, Chosen chosen, const Shared& shared, const KeyScratch& at,
                 Index q, Index count, KeyRange seen) {
  if (seen.empty()) return;
  list_queries(z, chosen, shared, at, q, count, seen);
  GatheredSum* const sum = gathered_sum_of[int(cpu.tier)];
  std::int32_t first = 0;
  for (Index s = seen.begin; s < seen.end; ++s) {
    const std::int32_t end = at.end[s - seen.begin];
    const Index n = end - first;
    for (Index i = 0; i < n; ++i) {
      std::copy_n(shared.p + at.place[first + i] * z.M, z.M, at.p + i * z.M);
      std::copy_n(shared.d_z + at.place[first + i] * z.M, z.M, at.d_z + i * z.M);
    }
    const std::int32_t* const queries = at.query + first;
    if (n > 0) {
      sum(shared.d_keys.k + s * z.C * z.M, at.d_z, {shared.q, queries, n, z.C, z.M}, true);
      sum(shared.d_keys.v + s * z.U * z.M, at.p, {shared.d_out, queries, n, z.U, z.M}, true);
    }
    first = end;
  }
}

template <class At>
Index bytes_of(const Sizes& z) {
  Pieces pieces;
  At(pieces, z);
  return pieces.bytes();
}

}  // namespace

void heads_attention(Cpu cpu, HeadsOut y, const HeadsIn& in, Chosen chosen, TrainMemory& memory) {
  expect_heads(in, y);
  const Plan plan(in, chosen);
  attend_blocks(cpu, y, in, plan.by_blocks, plan.mask, memory);
  if (plan.by_rows.empty()) return;
  const Interleaved lay(cpu, in.q.shape[1]);
  const Sizes z(in, chosen, lay.M());
  Pieces all(memory.shared(bytes_of<Keys>(z)));
  const Keys keys(all, z);
  lay.rows(keys.k, in.k);
  lay.rows(keys.v, in.v);
  const Scratch scratch = memory.threads(bytes_of<ForwardScratch>(z));
  for (const KeyRange& document : plan.by_rows) {
    const KeyRange queries{std::max(document.begin, in.first()), document.end};
    parallel_for(queries.size(), query_ns(in, chosen), [&](Index i, int thread) {
      Pieces pieces(scratch.of_thread(thread));
      attend(cpu, lay, y, in, chosen, keys, ForwardScratch(pieces, z), queries.begin + i);
    });
  }
}

namespace {

void differentiate_rows(Cpu cpu, const Interleaved& lay, const HeadsGradient& d, const HeadsIn& in,
                        const HeadsResult& y, Chosen chosen, const Shared& shared, Scratch scratch,
                        KeyRange document) {
  const Sizes z(in, chosen, lay.M());
  for (Index t = std::max(document.begin, in.first()); t < document.end; t += kept_queries) {
    const Index count = std::min(kept_queries, document.end - t);
    parallel_for(count, 2 * query_ns(in, chosen), [&](Index i, int thread) {
      Pieces pieces(scratch.of_thread(thread));
      differentiate_query(cpu, lay, d, in, y, chosen, shared, QueryScratch(pieces, z), t + i, i);
    });
    // Every key adds up its queries in their order, whoever owns the range it lies in.
    const Index first = document.begin, keys = t + count - first, ranges = 4 * threads();
    parallel_for(ranges, count * query_ns(in, chosen) / ranges + 1, [&](Index r, int thread) {
      Pieces pieces(scratch.of_thread(thread));
      add_to_keys(cpu, z, chosen, shared, KeyScratch(pieces, z), t - in.first(), count,
                  {first + keys * r / ranges, first + keys * (r + 1) / ranges});
    });
  }
  lay.rows_back(d.d_k, shared.d_keys.k, document);
  lay.rows_back(d.d_v, shared.d_keys.v, document);
}

}  // namespace

void heads_attention_backward(Cpu cpu, HeadsGradient d, const HeadsIn& in, const HeadsResult& y,
                              Chosen chosen, TrainMemory& memory) {
  expect_heads(in, y, d);
  const Plan plan(in, chosen);
  differentiate_blocks(cpu, d, in, y, plan.by_blocks, plan.mask, memory);
  if (plan.by_rows.empty()) return;
  const Interleaved lay(cpu, in.q.shape[1]);
  const Sizes z(in, chosen, lay.M());
  Pieces all(memory.shared(bytes_of<Shared>(z)));
  const Shared shared(all, z);
  lay.rows(shared.keys.k, in.k);
  lay.rows(shared.keys.v, in.v);
  std::fill_n(shared.d_keys.k, z.T * z.C * z.M, 0.0f);
  std::fill_n(shared.d_keys.v, z.T * z.U * z.M, 0.0f);
  const Scratch scratch =
      memory.threads(std::max(bytes_of<QueryScratch>(z), bytes_of<KeyScratch>(z)));
  for (const KeyRange& document : plan.by_rows)
    differentiate_rows(cpu, lay, d, in, y, chosen, shared, scratch, document);
}

}  // namespace dsa::cpu
