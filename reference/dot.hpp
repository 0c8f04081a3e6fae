// reference/dot.hpp — the inner product of two rows.
#pragma once

#include "core/tensor.hpp"

namespace dsa::reference {

/// sum_i a[i] * b[i] as eight interleaved sums: smaller rounding error than one running sum, the
/// same order on every machine, and open to vector registers without changing a bit.
template <class Real>
Real dot(const Real* a, const Real* b, Index n);

}  // namespace dsa::reference
