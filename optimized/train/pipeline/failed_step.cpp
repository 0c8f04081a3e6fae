#include "optimized/train/pipeline/failed_step.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/check.hpp"
#include "core/checkpoint.hpp"
#include "core/safetensors.hpp"
#include "optimized/train/pipeline/names.hpp"
#include "optimized/train/pipeline/settings.hpp"
#include "optimized/train/pipeline/start.hpp"
#include "optimized/train/pipeline/state.hpp"

namespace dsa::train {
namespace {

namespace fs = std::filesystem;

template <class T>
std::vector<double> widened(const std::vector<T>& x) {
  return {x.begin(), x.end()};
}

template <class T>
std::vector<T> read_list(const SafetensorsFile& file, const std::string& name) {
  const StoredTensor& tensor = file.at(name);
  std::vector<double> wide(static_cast<std::size_t>(tensor.size()));
  decode(tensor.dtype, tensor.data, tensor.size(), wide.data());
  std::vector<T> values;
  for (const double x : wide) values.push_back(static_cast<T>(x));
  return values;
}

bool all_finite(const Leaf& x) {
  return std::all_of(x.begin(), x.end(), [](float v) { return std::isfinite(v); });
}

}  // namespace

void write_batches(const fs::path& file, const std::vector<Batch>& parts) {
  std::vector<SafetensorsWriter::Declaration> tensors;
  const auto at = [](std::size_t i, const char* name) { return std::to_string(i) + "." + name; };
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const std::vector<Index> shape = {parts[i].rows()};
    tensors.push_back({at(i, "tokens"), Dtype::f64, shape});
    tensors.push_back({at(i, "positions"), Dtype::f64, shape});
    tensors.push_back({at(i, "begin"), Dtype::f64, shape});
    tensors.push_back({at(i, "target_weight"), Dtype::f64, shape});
  }
  SafetensorsWriter out(file, tensors);
  for (const Batch& part : parts) {
    out.append_values(widened(part.tokens));
    out.append_values(widened(part.positions));
    out.append_values(widened(part.begin));
    out.append_values(widened(part.target_weight));
  }
  out.commit();
}

std::vector<Batch> read_batches(const fs::path& path) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  std::vector<Batch> parts;
  for (std::size_t i = 0; file.find(std::to_string(i) + ".tokens") != nullptr; ++i) {
    const std::string at = std::to_string(i) + ".";
    parts.push_back({read_list<Token>(file, at + "tokens"),
                     read_list<Index>(file, at + "positions"),
                     read_list<std::int32_t>(file, at + "begin"),
                     read_list<float>(file, at + "target_weight")});
  }
  require(!parts.empty(), path.string() + " holds no batch");
  return parts;
}

std::string replay(const fs::path& directory) {
  const Settings settings = Settings::read(directory / "config.toml", {});
  const State state = read_state(directory);
  const Stage stage = stages_of(settings).at(state.stage);
  TrainedModel model(open_checkpoint(directory), compute_of(settings));
  std::optional<Adapters> adapters;
  if (stage.kind == StageKind::lora) {
    adapters.emplace(stage, model, 0);
    read_adapters(directory, *adapters);
    adapters->apply();
    model.refresh();
  }
  const std::vector<Batch> parts = read_batches(directory / "batch.safetensors");
  const Objective objective = objective_of(stage.recipe, model.config(), size_of(parts));
  const auto trained = [&](const std::string& name) {
    return adapters ? adapters->on(name)
                    : stage.recipe.trains(name) && gets_gradient(name, stage, model.config());
  };
  std::string report;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const Losses l = model.run(parts[i], objective, trained);
    report += fmt::format("part {}: lm {}, kl {}, mtp {}, balance {}, of {} rows\n", i, l.lm,
                          std::accumulate(l.kl.begin(), l.kl.end(), 0.0), l.mtp, l.balance,
                          parts[i].rows());
  }
  Index wrong = 0;
  for (const Trained& one : parameters_of(model))
    if (trained(one.name) && !all_finite(*one.gradient) && ++wrong)
      report += "gradient of " + one.name + " is not finite\n";
  return report + fmt::format("{} gradients are not finite\n", wrong);
}

}  // namespace dsa::train
