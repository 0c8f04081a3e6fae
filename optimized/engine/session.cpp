#include "optimized/engine/session.hpp"

#include <algorithm>
#include <numeric>

namespace dsa {

Session::Session(std::unique_ptr<Engine> engine)
    : engine_(std::move(engine)),
      cache_(engine_->new_cache()),
      logits_({1, engine_->config().vocab_size}),
      positions_(static_cast<std::size_t>(engine_->pass_tokens())),
      begin_(positions_.size()) {}

Index Session::longest() const {
  const Index told = engine_->config().max_position_embeddings;
  return told > 0 ? std::min(told, engine_->largest_length()) : engine_->largest_length();
}

View<const float, 1> Session::append(std::span<const Token> tokens) {
  require(!tokens.empty(), "no token was given, expected at least one");
  const Index wanted = length() + static_cast<Index>(tokens.size());
  if (wanted > engine_->largest_length())
    throw Error("the sequence would be " + std::to_string(wanted) +
                " tokens long; the memory that may be used holds " +
                std::to_string(engine_->largest_length()));
  while (!tokens.empty()) {
    const std::size_t size = std::min(tokens.size(), positions_.size());
    std::iota(positions_.begin(), positions_.end(), length());
    const Feed feed{cache_.get(), tokens.first(size), std::span(positions_).first(size),
                    std::span(begin_).first(size)};
    engine_->forward({&feed, 1}, LogitsOf::last_of_each_feed, logits_);
    tokens = tokens.subspan(size);
  }
  return {logits_.data(), {logits_.size()}};
}

}  // namespace dsa
