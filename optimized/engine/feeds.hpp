// optimized/engine/feeds.hpp — what every engine asks of its feeds.
#pragma once

#include "optimized/engine/engine.hpp"

namespace dsa {

Index tokens_of(std::span<const Feed>);

/// Errors: more than `most` tokens; a feed without any, or without a position and a first key for
/// each; a token outside the vocabulary.
void check_feeds(std::span<const Feed>, Index most, const Config&);

}  // namespace dsa
