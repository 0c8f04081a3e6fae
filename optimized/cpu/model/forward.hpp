// optimized/cpu/model/forward.hpp — the whole model on a CPU: DeepSeek-V2, V3, V3.2 and GLM-5.
//
// Definition: reference/model/forward.hpp. MLA runs over the cached latents, each feed by itself:
// in absorbed form, or in either form (mla_form.hpp) where every visible key is attended to. A
// layer with an indexer attends sparsely, over the chosen keys, if some token of the feed sees more
// than index_topk keys. Otherwise every selection is everything that is visible: the keys are
// cached but not scored, and attention is dense.
#pragma once

#include <span>

#include "optimized/cpu/model/cache.hpp"
#include "optimized/cpu/model/model.hpp"
#include "optimized/cpu/model/workspace.hpp"
#include "optimized/engine/engine.hpp"

namespace dsa::cpu {

/// Logits of the requested rows, in the order of the feeds: (T, V) or (feeds, V). A pass allocates
/// nothing but pages of the caches. Errors: a cache that another backend made; more tokens than the
/// workspace has room for; logits misshaped; a score or a router's logit is NaN (the caches then
/// stay as they were).
void forward(const PackedModel&, Workspace&, std::span<const Feed>, LogitsOf,
             View<float, 2> logits,  // out
             const Tap& = {});

}  // namespace dsa::cpu
