// optimized/cpu/ops/index_blocks.hpp — the indexer over every visible key of a block of queries,
// and over the keys that one query chose: what the ops of its training are made of.
#pragma once

#include "optimized/cpu/kernels/index_gradient.hpp"
#include "optimized/cpu/kernels/indexer_scores.hpp"
#include "optimized/cpu/ops/documents.hpp"
#include "optimized/cpu/ops/index_scores.hpp"
#include "optimized/shared/memory.hpp"
#include "optimized/shared/pieces.hpp"

namespace dsa::cpu {

constexpr Index row_queries = 24;  // whose rows of scores are held at once: whole tiles
/// Rows of scores begin at a key that begins a panel of either width.
constexpr Index row_step = 3 * block_keys;
static_assert(row_step % panel_keys == 0);

/// Queries [t, t + count) and where their rows of scores lie: row i holds key s at
/// x[i * row + s - base].
struct RowBlock {
  Index t, count, base, end, row;
  float* x = nullptr;

  RowBlock(View<const std::int32_t, 1> begin, Index first, Index n)
      : t(first),
        count(n),
        base(begin(first) / row_step * row_step),
        end(first + n),
        row(row_of(end - base)) {}
  /// Floats for rows of up to `keys` keys and what comes before the first; vectors reach beyond.
  static constexpr Index row_of(Index keys) {
    return (keys + row_step - 1) / row_step * row_step + block_lanes;
  }
  static constexpr Index floats(Index T) { return row_queries * row_of(T + row_step); }

  float* at(Index i, Index s) const { return x + i * row + (s - base); }
};

/// What the queries of a block see of a panel whose first key is s.
struct SeenOfPanel {
  std::uint64_t bits[row_queries];

  SeenOfPanel(View<const std::int32_t, 1> begin, const RowBlock& block, Index s) {
    for (Index i = 0; i < block.count; ++i)
      bits[i] = bits_of_range(begin(block.t + i), block.t + i + 1, s);
  }
};

/// The indexer's keys and weights made ready for all threads; and its work on a block or a row.
class IndexBlocks {
 public:
  IndexBlocks(Cpu, const IndexIn&, Pieces& shared);

  /// Of a thread.
  struct Scratch {
    std::byte *query, *rows;                   // packed queries
    float *dots, *q, *d_q, *d_w;               // of a block
    float *keys, *a, *q_heads, *d_chosen, *w;  // of a row
    Scratch(Pieces&, Index H, Index D, Index K);
  };

  /// Packs the shared matrices, with all threads.
  void pack() const;

  /// Scores of every visible key of the block's queries; other places hold anything.
  void score(const RowBlock&, const Scratch&) const;
  /// From the gradient of those scores. d_keys: (T, packed_row(D)), added to.
  void differentiate(const IndexGradient&, float* d_keys, const RowBlock& d_scores,
                     const Scratch&) const;

  /// The share of query t's pairs of a visible key and a head whose dot is not above 0.
  double dead_share(Index t, const Scratch&) const;

  /// Scores of the n keys `ids` of query t; the dots are left in the scratch.
  void score_chosen(float* scores, Index t, const std::int32_t* ids, Index n, const Scratch&) const;
  /// After score_chosen of the same keys.
  void differentiate_chosen(const IndexGradient&, float* d_keys, const float* d_scores, Index t,
                            const std::int32_t* ids, Index n, const Scratch&) const;

  Index heads_row() const { return rounded_up(H_, lanes_of(cpu_.tier)); }
  const float* panel(Index s) const { return panels_ + s / panel_keys * D_ * panel_keys; }

 private:
  void differentiate_panel(float* d_keys, const RowBlock& d_scores, const Scratch&, Index s) const;

  Cpu cpu_;
  IndexIn in_;
  Index T_, H_, D_, first_;     // first_: the row of the first query
  float *panels_, *keys_, *w_;  // (panels, D, 48), (T, packed_row(D)), (Q, H)
};

void expect_index(const IndexIn&);
void expect_index_gradient(const IndexGradient&, const IndexIn&);

/// d_k as sums of parts of the queries, each with one writer: the same bits for any number of
/// threads.
class KeySums {
 public:
  static constexpr Index most_parts = 16;

  /// `first`: the row of the first query.
  KeySums(View<const std::int32_t, 1> begin, Index first, Index D, Pieces& shared);

  Index parts() const { return parts_; }
  /// Rows [begin, end) of part i.
  KeyRange rows(Index i) const {
    return {first_ + i * each_, std::min(T_, first_ + (i + 1) * each_)};
  }
  /// (T, packed_row(D)) of part i, zero where its rows may add.
  float* clear(Index i) const;
  void write(View<float, 2> d_k) const;

 private:
  KeyRange keys(Index i) const { return {begin_(rows(i).begin), rows(i).end}; }

  View<const std::int32_t, 1> begin_;
  Index T_, first_, D_, each_, parts_;
  float* sums_;
};

}  // namespace dsa::cpu
