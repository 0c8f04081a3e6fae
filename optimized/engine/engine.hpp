// optimized/engine/engine.hpp — a checkpoint that some backend has loaded: all that sessions,
// evaluators and the judge need of it.
//
// A backend (optimized/backends.hpp) makes engines; an engine makes caches and runs passes. Nothing
// above this line knows where the numbers lie.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>

#include "core/config.hpp"
#include "core/recording.hpp"

namespace dsa {

/// What is kept of the tokens of one sequence, in every layer. Made by an engine, for its passes.
class SequenceCache {
 public:
  virtual ~SequenceCache() = default;

  /// Tokens kept.
  Index rows() const { return rows_; }

  /// Forgets every token; keeps the memory.
  void clear() { rows_ = 0; }

  /// Forgets every token but the first n.
  void keep(Index n) {
    require(0 <= n && n <= rows_, "a cache cannot keep more tokens than it has");
    rows_ = n;
  }

 protected:
  Index rows_ = 0;
};

/// The next tokens of one sequence. Several feeds in one pass share its matrix products: the tokens
/// of a prefill, or one token each of many sequences.
struct Feed {
  SequenceCache* cache = nullptr;    // rows before the first token; the pass commits the new ones
  std::span<const Token> tokens;     // in [0, V); no padding
  std::span<const Index> positions;  // of the rotary embedding
  std::span<const std::int32_t> begin;  // the first row of the cache that each token may look at
  Index size() const { return static_cast<Index>(tokens.size()); }
};

/// Somebody looking on, by the names of reference/model/forward.hpp; rows are the tokens of all
/// feeds.
struct Tap {
  std::function<void(const std::string& name, View<const float, 2> x)> tensor;
  /// Selections hold rows of the cache, in ascending order, then -1.
  std::function<void(const std::string& name, View<const std::int32_t, 2> chosen)> decision;
};

/// As given on a command line (optimized/engine/arguments.hpp); what is empty or 0 is chosen.
struct EngineOptions {
  std::string backend = "cpu";
  std::string format = "bf16";  // fp32, bf16 or fp8; releases are stored and served in bf16
  std::string tier = {};        // of cpu
  std::string mla = {};         // of cpu: automatic, absorbed or expanded
  Index chunk = 512;            // tokens of a pass, at most
  Index memory = 0;             // bytes that may be used; 0: what is available
  int threads = 0;              // of cpu
};

enum class LogitsOf { every_token, last_of_each_feed };

class Engine {
 public:
  virtual ~Engine() = default;

  virtual const Config& config() const = 0;
  virtual std::string name() const = 0;      // "cpu (bf16, avx512)"
  virtual Index pass_tokens() const = 0;     // most tokens of a pass, all feeds together
  virtual Index largest_length() const = 0;  // tokens of one sequence that memory allows
  virtual std::unique_ptr<SequenceCache> new_cache() const = 0;

  /// Logits of the asked rows, in the order of the feeds: (T, V) or (feeds, V), in memory of the
  /// host. Errors: more tokens than pass_tokens(); a token outside the vocabulary; a score or a
  /// router's logit is NaN (the caches then stay as they were); no memory for a cache.
  virtual void forward(std::span<const Feed>, LogitsOf, View<float, 2> logits,  // out
                       const Tap& = {}) = 0;
};

}  // namespace dsa
