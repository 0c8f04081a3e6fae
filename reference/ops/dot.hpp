// reference/ops/dot.hpp — the two inner loops of everything: the inner product of two rows, and a
// sum of scaled rows.
//
// Built for several widths of vector registers, of which the machine picks one. No width
// contracts a product and a sum, so all give the same bits.
#pragma once

#include "core/tensor.hpp"
#include "reference/dual.hpp"

namespace dsa::reference {

/// sum_i a[i] * b[i] as eight interleaved sums: smaller rounding error than one running sum, the
/// same order on every machine.
double dot(const double* a, const double* b, Index n);
long double dot(const long double* a, const long double* b, Index n);
Dual dot(const Dual* a, const Dual* b, Index n);

/// y[i] += a * x[i]
void add_scaled(double* y, double a, const double* x, Index n);
void add_scaled(long double* y, long double a, const long double* x, Index n);
void add_scaled(Dual* y, Dual a, const Dual* x, Index n);

}  // namespace dsa::reference
