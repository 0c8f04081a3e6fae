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

template <class Real>
struct MlaExpandedInputs {
  View<const Real, 3> q_nope;   // (T, N, B)
  View<const Real, 3> q_rope;   // (T, N, P)
  View<const Real, 3> kv;       // (S, N, B+U)  [k_nope | v]
  View<const Real, 2> k_rope;   // (S, P)
  View<const Index, 2> chosen;  // (T, K)       -1: no key
  double scale = 1;
};
template <class Real>
struct MlaExpandedGradient {
  View<Real, 3> d_q_nope;  // (T, N, B)    added to
  View<Real, 3> d_q_rope;  // (T, N, P)    added to
  View<Real, 3> d_kv;      // (S, N, B+U)  added to
  View<Real, 2> d_k_rope;  // (S, P)       added to; all heads share the key
};

/// forward: out = sum_s p_s v_s,   p = softmax_s z,   z_s = scale q.k_s
/// so:      d_v_s += p_s d_out,   d_p_s = d_out.v_s,   d_z_s = p_s ( d_p_s - sum_r p_r d_p_r ),
///          d_q += scale d_z_s k_s,   d_k_s += scale d_z_s q
template <class Real>
void mla_expanded_backward(const MlaExpandedGradient<Real>&, const MlaExpandedInputs<Real>&,
                           View<const Real, 3> d_out);  // (T, N, U)

template <class Real>
struct MlaAbsorbedInputs {
  View<const Real, 3> q_nope;   // (T, N, B)
  View<const Real, 3> q_rope;   // (T, N, P)
  View<const Real, 2> c_kv;     // (S, R)       the latent
  View<const Real, 2> k_rope;   // (S, P)
  View<const Real, 3> kv_b;     // (N, B+U, R)  [W_UK | W_UV]
  View<const Index, 2> chosen;  // (T, K)       -1: no key
  double scale = 1;
};
template <class Real>
struct MlaAbsorbedGradient {
  View<Real, 3> d_q_nope;  // (T, N, B)    added to
  View<Real, 3> d_q_rope;  // (T, N, P)    added to
  View<Real, 2> d_c_kv;    // (S, R)       added to
  View<Real, 2> d_k_rope;  // (S, P)       added to
  View<Real, 3> d_kv_b;    // (N, B+U, R)  added to
};

/// forward: q~ = W_UK^T q_nope,   z_s = scale ( q~.c_s + q_rope.k_rope_s ),   p = softmax_s z,
///          o~ = sum_s p_s c_s,   out = W_UV o~
/// so:      d_W_UV += d_out o~^T,   d_o~ = W_UV^T d_out,   d_p_s = d_o~.c_s,   d_z as above,
///          d_c_s += p_s d_o~ + scale d_z_s q~,   d_q~ = scale sum_s d_z_s c_s,
///          d_q_nope += W_UK d_q~,   d_W_UK += q_nope d_q~^T
template <class Real>
void mla_absorbed_backward(const MlaAbsorbedGradient<Real>&, const MlaAbsorbedInputs<Real>&,
                           View<const Real, 3> d_out);  // (T, N, U)

/// p <- softmax of p, subtracting the maximum first. Empty: nothing to do.
template <class Real>
void softmax(Real* p, Index n);

}  // namespace dsa::reference
