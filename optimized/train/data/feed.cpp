#include "optimized/train/data/feed.hpp"

#include <algorithm>

#include "core/check.hpp"
#include "core/random.hpp"
#include "optimized/train/data/shuffle.hpp"

namespace dsa::train {
namespace {

/// Streams of random numbers of one seed.
enum Stream : std::uint64_t { mix, order, made, made_for_evaluation, easier };

std::uint64_t stream(std::uint64_t seed, Stream which) { return random_bits(seed, which); }

/// Of a source: two of one kind draw different documents.
std::uint64_t stream(std::uint64_t seed, Stream which, const Source& source) {
  return seed_of(source.name, random_bits(seed, which));
}

/// Documents of a corpus that are evaluation's: at most a quarter.
Index held_out_of(const Corpus& corpus, Index wanted) {
  return std::min(wanted, corpus.size() / 4);
}

}  // namespace

Json to_json(const Cursor& cursor) {
  return {{"documents", cursor.documents}, {"drawn", cursor.drawn}};
}

Cursor cursor_of(const Json& json) {
  return {json.at("documents").get<Index>(), json.at("drawn").get<std::map<std::string, Index>>()};
}

Feed::Feed(FeedPlan plan) : plan_(std::move(plan)) {
  require(!plan_.sources.empty(), "a feed needs a source of data");
}

const Source& Feed::source_of(Index document) const {
  double total = 0;
  for (const Source& source : plan_.sources) total += source.weight;
  double at = total * uniform(stream(plan_.seed, mix), static_cast<std::uint64_t>(document));
  for (const Source& source : plan_.sources)
    if ((at -= source.weight) < 0) return source;
  return *std::find_if(plan_.sources.rbegin(), plan_.sources.rend(),
                       [](const Source& source) { return source.weight > 0; });
}

Task Feed::task_at(const Source& source, std::size_t level) const {
  Task task = source.task;
  task.pairs = plan_.levels[level];
  return task;
}

Document Feed::document(const Source& source, Index number, std::size_t level) const {
  const auto i = static_cast<std::uint64_t>(number);
  if (source.corpus) {
    const Index size = source.corpus->size();
    const Index kept = held_out_of(*source.corpus, plan_.held_out), n = size - kept;
    const Index at = shuffled(number % n, n, stream(plan_.seed, order, source),
                              static_cast<std::uint64_t>(number / n));
    return source.corpus->document(shuffled(kept + at, size, 0, 0));
  }
  const std::uint64_t dice = random_bits(stream(plan_.seed, easier, source), i);
  if (level > 0 && dice % 4 == 0) level = (dice / 4) % level;
  return make_document(task_at(source, level), stream(plan_.seed, made, source), i, false);
}

Document Feed::held_out(const Source& source, Index number, std::size_t level) const {
  if (source.corpus) return source.corpus->document(shuffled(number, source.corpus->size(), 0, 0));
  return make_document(task_at(source, level), stream(plan_.seed, made_for_evaluation, source),
                       static_cast<std::uint64_t>(number), true);
}

void Feed::put(Batch& batch, const Document& document) const {
  const auto begin = static_cast<std::int32_t>(batch.rows());
  const bool has_answers =
      std::find(document.answer.begin(), document.answer.end(), 1) != document.answer.end();
  const bool every = plan_.every_target || !has_answers;
  for (std::size_t t = 0; t < document.tokens.size(); ++t) {
    batch.tokens.push_back(document.tokens[t]);
    batch.positions.push_back(static_cast<Index>(t));
    batch.begin.push_back(begin);
    const bool learned = t + 1 < document.tokens.size() && (every || document.answer[t + 1] != 0);
    batch.target_weight.push_back(learned ? 1.0f : 0.0f);
  }
}

std::vector<Batch> Feed::next(Cursor& cursor, std::size_t level) const {
  std::vector<Batch> parts(static_cast<std::size_t>(plan_.accumulation));
  const Index rows = plan_.batch / plan_.accumulation;
  for (Batch& part : parts)
    for (Index row = 0; row < rows; ++row)
      for (Index room = plan_.seq; room > 0;) {
        const Source& source = source_of(cursor.documents);
        Index& drawn = cursor.drawn[source.name];
        const Document next = document(source, drawn, level);
        if (next.size() > room) break;
        put(part, next);
        room -= next.size();
        ++drawn;
        ++cursor.documents;
      }
  return parts;
}

std::vector<Batch> Feed::evaluation(const Source& source, std::size_t level) const {
  const Index n = source.corpus ? held_out_of(*source.corpus, plan_.held_out) : plan_.held_out;
  const Index most = plan_.seq * std::max<Index>(plan_.batch / plan_.accumulation, 1);
  std::vector<Batch> parts;
  for (Index i = 0; i < n; ++i) {
    const Document next = held_out(source, i, level);
    if (parts.empty() || parts.back().rows() + next.size() > most) parts.emplace_back();
    put(parts.back(), next);
  }
  return parts;
}

}  // namespace dsa::train
