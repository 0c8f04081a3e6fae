// reference/ops/embed.hpp — x[t,:] = W[tokens[t],:], W = embed_tokens.
#pragma once

#include <span>

#include "core/recording.hpp"
#include "core/weights.hpp"

namespace dsa::reference {

/// A token outside the vocabulary is an Error.
template <class Real>
void embed(View<Real, 2> x,                // (T, C)  out
           std::span<const Token> tokens,  // (T)
           const Parameter& table);        // (V, C)

/// forward: x[t] = W[tokens[t]]       so: d_W[tokens[t]] += d_x[t]
/// A tied head adds its own share to the same d_W.
template <class Real>
void embed_backward(View<Real, 2> d_table,          // (V, C)  added to
                    std::span<const Token> tokens,  // (T)
                    View<const Real, 2> d_x);       // (T, C)

}  // namespace dsa::reference
