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

ModelPair ModelPair::in(Precision other) const {
  ModelPair models = *this;
  models.precision = other;
  models.loaded = reference::loaded_as(stored, other);
  // The official pipeline multiplies FP8 bytes as they are stored.
  if (other != Precision::official_fp8)
    models.loaded = resident(std::move(models.loaded), resident_limit_bytes);
  return models;
}

ModelPair open_models(const Model& stored, Precision precision, bool as_stored) {
  ModelPair models;
  models.stored = stored;
  models.definition = resident(stored, resident_limit_bytes);
  models.in_memory = models.definition.weights.embed_tokens.dtype == Dtype::f64;
  if (!as_stored) return models.in(precision);
  models.definition = stored;
  models.loaded = reference::loaded_as(stored, precision);
  models.precision = precision;
  return models;
}

ModelPair open_models(const std::filesystem::path& checkpoint, Precision precision,
                      bool as_stored) {
  return open_models(open_checkpoint(checkpoint), precision, as_stored);
}

Precision precision_of_dtype(const std::string& dtype) {
  if (dtype == "fp64") return Precision::fp64;
  if (dtype == "bf16" || dtype == "f16") return Precision::hf_bf16;
  return Precision::hf_fp32;
}

}  // namespace dsa::verify
