// verify/judge/precision_of.hpp — how a side was computed, where nobody says.
#pragma once

#include "core/recording.hpp"
#include "reference/precision/precision.hpp"

namespace dsa::verify {

/// By its logits' column, else by the widest floating-point tensor of its trace. hf-fp32 where it
/// holds integers only.
reference::Precision precision_of(const Recording&);

}  // namespace dsa::verify
