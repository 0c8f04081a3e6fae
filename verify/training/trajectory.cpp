#include "verify/training/trajectory.hpp"

#include <algorithm>

#include "reference/model/backward.hpp"

namespace dsa::verify {
namespace {

void read_tokens(Trajectory& out, const SafetensorsFile& file, const Config& config) {
  const StoredTensor& tokens = file.at("tokens");
  require(tokens.shape.size() == 3 && tokens.size() > 0,
          file.path().string() + ": tokens has shape " + shape_text(tokens.shape) +
              ", expected (steps, sequences, positions)");
  const Index N = tokens.shape[0], B = tokens.shape[1], S = tokens.shape[2];
  const std::vector<double> ids = values_of(tokens);
  auto next = ids.begin();
  for (Index n = 0; n < N; ++n) {
    std::vector<Sequence> batch;
    for (Index b = 0; b < B; ++b, next += S) {
      std::vector<Token> row(next, next + S);
      check_tokens(row, config.vocab_size, file.path().string());
      batch.push_back(plain_sequence(std::move(row)));
    }
    out.batches.push_back(reference::join(batch));
  }
  out.sequences = B;
  out.steps.resize(static_cast<std::size_t>(N));
}

void read_steps(Trajectory& out, const SafetensorsFile& file) {
  for (const char* quantity : step_quantities) {
    const StoredTensor* stored = file.find(quantity);
    if (stored == nullptr) continue;
    require(stored->shape == std::vector<Index>{out.size()},
            file.path().string() + ": " + quantity + " has shape " + shape_text(stored->shape) +
                ", expected one number for each of " + std::to_string(out.size()) + " steps");
    const std::vector<double> values = values_of(*stored);
    for (std::size_t n = 0; n < values.size(); ++n) out.steps[n][quantity] = values[n];
  }
}

/// A run in float32 prints float32 losses, whatever they are stored as; its finals tell bf16.
std::string precision_of(const Trajectory& t) {
  Index all = 0, narrow = 0;
  for (const StepRecord& step : t.steps)
    for (const auto& [quantity, value] : step) {
      if (quantity == "lr") continue;
      narrow += static_cast<double>(static_cast<float>(value)) == value;
      ++all;
    }
  if (2 * narrow <= all && all > 0) return "fp64";
  return !t.finals.empty() && looks_like_bf16(t.finals) ? "hf-bf16" : "hf-fp32";
}

}  // namespace

Trajectory read_trajectory(const std::filesystem::path& path, const Config& config,
                           const std::string& names) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  Trajectory out;
  out.path = path;
  read_tokens(out, file, config);
  read_steps(out, file);
  const Parameters parameters(config, names);
  constexpr std::string_view prefix = "final.";
  for (const StoredTensor& t : file.tensors())
    if (t.name.starts_with(prefix))
      parameters.read(out.finals, t, t.name.substr(prefix.size()), path);
  require(!out.steps.front().empty() || !out.finals.empty(),
          path.string() +
              " has neither losses (loss.lm, loss.kl), norms (grad_norm) and rates (lr) of each "
              "step nor final parameters (final.PARAMETER); see data/README.md");
  const auto recipe = file.metadata().find("recipe");
  if (recipe != file.metadata().end()) out.recipe = recipe->second;
  out.precision = precision_of(out);
  return out;
}

}  // namespace dsa::verify
