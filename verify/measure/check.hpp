// verify/measure/check.hpp — numbers against their limits: the line that fails closed.
//
// NaN, an infinity that the other side does not have, and a limit that is no number are all beyond
// their limit; success is a positive statement (`n > 0 and nothing wrong`), never the absence of a
// complaint. Everything that dsa-verify compares goes through in_units_of().
#pragma once

#if defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__
#error "verify/ must be compiled without -ffast-math: it has to be able to see NaN"
#endif

#include <string>

#include "core/tensor.hpp"

namespace dsa::verify {

/// A place in the outputs of a model. -1: not meaningful here. Of a flat array only the channel is
/// known: the linear index.
struct Place {
  Index sequence = -1, position = -1, channel = -1;
  bool is_known() const { return sequence >= 0 || position >= 0 || channel >= 0; }
};

/// |got - want| / allowed: above 1 is beyond the limit. 0 for equal numbers, equal infinities among
/// them. Infinite where a side is NaN, where only one side is that infinity, and where `allowed` is
/// NaN, infinite or negative. Never NaN.
double in_units_of(double allowed, double got, double want);

/// Masks are written as -inf, or as a huge negative number: the lowest of a dtype (HuggingFace), or
/// seven tenths of it (MaxText).
bool is_masked(double x);

/// Numbers against their limits, and the worst of them.
struct Check {
  Index n = 0;           // compared
  Index over = 0;        // beyond their own limits
  Index wrong_kind = 0;  // NaN, or an infinity that the other side does not have; not in `over`
  double worst = 0;      // largest |got - want| / allowed
  double got = 0, want = 0, allowed = 0;  // there
  Place at = {};
  std::string from = {};  // derivation of the limit, in words: printed beside it

  /// One element against the reference.
  void add(double got, double want, double allowed, const Place&);

  /// One measured number, such as a KL divergence, against its limit: got, with want = 0.
  void add_value(double value, double limit, const Place&);

  bool ok() const { return n > 0 && over == 0 && wrong_kind == 0 && worst <= 1; }

 private:
  struct Element {
    double ratio, got, want, allowed;
  };
  void note(const Element&, const Place&);
};

}  // namespace dsa::verify
