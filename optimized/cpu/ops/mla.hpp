// optimized/cpu/ops/mla.hpp — inputs and outputs of the forms of MLA.
#pragma once

#include "optimized/shared/pages.hpp"
#include "optimized/shared/rows.hpp"

namespace dsa::cpu {

/// V: channels of a head's output; R in absorbed form, U in expanded form.
struct MlaOut {
  View<float, 3> out;  // (T, N, V)
  View<float, 2> lse;  // (T, N)  natural logarithm
};

/// Absorbed form. Q, Row: float, float; bf16, bf16; bf16, e4m3.
template <class Q, class Row>
struct MlaIn {
  View<const Q, 3> q;   // (T, N, R+P)
  Pages<const Row> kv;  // (S, R+P)  rows.hpp
  double scale;
};

}  // namespace dsa::cpu
