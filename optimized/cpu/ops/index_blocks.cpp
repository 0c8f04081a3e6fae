#include "optimized/cpu/ops/index_blocks.hpp"

#include "core/threads.hpp"
#include "optimized/cpu/ops/stored.hpp"

namespace dsa::cpu {

void expect_index(const IndexIn& in) {
  const Index Q = in.q.shape[0], H = in.q.shape[1], D = in.q.shape[2], T = in.k.shape[0];
  expect_shape("k", in.k, {T, D});
  require(Q <= T, "q has " + std::to_string(Q) + " rows, expected at most the " +
                      std::to_string(T) + " of k");
  if (in.w.data) expect_shape("w", in.w, {Q, H});
  expect_shape("begin", in.begin, {T});
  documents_of(in.begin);
  require(in.dot_scale > 0, "the indexer's dot_scale is " + std::to_string(in.dot_scale) +
                                ", expected a positive number");
}

void expect_index_gradient(const IndexGradient& d, const IndexIn& in) {
  expect_shape("d_q", d.d_q, in.q.shape);
  expect_shape("d_k", d.d_k, in.k.shape);
  if (d.d_w.data) expect_shape("d_w", d.d_w, {in.q.shape[0], in.q.shape[1]});
}

IndexBlocks::Scratch::Scratch(Pieces& pieces, Index H, Index D, Index K)
    : query(pieces.take_bytes(index_query_bytes(H, D))),
      rows(pieces.take_bytes(index_rows_bytes(D))),
      dots(pieces.take<float>(row_queries * panel_keys)),
      q(pieces.take<float>(H * row_queries * packed_row(D))),
      d_q(pieces.take<float>(H * row_queries * packed_row(D))),
      d_w(pieces.take<float>(row_queries * H)),
      keys(pieces.take<float>(K * packed_row(D))),
      a(pieces.take<float>(K * packed_row(H))),
      q_heads(pieces.take<float>(D * packed_row(H))),
      d_chosen(pieces.take<float>(K * packed_row(D))),
      w(pieces.take<float>(2 * packed_row(H))) {}

IndexBlocks::IndexBlocks(Cpu cpu, const IndexIn& in, Pieces& shared)
    : cpu_(cpu),
      in_(in),
      T_(in.k.shape[0]),
      H_(in.q.shape[1]),
      D_(in.q.shape[2]),
      first_(in.first()),
      panels_(shared.take<float>((T_ + panel_keys - 1) / panel_keys * panel_keys * D_)),
      keys_(shared.take<float>(T_ * packed_row(D_))),
      w_(shared.take<float>(in.q.shape[0] * H_)) {}

void IndexBlocks::pack() const {
  const float scale = static_cast<float>(in_.dot_scale * in_.weight_scale);
  for (Index i = 0; i < in_.q.shape[0] * H_; ++i)
    w_[i] = in_.w.data ? scale * in_.w.data[i] : scale;
  parallel_for((T_ + panel_keys - 1) / panel_keys, panel_keys * D_, [&](Index panel) {
    const Index s = panel * panel_keys, n = std::min(panel_keys, T_ - s);
    transpose_of[int(cpu_.tier)](panels_ + s * D_, panel_keys, in_.k.data + s * D_, D_, n, D_);
    pack_rows_of[int(cpu_.tier)](keys_ + s * packed_row(D_), in_.k.data + s * D_, D_, n, D_);
  });
}

void IndexBlocks::score(const RowBlock& block, const Scratch& at) const {
  const IndexShape shape{.storage = Storage::f32, .H = H_, .D = D_};
  auto* const query = reinterpret_cast<std::uint32_t*>(at.query);
  for (Index i = 0; i < block.count; ++i) {
    const Index t = block.t + i, q = t - first_;
    pack_index_query_of[int(cpu_.tier)](query, bytes_at(in_.q.data + q * H_ * D_), shape, at.rows);
    for (Index s = in_.begin(t) / panel_keys * panel_keys; s <= t; s += panel_keys)
      score_panel_of[int(cpu_.tier)](block.at(i, s),
                                     {.q = query,
                                      .keys = reinterpret_cast<const std::uint32_t*>(panel(s)),
                                      .scales = nullptr,
                                      .w = w_ + q * H_,
                                      .shape = shape,
                                      .relu = in_.relu});
  }
}

/// Of every head: dots, their gradient, and what it gives to the queries and to the keys.
void IndexBlocks::differentiate_panel(float* d_keys, const RowBlock& block, const Scratch& at,
                                      Index s) const {
  const Index n = std::min(panel_keys, block.end - s), row = packed_row(D_), q = block.t - first_;
  const SeenOfPanel seen(in_.begin, block, s);
  MultiplyBlock* const multiply = multiply_block_of[int(cpu_.tier)];
  for (Index h = 0; h < H_; ++h) {
    multiply({at.dots, panel_keys, in_.q.data + (q * H_ + h) * D_, H_ * D_, panel(s), panel_keys,
              block.count, n, D_});
    differentiate_index_block_of[int(cpu_.tier)]({at.dots, panel_keys, block.at(0, s), block.row,
                                                  seen.bits, block.count, n, w_ + q * H_ + h,
                                                  at.d_w + h, H_, in_.relu});
    multiply({at.d_q + h * row_queries * row, row, at.dots, panel_keys, keys_ + s * row, row,
              block.count, D_, n, false, true});
    multiply({d_keys + s * row, row, at.dots, panel_keys, at.q + h * row_queries * row, row, n, D_,
              block.count, true, true});
  }
}

void IndexBlocks::differentiate(const IndexGradient& d, float* d_keys, const RowBlock& block,
                                const Scratch& at) const {
  const Index row = packed_row(D_), q = block.t - first_;
  const float scale = static_cast<float>(in_.dot_scale * in_.weight_scale);
  for (Index h = 0; h < H_; ++h)
    pack_rows_of[int(cpu_.tier)](at.q + h * row_queries * row, in_.q.data + (q * H_ + h) * D_,
                                 H_ * D_, block.count, D_);
  std::fill_n(at.d_q, H_ * row_queries * row, 0.0f);
  std::fill_n(at.d_w, row_queries * H_, 0.0f);
  const Index first = in_.begin(block.t) / panel_keys * panel_keys;
  for (Index s = first; s < block.end; s += panel_keys) differentiate_panel(d_keys, block, at, s);
  for (Index i = 0; i < block.count; ++i)
    for (Index h = 0; h < H_; ++h) {
      std::copy_n(at.d_q + (h * row_queries + i) * row, D_, &d.d_q(q + i, h, 0));
      if (d.d_w.data) d.d_w(q + i, h) = scale * at.d_w[i * H_ + h];
    }
}

double IndexBlocks::dead_share(Index t, const Scratch& at) const {
  const Index begin = in_.begin(t);
  Index dead = 0;
  for (Index first = begin / panel_keys * panel_keys; first <= t; first += panel_keys)
    for (Index h = 0; h < H_; h += row_queries) {
      const Index heads = std::min(row_queries, H_ - h);
      multiply_block_of[int(cpu_.tier)]({at.dots, panel_keys, in_.q.data + (t * H_ + h) * D_, D_,
                                         panel(first), panel_keys, heads, panel_keys, D_});
      const Index from = std::max(begin, first) - first,
                  to = std::min(t + 1, first + panel_keys) - first;
      for (Index i = 0; i < heads; ++i)
        for (Index j = from; j < to; ++j) dead += !(at.dots[i * panel_keys + j] > 0);
    }
  return static_cast<double>(dead) / static_cast<double>((t + 1 - begin) * H_);
}

void IndexBlocks::score_chosen(float* scores, Index t, const std::int32_t* ids, Index n,
                               const Scratch& at) const {
  const Index M = heads_row(), row = packed_row(D_);
  const Index q = t - first_;
  transpose_of[int(cpu_.tier)](at.q_heads, M, in_.q.data + q * H_ * D_, D_, H_, D_);
  std::fill_n(at.w, M, 0.0f);
  std::copy_n(w_ + q * H_, H_, at.w);
  gather_rows_of[int(cpu_.tier)](at.keys, keys_, ids, n, row, D_);
  multiply_block_of[int(cpu_.tier)]({at.a, M, at.keys, row, at.q_heads, M, n, M, D_});
  weigh_chosen_of[int(cpu_.tier)](scores, at.a, at.w, n, M, in_.relu);
}

void IndexBlocks::differentiate_chosen(const IndexGradient& d, float* d_keys, const float* d_scores,
                                       Index t, const std::int32_t* ids, Index n,
                                       const Scratch& at) const {
  const Index M = heads_row(), row = packed_row(D_), q = t - first_;
  const float scale = static_cast<float>(in_.dot_scale * in_.weight_scale);
  float* const d_w = at.w + packed_row(H_);
  cpu::differentiate_chosen_of[int(cpu_.tier)](at.a, d_w, d_scores, at.w, n, M, in_.relu);
  MultiplyBlock* const multiply = multiply_block_of[int(cpu_.tier)];
  multiply({at.d_q, row, at.a, M, at.keys, row, H_, D_, n, true});
  pack_rows_of[int(cpu_.tier)](at.q, in_.q.data + q * H_ * D_, D_, H_, D_);
  multiply({at.d_chosen, row, at.a, M, at.q, row, n, D_, H_});
  scatter_rows_of[int(cpu_.tier)](d_keys, at.d_chosen, ids, n, row, D_);
  for (Index h = 0; h < H_; ++h) {
    std::copy_n(at.d_q + h * row, D_, &d.d_q(q, h, 0));
    if (d.d_w.data) d.d_w(q, h) = scale * d_w[h];
  }
}

KeySums::KeySums(View<const std::int32_t, 1> begin, Index first, Index D, Pieces& shared)
    : begin_(begin),
      T_(begin.shape[0]),
      first_(first),
      D_(D),
      each_(
          rounded_up(std::max<Index>(1, (T_ - first + most_parts - 1) / most_parts), row_queries)),
      parts_((T_ - first + each_ - 1) / each_),
      sums_(shared.take<float>(parts_ * T_ * packed_row(D))) {}

float* KeySums::clear(Index i) const {
  const Index row = packed_row(D_);
  float* const sums = sums_ + i * T_ * row;
  const KeyRange mine = keys(i);
  std::fill_n(sums + mine.begin * row, mine.size() * row, 0.0f);
  return sums;
}

void KeySums::write(View<float, 2> d_k) const {
  const Index row = packed_row(D_);
  parallel_for(T_, parts_ * D_ / 8 + 1, [&](Index s) {
    std::fill_n(&d_k(s, 0), D_, 0.0f);
    for (Index i = std::max<Index>(s - first_, 0) / each_; i < parts_ && keys(i).begin <= s; ++i) {
      const float* const from = sums_ + (i * T_ + s) * row;
      for (Index c = 0; c < D_; ++c) d_k(s, c) += from[c];
    }
  });
}

}  // namespace dsa::cpu
