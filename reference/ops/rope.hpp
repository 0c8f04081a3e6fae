// reference/ops/rope.hpp — rotary position embedding, with YaRN frequencies.
//
//   angle[t,i] = positions[t] * f[i],  i < P/2;   f[i] = theta^(-2i/P), blended under YaRN:
//   f[i] <- f[i]/factor * ramp[i] + f[i] * (1 - ramp[i]),   ramp[i] = clip((i-low)/(high-low), 0,
//   1) low = floor d(beta_fast), high = ceil d(beta_slow), d(b) = P ln(L0/(2 pi b)) / (2 ln theta)
//
// YaRN: arXiv 2309.00071; HuggingFace modeling_rope_utils.py, _compute_yarn_parameters.
#pragma once

#include <span>
#include <vector>

#include "core/config.hpp"
#include "core/tensor.hpp"

namespace dsa::reference {

/// f[i], i < P/2.
template <class Real>
std::vector<Real> rope_frequencies(const Rope&, Index P);

/// What cos and sin are multiplied with: 1 for every published V3 and V3.2 checkpoint.
double rope_attention_factor(const Rope&);

template <class Real>
void rope_table(View<Real, 2> cos,  // (T, P/2)  out
                View<Real, 2> sin,  // (T, P/2)  out
                std::span<const Index> positions, const Rope&);

/// Turns pair i of every head by angle[t,i], in place. Pairs are (2i, 2i+1) or (i, i + P/2).
template <class Real>
void rope(View<Real, 3> x,          // (T, heads, P)  in and out
          View<const Real, 2> cos,  // (T, P/2)
          View<const Real, 2> sin,  // (T, P/2)
          RopeLayout);

/// forward: (a, b) <- (a cos - b sin, b cos + a sin)
/// so:      (d_a, d_b) <- (d_a cos + d_b sin, d_b cos - d_a sin): the turn backwards, in place.
template <class Real>
void rope_backward(View<Real, 3> d_x,        // (T, heads, P)  in and out
                   View<const Real, 2> cos,  // (T, P/2)
                   View<const Real, 2> sin,  // (T, P/2)
                   RopeLayout);

}  // namespace dsa::reference
