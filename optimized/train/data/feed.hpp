// optimized/train/data/feed.hpp — the batches of a stage, as a function of a cursor.
//
// Document i of the run is of the source that (seed, i) chooses by weight, and the next of that
// source: a synthetic one is made, one of a corpus is the next in the order of (seed, epoch).
// Documents are packed into rows of at most S tokens, none is cut, and none sees another.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/json.hpp"
#include "optimized/train/batch.hpp"
#include "optimized/train/data/corpus.hpp"
#include "optimized/train/data/synthetic.hpp"

namespace dsa::train {

/// How much of the data was consumed: what a resumed run has to know.
struct Cursor {
  Index documents = 0;
  std::map<std::string, Index> drawn;  // by source
  friend bool operator==(const Cursor&, const Cursor&) = default;
};
Json to_json(const Cursor&);
Cursor cursor_of(const Json&);

/// One source of a stage: a task, or a corpus.
struct Source {
  std::string name;  // "synthetic:recall", "text:books/*.txt"
  double weight = 1;
  Task task;
  std::shared_ptr<const Corpus> corpus;  // null: the task
};

/// What the feed of a stage is made of.
struct FeedPlan {
  std::vector<Source> sources;
  std::uint64_t seed = 0;
  Index seq = 0, batch = 0, accumulation = 1;
  bool every_target = false;  // otherwise the answers alone, of documents that have some
  Index held_out = 0;         // documents of every source that are evaluation's
  std::vector<Index> levels;  // of the tasks
};

class Feed {
 public:
  explicit Feed(FeedPlan);

  /// The micro-batches of the next step. `level`: of the tasks, an index of levels; most documents
  /// are of it, one of four is of an easier one.
  std::vector<Batch> next(Cursor&, std::size_t level) const;

  /// Held-out documents of one source, at a level, in micro-batches.
  std::vector<Batch> evaluation(const Source&, std::size_t level) const;

  const FeedPlan& plan() const { return plan_; }

 private:
  const Source& source_of(Index document) const;
  Document document(const Source&, Index number, std::size_t level) const;
  Document held_out(const Source&, Index number, std::size_t level) const;
  Task task_at(const Source&, std::size_t level) const;
  void put(Batch&, const Document&) const;

  FeedPlan plan_;
};

}  // namespace dsa::train
