#include "verify/judge/precision_of.hpp"

#include "verify/runs/models.hpp"

namespace dsa::verify {

reference::Precision precision_of(const Recording& side) {
  if (!side.logits.empty()) return precision_of_dtype(side.dtype);
  std::string widest;
  for (const Trace::Entry& entry : side.trace.entries()) {
    if (entry.dtype == Dtype::f64) return reference::Precision::fp64;
    if (entry.dtype == Dtype::f32) widest = "fp32";
    if ((entry.dtype == Dtype::bf16 || entry.dtype == Dtype::f16) && widest.empty())
      widest = "bf16";
  }
  return precision_of_dtype(widest);
}

}  // namespace dsa::verify
