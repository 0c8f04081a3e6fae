#include "verify/gradients/gradient_file.hpp"

#include <algorithm>
#include <cstring>

#include "core/safetensors.hpp"
#include "core/weights.hpp"

namespace dsa::verify {
namespace {

const char* const known_losses[] = {"lm", "kl", "mtp", "balance"};

std::vector<double> values_of(const StoredTensor& t) {
  std::vector<double> values(static_cast<std::size_t>(t.size()));
  decode(t.dtype, t.data, t.size(), values.data());
  return values;
}

std::vector<Sequence> sequences_of(const SafetensorsFile& file, const Config& config) {
  const StoredTensor& tokens = file.at("tokens");
  require(tokens.shape.size() == 2 && tokens.size() > 0,
          file.path().string() + ": tokens has shape " + shape_text(tokens.shape) +
              ", expected (sequences, positions)");
  const Index B = tokens.shape[0], S = tokens.shape[1];
  const StoredTensor* valid = file.find("valid");
  if (valid == nullptr) valid = file.find("attention_mask");
  require(valid == nullptr || valid->shape == tokens.shape,
          file.path().string() + ": the mask of valid tokens has another shape than tokens");
  const std::vector<double> ids = values_of(tokens),
                            mask = valid ? values_of(*valid) : std::vector<double>(ids.size(), 1.0);
  std::vector<Sequence> sequences;
  for (Index b = 0; b < B; ++b) {
    std::vector<Token> row(ids.begin() + b * S, ids.begin() + (b + 1) * S);
    check_tokens(row, config.vocab_size, file.path().string());
    sequences.push_back(masked_sequence(
        std::move(row), std::vector<Index>(mask.begin() + b * S, mask.begin() + (b + 1) * S)));
  }
  return sequences;
}

using Shapes = std::map<std::string, std::vector<Index>>;

Shapes shapes_of(const Config& config) {
  Shapes shapes;
  auto weights = empty_weights(config);
  for_each_tensor(weights, config, [&](const std::string& name, auto&, std::vector<Index> shape) {
    shapes[name] = std::move(shape);
  });
  return shapes;
}

/// The parameters that a stored name stands for, in the order of its numbers.
std::vector<std::string> parameters_of(const std::string& name, const Config& config) {
  const bool gate_up = name.ends_with(".mlp.experts.gate_up_proj"),
             down = name.ends_with(".mlp.experts.down_proj");
  if (!gate_up && !down) return {name};
  std::vector<std::string> parts;
  const std::string at = name.substr(0, name.rfind('.') + 1);
  for (Index e = 0; e < config.n_routed_experts; ++e) {
    const std::string expert = at + std::to_string(e) + ".";
    if (gate_up)
      parts.insert(parts.end(), {expert + "gate_proj.weight", expert + "up_proj.weight"});
    else
      parts.push_back(expert + "down_proj.weight");
  }
  return parts;
}

Index volume_of(const std::vector<Index>& shape) {
  Index n = 1;
  for (Index extent : shape) n *= extent;
  return n;
}

void add(GradientFile& out, const StoredTensor& t, const std::string& loss, const Config& config,
         const Shapes& shapes) {
  const std::string name = t.name.substr(loss.size() + 1);
  const std::vector<double> values = values_of(t);
  const std::vector<std::string> parts = parameters_of(name, config);
  Index expected = 0;
  for (const std::string& part : parts) {
    require(shapes.contains(part), out.path.string() + ": " + t.name +
                                       " is the gradient of a parameter that the model does not "
                                       "have; names are those of the checkpoint");
    expected += volume_of(shapes.at(part));
  }
  const bool packed = parts.size() > 1 || parts.front() != name;
  require(packed ? t.size() == expected : t.shape == shapes.at(name),
          out.path.string() + ": " + t.name + " has shape " + shape_text(t.shape) +
              ", expected that of its parameter" +
              (packed ? "s, " + std::to_string(expected) + " numbers"
                      : ", " + shape_text(shapes.at(name))));
  auto from = values.begin();
  for (const std::string& part : parts) {
    const auto end = from + volume_of(shapes.at(part));
    out.gradients[loss][part] = {t.dtype, std::vector<double>(from, end)};
    from = end;
  }
}

/// What the numbers look like: bf16 widened to F32 has no bits below its own.
std::string precision_of(const GradientFile& file) {
  Index all = 0, wide = 0, narrow = 0;
  for (const auto& [loss, gradients] : file.gradients)
    for (const auto& [name, g] : gradients)
      for (const double value : g.values) {
        if (g.dtype == Dtype::f64) ++wide;
        if (round_to(Dtype::bf16, value) == value) ++narrow;
        ++all;
      }
  return 2 * wide > all ? "fp64" : 4 * narrow > 3 * all ? "hf-bf16" : "hf-fp32";
}

}  // namespace

GradientFile read_gradients(const std::filesystem::path& path, const Config& config) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  GradientFile out;
  out.path = path;
  out.sequences = sequences_of(file, config);
  const Shapes shapes = shapes_of(config);
  for (const StoredTensor& t : file.tensors())
    for (const std::string loss : known_losses) {
      if (t.name == "loss." + loss) {
        require(t.size() == 1, path.string() + ": " + t.name + " has shape " + shape_text(t.shape) +
                                   ", expected one number");
        out.losses[loss] = values_of(t).front();
      }
      if (t.name.starts_with(loss + ".")) add(out, t, loss, config, shapes);
    }
  require(!out.losses.empty() || !out.gradients.empty(),
          path.string() +
              " has neither losses (loss.lm, loss.kl, ...) nor gradients "
              "(lm.PARAMETER, kl.PARAMETER, ...); see data/README.md");
  out.precision = precision_of(out);
  return out;
}

}  // namespace dsa::verify
