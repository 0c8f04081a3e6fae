// verify/stats.hpp — quantiles (Boost.Math), for limits that come from perturbed runs.
#pragma once

namespace dsa::verify {

/// x with P(t > x) = tail, Student's t with `freedom` degrees of freedom.
double student_quantile(double freedom, double tail);

/// x with P(F > x) = tail, Fisher's F with (numerator, denominator) degrees of freedom.
double fisher_quantile(double numerator, double denominator, double tail);

}  // namespace dsa::verify
