// verify/measure/divergence.hpp — how far apart two sets of logits are.
#pragma once

#include <span>

#include "core/recording.hpp"
#include "verify/verdict.hpp"

namespace dsa::verify {

/// KL(softmax(want) || softmax(got)) in nats, from logits. With d = log q - log p it is summed as
/// sum p (e^d - 1 - d), every term of which is >= 0: as exact
/// as d itself, where the textbook sum p (log p - log q) has long cancelled. NaN if either side has
/// one.
double kl_divergence(View<const double, 1> want, View<const double, 1> got);

/// The larger of KL(a || b) and KL(b || a), which differ where the two lie far apart: a limit made
/// of it holds for both.
double larger_kl(View<const double, 1> a, View<const double, 1> b);

/// What kl_divergence itself may report for equal distributions: d carries a few roundings of
/// numbers of the size of the logits.
double kl_rounding(View<const double, 1> logits);

/// Whether x is the worse of the two: larger, or NaN where the other is not. NaN, once met, stays.
bool is_worse(double x, double than);

/// One row to compare: logits of one position, and where it is.
struct LogitsRow {
  Place at;
  View<const double, 1> want, got;  // (V)
  Token token = -1;                 // at this position
  Token next = -1;                  // the label: -1 where there is none
};

LogitsMetrics measure(std::span<const LogitsRow> rows);

}  // namespace dsa::verify
