// optimized/cpu/forward.hpp — the whole model on a CPU: DeepSeek-V2, V3, V3.2 and GLM-5.
//
// Definition: reference/forward.hpp. MLA runs over the cached latents, in absorbed form or, where
// every visible key is attended to, in either (mla.hpp), each feed by itself. Layers of a model
// with an indexer attend sparsely, over the chosen keys, wherever some token of a feed sees more
// than index_topk of them; where none does, every selection is everything that is visible: nothing
// is scored (the keys are cached all the same), and attention is dense.
#pragma once

#include <functional>
#include <span>
#include <string>

#include "core/golden.hpp"
#include "optimized/cpu/cache.hpp"
#include "optimized/cpu/model.hpp"
#include "optimized/cpu/workspace.hpp"

namespace dsa::cpu {

/// The next tokens of one sequence. Several feeds in one pass share its matrix products: the tokens
/// of a prefill, or one token each of many sequences.
struct Feed {
  Cache* cache = nullptr;               // rows before the first token; the new ones are committed
  std::span<const Token> tokens;        // in [0, V); no padding
  std::span<const Index> positions;     // of the rotary embedding
  std::span<const std::int32_t> begin;  // the first row of the cache that each token may look at
  Index size() const { return static_cast<Index>(tokens.size()); }
};

/// Somebody looking on, by the names of reference/forward.hpp; rows are the tokens of all feeds.
struct Tap {
  std::function<void(const std::string& name, View<const float, 2> x)> tensor;
  /// Selections hold rows of the cache, in ascending order, then -1.
  std::function<void(const std::string& name, View<const std::int32_t, 2> chosen)> decision;
};

enum class LogitsOf { every_token, last_of_each_feed };

/// Logits of the asked rows, in the order of the feeds: (T, V) or (feeds, V). Of what grows with a
/// sequence only pages of its cache are allocated. Errors: more tokens than the workspace has room
/// for; logits misshaped; a score or a router's logit is NaN (the caches then stay as they were).
void forward(const PackedModel&, Workspace&, std::span<const Feed>, LogitsOf,
             View<float, 2> logits,  // out
             const Tap& = {});

}  // namespace dsa::cpu
