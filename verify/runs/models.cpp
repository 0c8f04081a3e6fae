#include "verify/runs/models.hpp"

#include "core/checkpoint.hpp"

namespace dsa::verify {

using reference::Precision;

Variant ModelPair::exact() const {
  Variant altered{definition, reference::definition<double>()};
  if (alter) alter(altered);
  return altered;
}

Variant ModelPair::rounded(const reference::Rounding& how) const {
  Variant altered{loaded, reference::ops_of(precision, how, loaded.config)};
  if (alter) alter(altered);
  return altered;
}

ModelPair open_models(const std::filesystem::path& checkpoint, Precision precision,
                      bool as_stored) {
  ModelPair models;
  models.precision = precision;
  const Model stored = open_checkpoint(checkpoint);
  models.definition = resident(stored, resident_limit_bytes);
  models.loaded = reference::loaded_as(stored, precision);
  models.in_memory = models.definition.weights.embed_tokens.dtype == Dtype::f64;
  if (as_stored) models.definition = stored;
  // The official pipeline multiplies FP8 bytes as they are stored.
  if (precision != Precision::official_fp8 && !as_stored)
    models.loaded = resident(std::move(models.loaded), resident_limit_bytes);
  return models;
}

}  // namespace dsa::verify
