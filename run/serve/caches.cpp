#include "run/serve/caches.hpp"

#include <algorithm>

namespace dsa::run::serve {
namespace {

/// How many tokens of the prompt need not be fed. The last one must, for its logits.
std::size_t shared(std::span<const Token> prompt, const std::vector<Token>& tokens) {
  const auto differs =
      std::mismatch(prompt.begin(), prompt.end() - 1, tokens.begin(), tokens.end());
  return static_cast<std::size_t>(differs.first - prompt.begin());
}

}  // namespace

Seen Caches::take(std::span<const Token> prompt, Index length, bool reuse) {
  Seen seen;
  const auto best = std::max_element(kept_.begin(), kept_.end(), [&](const Seen& a, const Seen& b) {
    return shared(prompt, a.tokens) < shared(prompt, b.tokens);
  });
  const std::size_t same = reuse && best != kept_.end() ? shared(prompt, best->tokens) : 0;
  if (same > 0) {
    seen = std::move(*best);
    kept_.erase(best);
    seen.cache->keep(static_cast<Index>(same));
    seen.tokens.resize(same);
  }
  ++in_use_;
  reserved_ += length;
  make_room();
  if (same == 0) seen.cache = engine_.new_cache();
  return seen;
}

void Caches::give_back(Seen seen, Index length) {
  --in_use_;
  reserved_ -= length;
  if (seen.cache) kept_.push_back(std::move(seen));
  make_room();
}

void Caches::make_room() {
  const auto is_too_much = [this] {
    Index tokens = reserved_;
    for (const Seen& seen : kept_) tokens += seen.cache->rows();
    return in_use_ + static_cast<int>(kept_.size()) > most_ || tokens > engine_.largest_length();
  };
  while (!kept_.empty() && is_too_much()) kept_.pop_front();
}

}  // namespace dsa::run::serve
