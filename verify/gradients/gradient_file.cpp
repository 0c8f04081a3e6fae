#include "verify/gradients/gradient_file.hpp"

#include "core/safetensors.hpp"

namespace dsa::verify {
namespace {

const char* const known_losses[] = {"lm", "kl", "mtp", "balance"};

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

/// What the numbers look like: bf16 widened to F32 has no bits below its own.
std::string precision_of(const GradientFile& file) {
  Index all = 0, wide = 0;
  bool narrow = true;
  for (const auto& [loss, gradients] : file.gradients) {
    for (const auto& [name, g] : gradients) {
      const auto n = static_cast<Index>(g.values.size());
      all += n;
      if (g.dtype == Dtype::f64) wide += n;
    }
    narrow = narrow && looks_like_bf16(gradients);
  }
  return 2 * wide > all ? "fp64" : all > 0 && narrow ? "hf-bf16" : "hf-fp32";
}

}  // namespace

GradientFile read_gradients(const std::filesystem::path& path, const Config& config,
                            const std::string& names) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  GradientFile out;
  out.path = path;
  out.sequences = sequences_of(file, config);
  const Parameters parameters(config, names);
  for (const StoredTensor& t : file.tensors()) {
    require(!parameters.knows(t.name), path.string() + ": " + t.name +
                                           " is named without its loss; write lm." + t.name +
                                           ", or kl. where it is the indexer's");
    for (const std::string loss : known_losses) {
      if (t.name == "loss." + loss) {
        require(t.size() == 1, path.string() + ": " + t.name + " has shape " + shape_text(t.shape) +
                                   ", expected one number");
        out.losses[loss] = values_of(t).front();
      }
      if (t.name.starts_with(loss + "."))
        parameters.read(out.gradients[loss], t, t.name.substr(loss.size() + 1), path);
    }
  }
  require(!out.losses.empty() || !out.gradients.empty(),
          path.string() +
              " has neither losses (loss.lm, loss.kl, ...) nor gradients "
              "(lm.PARAMETER, kl.PARAMETER, ...); see data/README.md");
  out.precision = precision_of(out);
  return out;
}

}  // namespace dsa::verify
