// verify/runs/models.hpp — a checkpoint as the definition reads it, and as an implementation loads
// it.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "reference/precision/precision.hpp"
#include "verify/runs/variant.hpp"

namespace dsa::verify {

/// Models of up to this size are decoded once and run side by side; larger ones stay on disk.
inline constexpr Index resident_limit_bytes = Index{1} << 30;

/// The definition, and the same checkpoint as the judged implementation loads it.
struct ModelPair {
  Model stored;  // as the checkpoint's files have it
  Model definition, loaded;
  reference::Precision precision = reference::Precision::fp64;
  bool in_memory = false;               // decoded once; runs go side by side
  std::function<void(Variant&)> alter;  // a defect put into both; empty: none

  Variant exact() const;                                  // the definition
  Variant rounded(const reference::Rounding& how) const;  // with the precision's roundings

  /// The same checkpoint as an implementation in another precision loads it. Opens nothing.
  ModelPair in(reference::Precision) const;
};
/// `as_stored`: FP8 parameters stay as they are in the file, for defects that alter their scales.
ModelPair open_models(const Model& stored, reference::Precision, bool as_stored = false);
ModelPair open_models(const std::filesystem::path& checkpoint, reference::Precision,
                      bool as_stored = false);

/// The precision that a column of this name is taken for: fp64, hf-fp32 or hf-bf16.
reference::Precision precision_of_dtype(const std::string& dtype);

}  // namespace dsa::verify
