// optimized/train/pipeline/feeds.hpp — the data of every stage, opened once.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "optimized/train/data/feed.hpp"
#include "optimized/train/pipeline/stage.hpp"

namespace dsa::train {

class Feeds {
 public:
  Feeds(const Settings&, Index vocab_size);

  /// Opens what the stage reads. Errors name the source: an unknown kind, no such file, a task that
  /// does not fit into a row.
  Feed feed_of(const Stage&);

  /// {source: sha256 of its files} of every corpus opened so far, for the receipt.
  Json hashes() const;

 private:
  Source source_of(const std::string& name, double weight, const Stage&);

  const Settings& settings_;
  Index vocab_size_;
  TextTokens tokens_;
  std::map<std::string, std::shared_ptr<const Corpus>> corpora_;  // by source and length of rows
};

}  // namespace dsa::train
