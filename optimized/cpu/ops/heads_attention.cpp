#include "optimized/cpu/ops/heads_attention.hpp"

#include <cmath>
#include <limits>

#include "core/threads.hpp"
#include "optimized/cpu/kernels/block_softmax.hpp"
#include "optimized/cpu/ops/heads_blocks.hpp"
#include "optimized/shared/pieces.hpp"

namespace dsa::cpu {
namespace {

constexpr Index score_row = packed_row(block_keys);

/// Sizes, and the kernels of a tier.
struct Heads {
  Index N, C, U;  // C = B+P
  MultiplyBlock* multiply;
  Transpose* transpose;
  PackRows* pack_rows;

  Heads(Cpu cpu, const HeadsIn& in)
      : N(in.q.shape[1]),
        C(in.q.shape[2]),
        U(in.v.shape[2]),
        multiply(multiply_block_of[int(cpu.tier)]),
        transpose(transpose_of[int(cpu.tier)]),
        pack_rows(pack_rows_of[int(cpu.tier)]) {}

  /// Panels of the keys of a document: x (T, N, columns) of head n.
  void pack_panels(float* to, const float* x, Index columns, KeyRange document, Index n) const {
    for (Index s = document.begin; s < document.end; s += block_keys, to += columns * block_keys)
      transpose(to, block_keys, x + (s * N + n) * columns, N * columns,
                std::min(block_keys, document.end - s), columns);
  }
  void pack(float* to, const float* x, Index columns, KeyRange document, Index n) const {
    if (columns == 0) return;  // no values: there may be no memory
    pack_rows(to, x + (document.begin * N + n) * columns, N * columns, document.size(), columns);
  }
};

/// What the queries [t, t + count) of a document see of the panel of keys from s; q: the first
/// one's number.
struct SeenOfPanel {
  std::uint64_t bits[block_queries];

  SeenOfPanel(KeyMask mask, KeyRange document, Index t, Index q, Index count, Index s) {
    for (Index i = 0; i < count; ++i)
      bits[i] = mask.words ? mask.words[(q + i) * mask.row + (s - document.begin) / block_keys]
                           : bits_of_range(document.begin, t + i + 1, s);
  }
};

/// Calls f(document, head, thread) for every document and head.
template <class F>
void for_documents(std::vector<KeyRange> documents, Index N, F f) {
  sort_by_length(documents);
  const Index tasks = static_cast<Index>(documents.size()) * N;
  parallel_for(tasks, shared_loop_ns, [&](Index i, int thread) {
    f(documents[static_cast<std::size_t>(i / N)], i % N, thread);
  });
}

Index longest(const std::vector<KeyRange>& documents) {
  Index n = 0;
  for (const KeyRange& document : documents) n = std::max(n, document.size());
  return n;
}

/// Those rows of a document whose queries are there.
KeyRange queries_of(KeyRange document, const HeadsIn& in) {
  return {std::clamp(in.first(), document.begin, document.end), document.end};
}

/// One head of one document, forward.
struct ForwardScratch {
  float *k_panels, *v, *scores, *out, *m, *l;

  ForwardScratch(Pieces& pieces, Index C, Index U, Index rows)
      : k_panels(pieces.take<float>(panels_of(rows) * C * block_keys)),
        v(pieces.take<float>(rows * packed_row(U))),
        scores(pieces.take<float>(block_queries * score_row)),
        out(pieces.take<float>(block_queries * packed_row(U))),
        m(pieces.take<float>(block_queries)),
        l(pieces.take<float>(block_queries)) {}
};

/// Queries [q, q + count) of head n: out / l, and log l + m. One that sees nothing: 0, -infinity.
void write_rows(const HeadsOut& y, const ForwardScratch& at, Index q, Index count, Index n) {
  const Index N = y.out.shape[1], U = y.out.shape[2];
  for (Index i = 0; i < count; ++i) {
    const float inverse = at.l[i] > 0 ? 1 / at.l[i] : 0;
    float* const to = y.out.data + ((q + i) * N + n) * U;
    for (Index u = 0; u < U; ++u) to[u] = at.out[i * packed_row(U) + u] * inverse;
    y.lse(q + i, n) = at.m[i] + std::log(at.l[i]);
  }
}

void attend(const Heads& heads, SoftmaxBlock* softmax, const HeadsOut& y, const HeadsIn& in,
            const ForwardScratch& at, KeyRange document, KeyMask mask, Index n) {
  const Index N = heads.N, C = heads.C, U = heads.U, out_row = packed_row(U);
  if (queries_of(document, in).empty()) return;
  heads.pack_panels(at.k_panels, in.k.data, C, document, n);
  heads.pack(at.v, in.v.data, U, document, n);
  for (Index t = queries_of(document, in).begin; t < document.end; t += block_queries) {
    const Index count = std::min(block_queries, document.end - t), q = t - in.first();
    std::fill_n(at.m, count, -std::numeric_limits<float>::infinity());
    std::fill_n(at.l, count, 0.0f);
    std::fill_n(at.out, count * out_row, 0.0f);
    for (Index s = document.begin; s < t + count; s += block_keys) {
      const Index keys = std::min(block_keys, t + count - s);
      const float* const panel = at.k_panels + (s - document.begin) * C;
      heads.multiply({at.scores, score_row, in.q.data + (q * N + n) * C, N * C, panel, block_keys,
                      count, keys, C});
      const SeenOfPanel seen(mask, document, t, q, count, s);
      softmax({at.scores, score_row, count, keys, seen.bits, static_cast<float>(in.scale)},
              {at.m, at.l, at.out, out_row, U});
      heads.multiply({at.out, out_row, at.scores, score_row, at.v + (s - document.begin) * out_row,
                      out_row, count, U, keys, false, true});
    }
    write_rows(y, at, q, count, n);
  }
}

/// One head of one document, backward.
struct BackwardScratch {
  float *k_panels, *v_panels;  // for the dots with queries and with d_out
  float *q, *k, *d_out;        // rows
  float *d_q, *d_k, *d_v;      // rows: of the document; of a panel
  float *p, *d_z, *lse, *delta;

  BackwardScratch(Pieces& pieces, Index C, Index U, Index rows)
      : k_panels(pieces.take<float>(panels_of(rows) * C * block_keys)),
        v_panels(pieces.take<float>(panels_of(rows) * U * block_keys)),
        q(pieces.take<float>(rows * packed_row(C))),
        k(pieces.take<float>(rows * packed_row(C))),
        d_out(pieces.take<float>(rows * packed_row(U))),
        d_q(pieces.take<float>(rows * packed_row(C))),
        d_k(pieces.take<float>(block_keys * packed_row(C))),
        d_v(pieces.take<float>(block_keys * packed_row(U))),
        p(pieces.take<float>(block_queries * score_row)),
        d_z(pieces.take<float>(block_queries * score_row)),
        lse(pieces.take<float>(rows)),
        delta(pieces.take<float>(rows)) {}
};

/// delta = d_out.out, and lse, of head n; `first`: the row of the first query.
void find_deltas(const BackwardScratch& at, const HeadsResult& y, KeyRange document,
                 KeyRange queries, Index first, Index n) {
  const Index N = y.out.shape[1], U = y.out.shape[2];
  for (Index t = queries.begin; t < queries.end; ++t) {
    const Index row = ((t - first) * N + n) * U;
    float sum = 0;
    for (Index u = 0; u < U; ++u) sum += y.d_out.data[row + u] * y.out.data[row + u];
    at.delta[t - document.begin] = sum;
    at.lse[t - document.begin] = y.lse(t - first, n);
  }
}

/// Rows of a packed matrix to head n of x (T, N, columns), from row t.
void write_head(View<float, 3> x, const float* from, Index t, Index rows, Index n) {
  const Index N = x.shape[1], columns = x.shape[2];
  for (Index i = 0; i < rows; ++i)
    std::copy_n(from + i * packed_row(columns), columns, x.data + ((t + i) * N + n) * columns);
}

/// What the queries [t, t + count) and a panel of keys from s give each other.
void differentiate_block(const Heads& heads, SoftmaxGradientBlock* gradient, const HeadsIn& in,
                         const HeadsResult& y, const BackwardScratch& at, KeyRange document,
                         KeyMask mask, Index n, Index t, Index s) {
  const Index N = heads.N, C = heads.C, U = heads.U, c_row = packed_row(C), u_row = packed_row(U);
  const Index count = std::min(block_queries, document.end - t), q = t - in.first(),
              keys = std::min(block_keys, std::min(document.end, t + count) - s),
              row = t - document.begin, key = s - document.begin;
  heads.multiply({at.p, score_row, in.q.data + (q * N + n) * C, N * C, at.k_panels + key * C,
                  block_keys, count, keys, C});
  heads.multiply({at.d_z, score_row, y.d_out.data + (q * N + n) * U, N * U, at.v_panels + key * U,
                  block_keys, count, keys, U});
  const SeenOfPanel seen(mask, document, t, q, count, s);
  gradient({at.p, score_row, count, keys, seen.bits, static_cast<float>(in.scale)}, at.d_z,
           at.lse + row, at.delta + row);
  heads.multiply(
      {at.d_v, u_row, at.p, score_row, at.d_out + row * u_row, u_row, keys, U, count, true, true});
  heads.multiply(
      {at.d_k, c_row, at.d_z, score_row, at.q + row * c_row, c_row, keys, C, count, true, true});
  heads.multiply({at.d_q + row * c_row, c_row, at.d_z, score_row, at.k + key * c_row, c_row, count,
                  C, keys, false, true});
}

/// Keys and values as the blocks read them, and what of the queries is there.
void prepare(const Heads& heads, const HeadsIn& in, const HeadsResult& y, const BackwardScratch& at,
             KeyRange document, Index n) {
  const KeyRange queries = queries_of(document, in);
  const Index C = heads.C, U = heads.U, first = in.first(),
              skipped = queries.begin - document.begin;
  const KeyRange there{queries.begin - first, queries.end - first};
  heads.pack_panels(at.k_panels, in.k.data, C, document, n);
  heads.pack_panels(at.v_panels, in.v.data, U, document, n);
  heads.pack(at.q + skipped * packed_row(C), in.q.data, C, there, n);
  heads.pack(at.k, in.k.data, C, document, n);
  heads.pack(at.d_out + skipped * packed_row(U), y.d_out.data, U, there, n);
  find_deltas(at, y, document, queries, first, n);
  std::fill_n(at.d_q, document.size() * packed_row(C), 0.0f);
}

/// A document without queries has gradients of keys, too: 0.
void differentiate(const Heads& heads, SoftmaxGradientBlock* gradient, const HeadsGradient& d,
                   const HeadsIn& in, const HeadsResult& y, const BackwardScratch& at,
                   KeyRange document, KeyMask mask, Index n) {
  const Index C = heads.C, U = heads.U;
  const KeyRange queries = queries_of(document, in);
  if (!queries.empty()) prepare(heads, in, y, at, document, n);
  for (Index s = document.begin; s < document.end; s += block_keys) {
    std::fill_n(at.d_k, block_keys * packed_row(C), 0.0f);
    std::fill_n(at.d_v, block_keys * packed_row(U), 0.0f);
    // The first block of queries whose last one sees the panel.
    const Index first = document.begin + (s - document.begin) / block_queries * block_queries;
    for (Index t = std::max(first, queries.begin); t < document.end; t += block_queries)
      differentiate_block(heads, gradient, in, y, at, document, mask, n, t, s);
    const Index rows = std::min(block_keys, document.end - s);
    write_head(d.d_k, at.d_k, s, rows, n);
    write_head(d.d_v, at.d_v, s, rows, n);
  }
  write_head(d.d_q, at.d_q + (queries.begin - document.begin) * packed_row(C),
             queries.begin - in.first(), queries.size(), n);
}

template <class At>
Index bytes_of(const Heads& heads, Index rows) {
  Pieces pieces;
  At(pieces, heads.C, heads.U, rows);
  return pieces.bytes();
}

}  // namespace

std::vector<KeyRange> documents_of(const HeadsIn& in) {
  std::vector<KeyRange> documents;
  for (const KeyRange& document : documents_of(in.begin))
    if (const KeyRange here = with_keys(document, in); !here.empty()) documents.push_back(here);
  return documents;
}

void expect_heads(const HeadsIn& in) {
  const Index Q = in.q.shape[0], T = in.k.shape[0], N = in.q.shape[1];
  expect_shape("k", in.k, {T, N, in.q.shape[2]});
  require(Q <= T, "q has " + std::to_string(Q) + " rows, expected at most the " +
                      std::to_string(T) + " of k");
  expect_shape("v", in.v, {T, N, in.v.shape[2]});
  if (in.begin.shape[0] < T) expect_shape("begin", in.begin, {T});
}

void expect_heads(const HeadsIn& in, const HeadsOut& y) {
  expect_heads(in);
  expect_shape("out", y.out, {in.q.shape[0], in.q.shape[1], in.v.shape[2]});
  expect_shape("lse", y.lse, {in.q.shape[0], in.q.shape[1]});
}

void expect_heads(const HeadsIn& in, const HeadsResult& y, const HeadsGradient& d) {
  expect_heads(in);
  expect_shape("d_out", y.d_out, {in.q.shape[0], in.q.shape[1], in.v.shape[2]});
  expect_shape("out", y.out, y.d_out.shape);
  expect_shape("lse", y.lse, {in.q.shape[0], in.q.shape[1]});
  expect_shape("d_q", d.d_q, in.q.shape);
  expect_shape("d_k", d.d_k, in.k.shape);
  expect_shape("d_v", d.d_v, in.v.shape);
}

void attend_blocks(Cpu cpu, const HeadsOut& y, const HeadsIn& in, std::vector<KeyRange> documents,
                   KeyMask mask, TrainMemory& memory) {
  const Heads heads(cpu, in);
  const Index rows = longest(documents);
  const Scratch scratch = memory.threads(bytes_of<ForwardScratch>(heads, rows));
  for_documents(std::move(documents), heads.N, [&](KeyRange document, Index n, int thread) {
    Pieces pieces(scratch.of_thread(thread));
    attend(heads, softmax_block_of[int(cpu.tier)], y, in,
           ForwardScratch(pieces, heads.C, heads.U, rows), document, mask, n);
  });
}

void differentiate_blocks(Cpu cpu, const HeadsGradient& d, const HeadsIn& in, const HeadsResult& y,
                          std::vector<KeyRange> documents, KeyMask mask, TrainMemory& memory) {
  const Heads heads(cpu, in);
  const Index rows = longest(documents);
  const Scratch scratch = memory.threads(bytes_of<BackwardScratch>(heads, rows));
  for_documents(std::move(documents), heads.N, [&](KeyRange document, Index n, int thread) {
    Pieces pieces(scratch.of_thread(thread));
    differentiate(heads, softmax_gradient_block_of[int(cpu.tier)], d, in, y,
                  BackwardScratch(pieces, heads.C, heads.U, rows), document, mask, n);
  });
}

void heads_attention(Cpu cpu, HeadsOut y, const HeadsIn& in, TrainMemory& memory) {
  expect_heads(in, y);
  attend_blocks(cpu, y, in, documents_of(in), {}, memory);
}

void heads_attention_backward(Cpu cpu, HeadsGradient d, const HeadsIn& in, const HeadsResult& y,
                              TrainMemory& memory) {
  expect_heads(in, y, d);
  differentiate_blocks(cpu, d, in, y, documents_of(in), {}, memory);
}

}  // namespace dsa::cpu
