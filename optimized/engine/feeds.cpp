#include "optimized/engine/feeds.hpp"

namespace dsa {

Index tokens_of(std::span<const Feed> feeds) {
  Index T = 0;
  for (const Feed& feed : feeds) T += feed.size();
  return T;
}

void check_feeds(std::span<const Feed> feeds, Index most, const Config& config) {
  const Index T = tokens_of(feeds);
  if (T > most)
    throw Error("a pass of " + std::to_string(T) + " tokens was asked of a workspace for " +
                std::to_string(most));
  for (const Feed& feed : feeds) {
    require(feed.size() > 0 && feed.positions.size() == feed.tokens.size() &&
                feed.begin.size() == feed.tokens.size(),
            "a feed needs at least one token, and a position and a first key for each");
    for (const Token token : feed.tokens)
      if (token < 0 || token >= config.vocab_size)
        throw Error("token id " + std::to_string(token) + " is not one of the vocabulary, 0 to " +
                    std::to_string(config.vocab_size - 1));
  }
}

}  // namespace dsa
