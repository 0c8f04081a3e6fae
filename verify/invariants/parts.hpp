// verify/invariants/parts.hpp — what the files of this room share.
#pragma once

#include <memory>

#include "verify/invariants/invariants.hpp"
#include "verify/judge/against_definition.hpp"
#include "verify/runs/reference_run.hpp"

namespace dsa::verify {

/// How far two right runs may lie apart, by row of the main sequence. Measured once, when first
/// needed: equal bits need no limit.
class Noise {
 public:
  /// `options` with a precision: how the implementation computes.
  Noise(std::filesystem::path checkpoint, Sequence main, JudgeOptions options);
  ~Noise();
  Noise(const Noise&) = delete;
  Noise& operator=(const Noise&) = delete;

  reference::Precision precision() const { return *options_.precision; }
  const Limits& limits();
  const Reach& reach(Index row);
  std::string origin() const;

 private:
  struct Measured;
  NoiseOptions told() const;
  Variant drawn(std::uint64_t draw) const;

  std::filesystem::path checkpoint_;
  Sequence main_;
  JudgeOptions options_;
  std::unique_ptr<Measured> measured_;
};

/// What every invariant is told.
struct Asked {
  const Config& config;  // the checkpoint's, whatever the implementation makes of it
  const Implementation& implementation;
  const Sequence& main;
  const Tensor<double, 2>& logits;  // the implementation's, of `main` alone in one go
  std::uint64_t seed = 1;
  std::function<void(const std::string& what, int done, int of)> progress;

  Index length() const { return main.size(); }
  Index topk() const { return config.indexer ? config.indexer->topk : 0; }
  bool is_ours() const { return implementation.ours.has_value(); }
};

/// Compares rows of logits in pairs, and says whether an invariant held.
class RowComparison {
 public:
  /// `must_be_equal`: the two ways are the same sums, and no difference is rounding.
  RowComparison(Noise& noise, bool must_be_equal) : noise_(noise), strict_(must_be_equal) {}

  /// Rows [0, n), from row `want_first` of one side and row `got_first` of the other on; row i
  /// says what row main_first + i of the main sequence says.
  struct Rows {
    Index n = 0, want_first = 0, got_first = 0, main_first = 0;
  };
  void add(const Tensor<double, 2>& want, const Tensor<double, 2>& got, const Rows&,
           const std::string& how);

  /// Fills held, value, limit, from, at, n and the end of the note.
  void conclude(Invariant&) const;

 private:
  Noise& noise_;
  bool strict_;
  Index rows_ = 0, different_ = 0, undecided_ = 0, over_ = 0;
  double difference_ = 0, ratio_ = 0;  // the worst
  std::string difference_at_, ratio_at_;
};

/// 1 .. T-1 if that is at most `all`; else about `all` of them: the ends, those around top-k, and
/// others evenly spaced.
std::vector<Index> points(Index T, Index topk, Index all);
/// "all 47 places", or "18 of 255 places: 1, 2, 21, ..."
std::string told(const std::vector<Index>& points, Index T, const std::string& noun);

/// The same tokens asked for in other ways.
std::vector<Invariant> logits_invariants(const Asked&, Noise&);
/// Other ways of computing, and what must hold within a run: of our own backends only.
std::vector<Invariant> inside_invariants(const Asked&, Noise&);

}  // namespace dsa::verify
