// run/serve/caches.hpp — caches of sequences, in use or kept for a prompt that begins alike.
#pragma once

#include <list>
#include <memory>
#include <span>
#include <vector>

#include "optimized/engine/engine.hpp"

namespace dsa::run::serve {

/// A cache and the tokens whose rows it holds.
struct Seen {
  std::unique_ptr<SequenceCache> cache;
  std::vector<Token> tokens;
};

/// One thread's. All caches together hold at most the engine's largest_length() of tokens: those in
/// use count what they may grow to, those kept what they hold.
class Caches {
 public:
  Caches(const Engine& engine, int most) : engine_(engine), most_(most) {}

  /// Whether a sequence of that length can begin now, if all that is kept is thrown away.
  bool has_room(Index length) const {
    return in_use_ < most_ && reserved_ + length <= engine_.largest_length();
  }

  /// For a sequence that will have `length` tokens and begins with `prompt`; has_room(length). With
  /// `reuse` it may hold a beginning of the prompt, never all of it.
  Seen take(std::span<const Token> prompt, Index length, bool reuse);

  /// Back from take() with the same length; kept, unless the cache is null.
  void give_back(Seen, Index length);

 private:
  void make_room();

  const Engine& engine_;
  int most_, in_use_ = 0;
  Index reserved_ = 0;    // tokens of those in use
  std::list<Seen> kept_;  // the longest unused first
};

}  // namespace dsa::run::serve
