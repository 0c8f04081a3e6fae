#include <omp.h>

#include <cmath>
#include <limits>

#include "core/failure.hpp"
#include "optimized/cpu/ops/documents.hpp"
#include "optimized/cpu/ops/heads_attention.hpp"
#include "optimized/cpu/ops/interleaved.hpp"
#include "optimized/shared/pieces.hpp"

namespace dsa::cpu {
namespace {

using Chosen = View<const std::int32_t, 2>;

/// Queries whose weights are kept before they are added to the keys: of the order of a cache. The
/// sums do not depend on it.
constexpr Index kept_queries = 64;

struct Sizes {
  Index T, N, C, U, K, M;
  Sizes(const HeadsIn& in, Chosen chosen, Index lanes)
      : T(in.q.shape[0]),
        N(in.q.shape[1]),
        C(in.q.shape[2]),
        U(in.v.shape[2]),
        K(chosen.shape[1]),
        M(lanes) {}
};

void expect_chosen(const HeadsIn& in, Chosen chosen) {
  const Index T = in.q.shape[0], N = in.q.shape[1];
  expect_shape("k", in.k, in.q.shape);
  expect_shape("v", in.v, {T, N, in.v.shape[2]});
  expect_shape("begin", in.begin, {T});
  expect_shape("chosen", chosen, {T, chosen.shape[1]});
  documents_of(in.begin);
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
  const std::int32_t* const ids = chosen.data + t * z.K;
  const Index n = count_chosen(chosen, t, in.begin(t));
  float* const out = y.out.data + t * z.N * z.U;
  if (n == 0) {
    std::fill_n(out, z.N * z.U, 0.0f);
    std::fill_n(&y.lse(t, 0), z.N, -std::numeric_limits<float>::infinity());
    return;
  }
  lay.row(at.q, in.q.data + t * z.N * z.C, z.C);
  gathered_dots_of[int(cpu.tier)](at.p, at.q, {keys.k, ids, n, z.C, z.M});
  gathered_softmax_of[int(cpu.tier)](at.p, at.m, at.l, static_cast<float>(in.scale), n, z.M);
  gathered_sum_of[int(cpu.tier)](at.out, at.p, {keys.v, ids, n, z.U, z.M});
  for (Index h = 0; h < z.N; ++h) y.lse(t, h) = at.m[h] + std::log(at.l[h]);
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
  const std::int32_t* const ids = chosen.data + t * z.K;
  const Index n = count_chosen(chosen, t, in.begin(t));
  shared.n[i] = static_cast<std::int32_t>(n);
  float *const q = shared.q + i * z.C * z.M, *const d_out = shared.d_out + i * z.U * z.M,
               *const p = shared.p + i * z.K * z.M, *const d_z = shared.d_z + i * z.K * z.M;
  lay.row(q, in.q.data + t * z.N * z.C, z.C);
  lay.row(d_out, y.d_out.data + t * z.N * z.U, z.U);
  for (Index h = 0; h < z.M; ++h) at.lse[h] = at.delta[h] = 0;
  for (Index h = 0; h < z.N; ++h) {
    at.lse[h] = y.lse(t, h);
    for (Index u = 0; u < z.U; ++u) at.delta[h] += y.d_out(t, h, u) * y.out(t, h, u);
  }
  gathered_dots_of[int(cpu.tier)](p, q, {shared.keys.k, ids, n, z.C, z.M});
  gathered_dots_of[int(cpu.tier)](d_z, d_out, {shared.keys.v, ids, n, z.U, z.M});
  gathered_gradient_of[int(cpu.tier)](p, d_z, at.lse, at.delta, static_cast<float>(in.scale), n,
                                      z.M);
  gathered_sum_of[int(cpu.tier)](at.d_q, d_z, {shared.keys.k, ids, n, z.C, z.M});
  lay.row_back(d.d_q.data + t * z.N * z.C, at.d_q, z.C);
}

/// What queries [t, t + count) give to the keys of [seen.begin, seen.end), query by query.
void add_to_keys(Cpu cpu, const Sizes& z, Chosen chosen, const Shared& shared, Index t, Index count,
                 KeyRange seen) {
  for (Index i = 0; i < count; ++i) {
    const std::int32_t* const ids = chosen.data + (t + i) * z.K;
    const std::int32_t* const end = ids + shared.n[i];
    const std::int32_t* const from = std::lower_bound(ids, end, seen.begin);
    const Index n = std::lower_bound(from, end, seen.end) - from;
    const Index first = (i * z.K + (from - ids)) * z.M;
    scatter_product_of[int(cpu.tier)](shared.d_keys.k, shared.d_z + first, shared.q + i * z.C * z.M,
                                      {nullptr, from, n, z.C, z.M});
    scatter_product_of[int(cpu.tier)](shared.d_keys.v, shared.p + first,
                                      shared.d_out + i * z.U * z.M, {nullptr, from, n, z.U, z.M});
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
  expect_chosen(in, chosen);
  const Interleaved lay(cpu, in.q.shape[1]);
  const Sizes z(in, chosen, lay.M());
  expect_shape("out", y.out, in.v.shape);
  expect_shape("lse", y.lse, {z.T, z.N});
  Pieces all(memory.shared(bytes_of<Keys>(z)));
  const Keys keys(all, z);
  lay.rows(keys.k, in.k);
  lay.rows(keys.v, in.v);
  const Scratch scratch = memory.threads(bytes_of<ForwardScratch>(z));
  Failure failure;
#pragma omp parallel for schedule(dynamic, 16)
  for (Index t = 0; t < z.T; ++t)
    failure.guard([&] {
      Pieces pieces(scratch.of_thread(omp_get_thread_num()));
      attend(cpu, lay, y, in, chosen, keys, ForwardScratch(pieces, z), t);
    });
  failure.rethrow();
}

void heads_attention_backward(Cpu cpu, HeadsGradient d, const HeadsIn& in, const HeadsResult& y,
                              Chosen chosen, TrainMemory& memory) {
  expect_chosen(in, chosen);
  const Interleaved lay(cpu, in.q.shape[1]);
  const Sizes z(in, chosen, lay.M());
  expect_shape("d_out", y.d_out, in.v.shape);
  expect_shape("out", y.out, in.v.shape);
  expect_shape("lse", y.lse, {z.T, z.N});
  expect_shape("d_q", d.d_q, in.q.shape);
  expect_shape("d_k", d.d_k, in.k.shape);
  expect_shape("d_v", d.d_v, in.v.shape);
  Pieces all(memory.shared(bytes_of<Shared>(z)));
  const Shared shared(all, z);
  lay.rows(shared.keys.k, in.k);
  lay.rows(shared.keys.v, in.v);
  std::fill_n(shared.d_keys.k, z.T * z.C * z.M, 0.0f);
  std::fill_n(shared.d_keys.v, z.T * z.U * z.M, 0.0f);
  const Scratch scratch = memory.threads(bytes_of<QueryScratch>(z));
  Failure failure;
  for (Index t = 0; t < z.T; t += kept_queries) {
    const Index count = std::min(kept_queries, z.T - t);
#pragma omp parallel for schedule(dynamic, 4)
    for (Index i = 0; i < count; ++i)
      failure.guard([&] {
        Pieces pieces(scratch.of_thread(omp_get_thread_num()));
        differentiate_query(cpu, lay, d, in, y, chosen, shared, QueryScratch(pieces, z), t + i, i);
      });
    failure.rethrow();
    // Every key adds up its queries in their order, whoever owns the range it lies in.
    const Index first = in.begin(t), keys = t + count - first, ranges = 4 * omp_get_max_threads();
#pragma omp parallel for schedule(dynamic)
    for (Index r = 0; r < ranges; ++r)
      add_to_keys(cpu, z, chosen, shared, t, count,
                  {first + keys * r / ranges, first + keys * (r + 1) / ranges});
  }
  lay.rows_back(d.d_k, shared.d_keys.k);
  lay.rows_back(d.d_v, shared.d_keys.v);
}

}  // namespace dsa::cpu
