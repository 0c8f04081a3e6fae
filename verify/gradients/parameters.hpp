// verify/gradients/parameters.hpp — numbers for every element of a parameter (its gradient, its
// value after training), as they lie in a file.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/config.hpp"
#include "core/safetensors.hpp"

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
  explicit Parameters(const Config&);

  /// Adds to `out` what a tensor holds for the parameter `name`, or for the experts that are packed
  /// under it. Error, which begins with `path`: no such parameter, another shape.
  void read(ByParameter& out, const StoredTensor&, const std::string& name,
            const std::filesystem::path& path) const;

 private:
  std::vector<std::string> parts_of(const std::string& name) const;

  const Config& config_;
  std::map<std::string, std::vector<Index>> shapes_;
};

/// Whether three quarters of the numbers, or more, are exact in bf16.
bool looks_like_bf16(const ByParameter&);

}  // namespace dsa::verify
