// text/sampling.hpp — logits to the next token.
#pragma once

#include <cstdint>

#include "core/recording.hpp"
#include "core/tensor.hpp"

namespace dsa::text {

struct Sampling {
  double temperature = 0;  // 0: the largest logit, the lower id among equals
  double top_p = 1;        // only the likeliest tokens that together have this probability
  std::uint64_t seed = 0;
};

/// The token of step `step`: a pure function of its arguments, drawn in double with
/// uniform(seed, step); the same on every platform up to the last bit of exp. An Error if a logit
/// is NaN or +infinity, or all are -infinity.
Token sample(View<const float, 1> logits, const Sampling&, std::uint64_t step);

/// The logarithm of the sum of all exponentials, in double: a token's log-probability is its logit
/// less this. Errors as above.
double log_sum_exp(View<const float, 1> logits);

}  // namespace dsa::text
