// optimized/cpu/ops/expert_rows.hpp — the tokens of a mixture, sorted by expert, and back.
// Definition: reference/model/{moe,moe_backward}.cpp.
//
// A pair is a token t and the i-th of its k experts; a row is the place of a pair once pairs are
// sorted by expert (of one expert: by token). M = T k.
#pragma once

#include <cstdint>
#include <span>

#include "core/tensor.hpp"
#include "optimized/cpu/ops/tier.hpp"

namespace dsa::cpu {

struct ExpertRows {
  View<std::int32_t, 1> pair;  // (M)     t k + i of a row
  View<std::int32_t, 2> row;   // (T, k)  row of a pair
  std::span<Index> begin;      // (E+1)   rows of expert e: [begin[e], begin[e+1])
};

/// Error: an expert is not in [0, E).
void sort_by_expert(const ExpertRows&, View<const std::int32_t, 2> experts);  // (T, k)

/// y[row] = x[t] for every pair.
void gather_rows(Cpu, View<float, 2> y,   // (M, C)  out
                 View<const float, 2> x,  // (T, C)
                 const ExpertRows&);

/// forward: y[t] += sum_i w[t,i] x[row of (t,i)]; without w: every weight is 1, and y is the
///          gradient of what gather_rows read.
void add_rows(Cpu, View<float, 2> y,         // (T, C)  added to
              View<const float, 2> x,        // (M, C)
              View<const float, 2> weights,  // (T, k), or without data
              const ExpertRows&);

/// forward: y[t] += w[t,i] W h[row],  and d_h = W^T d_y[t] without the weight
/// so:      d_w[t,i] = h[row] . d_h[row],  and both rows are multiplied by w[t,i]: h for the
///          gradient of W, d_h as the gradient of h.
void mixing_backward(Cpu, View<float, 2> d_weights,  // (T, k)  out
                     View<float, 2> h,               // (M, F)  in and out
                     View<float, 2> d_h,             // (M, F)  in and out
                     View<const float, 2> weights,   // (T, k)
                     const ExpertRows&);

}  // namespace dsa::cpu
