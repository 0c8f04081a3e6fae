// optimized/train/context.hpp — a micro-batch that several ranks hold together (context parallel).
//
// Each of n ranks has some rows of it: their queries, experts and losses. The keys are there on
// all of them: of every row and layer the normalised latent, the rotary key and the indexer's key,
// R + P + D numbers. So a query scores all that it sees, and selects, where it is. On the way back
// every rank has what its queries give to all keys, and the rank of a row adds that up by rank.
//
//   contiguous: rank i has run i of n;   zigzag: runs i and 2n-1-i of 2n, about as many visible
//   keys as any other
//
// A row is computed as one rank computes it. What rows are added up to has another order.
#pragma once

#include <initializer_list>
#include <vector>

#include "core/views.hpp"
#include "optimized/ranks/communicator.hpp"

namespace dsa::train {

enum class RowOrder { zigzag, contiguous };

/// Rows [begin, end) of the micro-batch, which lie from row `at` on in arrays of a rank's own rows.
struct Run {
  Index begin = 0, end = 0, at = 0;
  Index size() const { return end - begin; }
};

/// In ascending order. Error: a rank would have no row in one of them.
std::vector<Run> runs_of(Index T, int part, int of, RowOrder);

/// Of an array of own rows, those of a run; of an array of all rows, what the run sees.
template <class T, int Rank>
View<T, Rank> own(View<T, Rank> x, const Run& run) {
  return rows(x, run.at, run.at + run.size());
}
template <class T, int Rank>
View<T, Rank> seen(View<T, Rank> x, const Run& run) {
  return rows(x, 0, run.end);
}

class Context {
 public:
  Context() = default;  // one rank has all rows
  /// Ranks i n ... i n + n-1 of the job hold a micro-batch together; n divides their number.
  Context(ranks::Communicator&, int n, RowOrder);

  int of() const { return of_; }
  bool is_divided() const { return of_ > 1; }

  /// The next micro-batch.
  void begin(Index rows);
  const std::vector<Run>& runs() const { return runs_; }
  Index rows() const { return runs_.back().at + runs_.back().size(); }

  /// Arrays of all rows, each with this rank's own in place: the others' arrive.
  void gather(std::initializer_list<View<float, 2>>) const;
  /// Arrays of all rows, to which each rank gives something: own rows become the sum of all ranks'
  /// in their order. Other rows are left as they are.
  void add_up(std::initializer_list<View<float, 2>>);

 private:
  std::vector<Run> runs_of_part(int part) const { return runs_of(T_, part, of_, order_); }

  ranks::Communicator* ranks_ = nullptr;
  int first_ = 0, part_ = 0, of_ = 1;  // first_: the rank of part 0
  RowOrder order_ = RowOrder::zigzag;
  Index T_ = 0;
  std::vector<Run> runs_;
  std::vector<std::vector<float>> received_;  // by part
};

}  // namespace dsa::train
