// reference/ops/mla.hpp — multi-head latent attention over the chosen keys.
//
//   out[t,n,:] = sum_s p[t,n,s] v[s,n,:],   p[t,n,:] = softmax_s( scale * q[t,n,:] . k[s,n,:] ),
//   s in chosen[t,:];  q = [q_nope | q_rope],  k[s,n,:] = [k_nope[s,n,:] | k_rope[s,:]]
//
// DeepSeek-V2 (arXiv 2405.04434) section 2.1. A query that chose nothing yields zeros.
// Two algebraically equal forms:
//   expanded: k_nope and v of every head are made from the latent by kv_b_proj = [W_UK | W_UV];
//   absorbed: W_UK moves to the query and W_UV behind the sum, so that every head reads the one
//             latent row of a key: multi-query attention, as the kernels compute it.
#pragma once

#include "core/tensor.hpp"

namespace dsa::reference {

template <class Real>
void mla_expanded(View<Real, 3> out,            // (T, N, U)    out
                  View<const Real, 3> q_nope,   // (T, N, B)
                  View<const Real, 3> q_rope,   // (T, N, P)
                  View<const Real, 3> kv,       // (S, N, B+U)  [k_nope | v]
                  View<const Real, 2> k_rope,   // (S, P)
                  View<const Index, 2> chosen,  // (T, K)       -1: no key
                  double scale);

template <class Real>
void mla_absorbed(View<Real, 3> out,            // (T, N, U)       out
                  View<const Real, 3> q_nope,   // (T, N, B)
                  View<const Real, 3> q_rope,   // (T, N, P)
                  View<const Real, 2> c_kv,     // (S, R)          the latent
                  View<const Real, 2> k_rope,   // (S, P)
                  View<const Real, 3> kv_b,     // (N, B+U, R)     [W_UK | W_UV]
                  View<const Index, 2> chosen,  // (T, K)          -1: no key
                  double scale);

/// p <- softmax of p, subtracting the maximum first. Empty: nothing to do.
template <class Real>
void softmax(Real* p, Index n);

}  // namespace dsa::reference
