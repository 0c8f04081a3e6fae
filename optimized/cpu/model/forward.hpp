// optimized/cpu/model/forward.hpp — the whole model on a CPU: DeepSeek-V2, V3, V3.2 and GLM-5.
//
// Definition: reference/model/forward.hpp. MLA runs over the cached latents, in absorbed form or,
// where every visible key is attended to, in either (mla.hpp), each feed by itself. Layers of a
// model with an indexer attend sparsely, over the chosen keys, wherever some token of a feed sees
// more than index_topk of them; where none does, every selection is everything that is visible:
// nothing is scored (the keys are cached all the same), and attention is dense.
#pragma once

#include <span>

#include "optimized/cpu/model/cache.hpp"
#include "optimized/cpu/model/model.hpp"
#include "optimized/cpu/model/workspace.hpp"
#include "optimized/engine/engine.hpp"

namespace dsa::cpu {

/// Logits of the asked rows, in the order of the feeds: (T, V) or (feeds, V). Of what grows with a
/// sequence only pages of its cache are allocated. Errors: a cache that
/// another backend made; more tokens than the workspace has room for; logits misshaped; a score or
/// a router's logit is NaN (the caches then stay as they were).
void forward(const PackedModel&, Workspace&, std::span<const Feed>, LogitsOf,
             View<float, 2> logits,  // out
             const Tap& = {});

}  // namespace dsa::cpu
