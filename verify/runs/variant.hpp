// verify/runs/variant.hpp — whatever is run: the definition, a precision, a known defect.
#pragma once

#include "core/weights.hpp"
#include "reference/model/ops.hpp"

namespace dsa::verify {

/// A model and the ops that run it. A changed config or weight changes what every op is told.
struct Variant {
  Model model;                 // borrows the same memory as the original
  reference::Ops<double> ops;  // the definition's, or a precision's with its roundings
};

}  // namespace dsa::verify
