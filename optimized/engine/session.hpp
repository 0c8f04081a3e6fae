// optimized/engine/session.hpp — a loaded model, and one conversation with it.
//
//   Session session(backend_named("cpu").open(open_checkpoint("models/v32"), {}));
//   View<const float, 1> logits = session.append(prompt);          // of the last token
//   while (...) logits = session.append({&next, 1});               // one token at a time
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "optimized/engine/engine.hpp"

namespace dsa {

class Session {
 public:
  explicit Session(std::unique_ptr<Engine>);

  const Engine& engine() const { return *engine_; }
  Index length() const { return cache_->rows(); }  // tokens fed

  /// Tokens that it takes in all: what the memory holds, or what the config says if that is less.
  Index longest() const;

  /// Feeds the next tokens. Returns the logits (V) of the last one, which live until the next
  /// call. Error: no token, or one outside the vocabulary; more tokens than largest_length().
  View<const float, 1> append(std::span<const Token> tokens);

  /// Forgets every token.
  void clear() { cache_->clear(); }

  /// Forgets every token but the first n, of length() at most.
  void keep(Index n) { cache_->keep(n); }

 private:
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<SequenceCache> cache_;
  Tensor<float, 2> logits_;          // (1, V)
  std::vector<Index> positions_;     // of a pass
  std::vector<std::int32_t> begin_;  // zeros: one document
};

}  // namespace dsa
