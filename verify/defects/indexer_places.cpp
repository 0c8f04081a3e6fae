// Index scores that are wrong in some rows or for some keys only: shards and pages.
#include <limits>

#include "verify/defects/indexer_parts.hpp"

namespace dsa::verify {

using reference::Visibility;

namespace {

const std::string scores_name = "self_attn.indexer.scores";
constexpr double unseen = -std::numeric_limits<double>::infinity();

/// The last key that the row at position t of S sees.
using Bound = std::function<Index(Index t, Index S)>;

DefectVariant bounded(std::string name, Bound bound) {
  return {std::move(name), [bound = std::move(bound)](Variant& altered) {
            around(altered.ops.indexer_scores, anywhere(),
                   [bound](const auto& inner, Name at, Out scores, In3 q, In k, In w,
                           const Indexer& indexer, const Visibility& visible) {
                     inner(at, scores, q, k, w, indexer, visible);
                     const Index S = scores.shape[1];
                     for (Index t = 0; t < scores.shape[0]; ++t)
                       for (Index s = std::max<Index>(0, bound(visible.first + t, S) + 1); s < S;
                            ++s)
                         scores(t, s) = unseen;
                   });
          }};
}

/// Context parallelism over `ranks`: S is cut into 2 ranks pieces, and rank r holds pieces r and
/// 2 ranks - 1 - r one behind the other.
DefectVariant zigzag(Index ranks) {
  return bounded("zigzag, " + std::to_string(ranks) + " ranks", [ranks](Index t, Index S) {
    const Index pieces = 2 * ranks, size = std::max<Index>(1, S / pieces),
                piece = std::min(t / size, pieces - 1), within = t - piece * size;
    return piece < ranks ? within : size + within;
  });
}

DefectVariant contiguous(Index ranks) {
  return bounded("contiguous, " + std::to_string(ranks) + " ranks", [ranks](Index t, Index S) {
    const Index size = std::max<Index>(1, (S + ranks - 1) / ranks);
    return t % size;
  });
}

DefectVariant offset_from(Index first, Index offset) {
  return bounded("offset=" + std::to_string(offset) + " from row " + std::to_string(first),
                 [=](Index t, Index) { return t < first ? t : t - offset; });
}

/// Every offset where these are few; else those of the usual cuts: row `first` begins a piece, and
/// the rank holds j of the pieces before it, of equal size.
std::vector<DefectVariant> offsets(const Config&, const Symptom& symptom) {
  constexpr Index few = 256, most_pieces = 64;
  std::vector<DefectVariant> variants;
  const Index first = symptom.first;
  if (first <= few) {
    for (Index offset = 1; offset <= first; ++offset)
      variants.push_back(offset_from(first, offset));
    return variants;
  }
  variants.push_back(offset_from(first, first));
  for (Index pieces = 2; pieces <= most_pieces; ++pieces)
    if (const Index offset = first - first / pieces; first % pieces == 0)
      variants.push_back(offset_from(first, offset));
  return variants;
}

/// What a paged kernel makes of the keys s with s mod period = phase, or of all the others.
enum class Fault { zero, missing, first_of_page };

struct Pages {
  Index period, phase;
  bool others;  // the keys of that phase are right, the others are not
  Fault fault;

  bool hits(Index s) const { return (s % period == phase) != others; }
  std::string name() const {
    const char* what = fault == Fault::zero      ? "score 0"
                       : fault == Fault::missing ? "are not scored"
                                                 : "have the score of their page's first";
    return (others ? "all keys but s mod " : "keys s mod ") + std::to_string(period) + " = " +
           std::to_string(phase) + " " + what;
  }
};

DefectVariant paged(const Pages& pages) {
  return {pages.name(), [pages](Variant& altered) {
            around(altered.ops.indexer_scores, anywhere(),
                   [pages](const auto& inner, Name at, Out scores, auto&&... rest) {
                     inner(at, scores, rest...);
                     const Tensor<double, 2> right = copy_of(scores);
                     for (Index t = 0; t < scores.shape[0]; ++t)
                       for (Index s = 0; s < scores.shape[1]; ++s) {
                         if (!(right(t, s) > unseen) || !pages.hits(s)) continue;
                         const double first = right(t, s - s % pages.period);
                         scores(t, s) = pages.fault == Fault::zero      ? 0
                                        : pages.fault == Fault::missing ? unseen
                                                                        : first;
                       }
                   });
          }};
}

std::vector<DefectVariant> every_fault(Index period, Index phase) {
  std::vector<DefectVariant> variants;
  for (const bool others : {true, false})
    for (const Fault fault : {Fault::zero, Fault::missing})
      variants.push_back(paged({period, phase, others, fault}));
  if (phase == 0) variants.push_back(paged({period, 0, true, Fault::first_of_page}));
  return variants;
}

/// Pages of a power of two, every phase of the usual ones, the first and last key of others.
std::vector<DefectVariant> periods(const Config&, const Symptom& symptom) {
  std::vector<DefectVariant> variants;
  for (Index period = 2; period <= std::min<Index>(256, symptom.rows); period *= 2)
    for (Index phase = 0; phase < period; ++phase) {
      if (period > 64 && phase != 0 && phase != period - 1) continue;
      const auto faults = every_fault(period, phase);
      variants.insert(variants.end(), faults.begin(), faults.end());
    }
  return variants;
}

std::vector<DefectVariant> usual_pages() {
  std::vector<DefectVariant> variants;
  for (const Index period : {16, 64}) {
    const auto faults = every_fault(period, 0);
    variants.insert(variants.end(), faults.begin(), faults.end());
  }
  return variants;
}

}  // namespace

std::vector<Defect> index_place_defects() {
  Defect shard{111,
               "indexer-causal-bound-of-shard",
               "Under context parallelism the causal bound is the row's number within its shard: "
               "rows see only as many keys as lie before them there.",
               issue("NVIDIA/Megatron-LM", 6058),
               scores_name,
               has_indexer,
               {zigzag(2), zigzag(4), contiguous(2), contiguous(4)}};
  shard.more = offsets;
  Defect pages{113,
               "indexer-keys-of-page",
               "A paged kernel scores only one key of every page, or misses one: the first or "
               "last of a block of 16, 64, ....",
               issue("ROCm/aiter", 5591),
               scores_name,
               has_indexer,
               usual_pages()};
  pages.more = periods;
  return {shard, pages};
}

}  // namespace dsa::verify
