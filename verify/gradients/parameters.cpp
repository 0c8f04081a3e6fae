#include "verify/gradients/parameters.hpp"

#include "core/weights.hpp"

namespace dsa::verify {
namespace {

Index volume_of(const std::vector<Index>& shape) {
  Index n = 1;
  for (Index extent : shape) n *= extent;
  return n;
}

}  // namespace

std::vector<double> values_of(const StoredTensor& t) {
  std::vector<double> values(static_cast<std::size_t>(t.size()));
  decode(t.dtype, t.data, t.size(), values.data());
  return values;
}

Parameters::Parameters(const Config& config, const std::string& names) : config_(config) {
  auto weights = empty_weights(config);
  for_each_tensor(weights, config, [&](const std::string& name, auto&, std::vector<Index> shape) {
    shapes_[name] = std::move(shape);
  });
  if (!names.empty()) map_ = ParameterMap::open(names);
}

bool Parameters::knows(const std::string& name) const {
  return shapes_.contains(parts_of(name).front());
}

/// The parameters that a stored name stands for, in the order of its numbers.
std::vector<std::string> Parameters::parts_of(const std::string& name) const {
  const bool gate_up = name.ends_with(".mlp.experts.gate_up_proj"),
             down = name.ends_with(".mlp.experts.down_proj");
  if (!gate_up && !down) return {name};
  std::vector<std::string> parts;
  const std::string at = name.substr(0, name.rfind('.') + 1);
  for (Index e = 0; e < config_.n_routed_experts; ++e) {
    const std::string expert = at + std::to_string(e) + ".";
    if (gate_up)
      parts.insert(parts.end(), {expert + "gate_proj.weight", expert + "up_proj.weight"});
    else
      parts.push_back(expert + "down_proj.weight");
  }
  return parts;
}

/// A matrix that lies the other way round is worth a word of its own.
void Parameters::check_shape(const StoredTensor& t, const std::vector<std::string>& parts,
                             bool packed, const std::filesystem::path& path) const {
  Index expected = 0;
  for (const std::string& part : parts) {
    require(shapes_.contains(part),
            path.string() + ": " + t.name +
                " is of a parameter that the model does not have; names are those of the "
                "checkpoint, or say whose they are with --names");
    expected += volume_of(shapes_.at(part));
  }
  const std::string found = path.string() + ": " + t.name + " has shape " + shape_text(t.shape);
  if (packed)
    return require(t.size() == expected, found + ", expected that of its parameters, " +
                                             std::to_string(expected) + " numbers");
  const std::vector<Index>& shape = shapes_.at(parts.front());
  require(t.shape != std::vector<Index>(shape.rbegin(), shape.rend()) || t.shape == shape,
          found + ", the transpose of its parameter's " + shape_text(shape) +
              "; write (out, in), or say whose layout it is with --names");
  require(t.shape == shape, found + ", expected that of its parameter, " + shape_text(shape));
}

void Parameters::read(ByParameter& out, const StoredTensor& t, const std::string& name,
                      const std::filesystem::path& path) const {
  const std::vector<double> values = values_of(t);
  const auto put = [&](const std::string& parameter, std::vector<double> its) {
    require(out.emplace(parameter, StoredValues{t.dtype, std::move(its)}).second,
            path.string() + ": " + t.name + " is a second tensor of " + parameter);
  };
  if (map_) {
    std::map<std::string, std::vector<double>> mapped;
    try {
      mapped = map_->parts_of(name, {t.shape, values}, config_, shapes_);
    } catch (const Error& e) {
      throw Error(path.string() + ": " + e.what());
    }
    for (auto& [parameter, its] : mapped) put(parameter, std::move(its));
    if (!mapped.empty()) return;
  }
  const std::vector<std::string> parts = parts_of(name);
  check_shape(t, parts, parts.size() > 1 || parts.front() != name, path);
  auto from = values.begin();
  for (const std::string& part : parts) {
    const auto end = from + volume_of(shapes_.at(part));
    put(part, {from, end});
    from = end;
  }
}

bool looks_like_bf16(const ByParameter& parameters) {
  Index all = 0, narrow = 0;
  for (const auto& [name, stored] : parameters)
    for (const double value : stored.values) {
      if (round_to(Dtype::bf16, value) == value) ++narrow;
      ++all;
    }
  return 4 * narrow > 3 * all;
}

}  // namespace dsa::verify
