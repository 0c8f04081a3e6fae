// reference/model/forward.hpp — the whole model: DeepSeek-V2, V3, V3.2 and GLM-5, forward.
//
// A pass may be one prefill, chunks of any size, or token by token: the Cache holds what is behind.
// Several sequences are several passes; documents packed into one sequence, and padding, are told
// by Sequence::documents.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/recording.hpp"
#include "core/weights.hpp"
#include "reference/model/ops.hpp"

namespace dsa::reference {

/// Observer hooks. Both may also write: the rest of the pass sees the tensor that a hook replaces
/// and the decision that it replays.
template <class Real>
struct Tap {
  /// Every intermediate as (T, width), in order of execution, by its HuggingFace module name.
  std::function<void(const std::string& name, View<Real, 2> x)> tensor;
  /// Every top-k: selections ("...self_attn.indexer"), groups and experts ("...mlp.gate.groups",
  /// "...mlp.gate.experts"). chosen (T, K) subscripts of scores (T, S), -1 at the end of a row.
  std::function<void(const std::string& name, View<const Real, 2> scores, View<Index, 2> chosen)>
      decision;
};

/// What decoding needs of the past, per layer: a row for every token seen.
template <class Real>
struct LayerCache {
  std::vector<Real> c_kv;     // (S, R)  latent, normalised
  std::vector<Real> k_rope;   // (S, P)  rotated
  std::vector<Real> k_index;  // (S, D)  the indexer's key, normalised and rotated
};
template <class Real>
struct Cache {
  Sequence seen;
  std::vector<LayerCache<Real>> layers;  // one a layer, MTP blocks behind
};

enum class MlaForm { expanded, absorbed };

template <class Real>
struct Pass {
  const Model& model;
  const Ops<Real>& ops;
  Tap<Real> tap = {};
  MlaForm form = MlaForm::expanded;
};

/// x_0: rows of embed_tokens. (T, C)
template <class Real>
Tensor<Real, 2> embed(const Pass<Real>&, const Sequence&);

/// Runs blocks [begin, end) over x in place, appending to the cache.
template <class Real>
void run_layers(const Pass<Real>&, Tensor<Real, 2>& x, const Sequence&, Cache<Real>&, Index begin,
                Index end);

/// lm_head( RMSNorm(x) ). (T, V)
template <class Real>
Tensor<Real, 2> logits(const Pass<Real>&, const Tensor<Real, 2>& x);

/// The three together: logits (T, V) of the new tokens.
template <class Real>
Tensor<Real, 2> forward(const Pass<Real>&, const Sequence&, Cache<Real>&);

/// Logits of the first multi-token-prediction block: row t, made from x[t] (the last block's
/// output, before model.norm) and token t+1, predicts token t+2. (T-1, V)
template <class Real>
Tensor<Real, 2> mtp_logits(const Pass<Real>&, const Tensor<Real, 2>& x, const Sequence&);

}  // namespace dsa::reference
