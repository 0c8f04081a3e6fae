// verify/measure/stats.hpp — quantiles (Boost.Math), for limits that come from perturbed runs, and
// rates.
#pragma once

namespace dsa::verify {

/// x with P(t > x) = tail, Student's t with `freedom` degrees of freedom.
double student_quantile(double freedom, double tail);

/// x with P(F > x) = tail, Fisher's F with (numerator, denominator) degrees of freedom.
double fisher_quantile(double numerator, double denominator, double tail);

/// The most that a probability may be, at this confidence, after k hits in n trials
/// (Clopper-Pearson, one-sided).
double most_probable(int trials, int hits, double confidence);

}  // namespace dsa::verify
