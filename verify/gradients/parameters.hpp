// verify/gradients/parameters.hpp — numbers for every element of a parameter (its gradient, its
// value after training), as they lie in a file.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/config.hpp"
#include "core/safetensors.hpp"
#include "verify/names/parameter_map.hpp"

namespace dsa::verify {

struct StoredValues {
  Dtype dtype = Dtype::f64;
  std::vector<double> values;
};
using ByParameter = std::map<std::string, StoredValues>;

std::vector<double> values_of(const StoredTensor&);

/// The parameters of a config and their shapes, by HuggingFace names, experts one by one.
class Parameters {
 public:
  /// `names`: a parameter map of the files that are read; empty: none.
  explicit Parameters(const Config&, const std::string& names = "");

  /// Adds to `out` what a tensor holds for the parameter `name`, or for the experts that are packed
  /// under it. Error, which begins with `path`: no such parameter, another shape, one that is there
  /// already.
  void read(ByParameter& out, const StoredTensor&, const std::string& name,
            const std::filesystem::path& path) const;

  /// One of these parameters, or experts packed, has this name.
  bool knows(const std::string& name) const;

 private:
  std::vector<std::string> parts_of(const std::string& name) const;
  void check_shape(const StoredTensor&, const std::vector<std::string>& parts, bool packed,
                   const std::filesystem::path& path) const;

  const Config& config_;
  ParameterMap::Shapes shapes_;
  std::optional<ParameterMap> map_;
};

/// Whether three quarters of the numbers, or more, are exact in bf16.
bool looks_like_bf16(const ByParameter&);

}  // namespace dsa::verify
