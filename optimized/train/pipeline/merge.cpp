#include "optimized/train/pipeline/merge.hpp"

#include "core/check.hpp"
#include "core/checkpoint.hpp"
#include "core/checkpoint_writer.hpp"
#include "core/safetensors.hpp"
#include "core/weights.hpp"
#include "optimized/train/pipeline/state.hpp"

namespace dsa::train {
namespace {

namespace fs = std::filesystem;

std::vector<float> values_of(const StoredTensor& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.size()));
  decode(tensor.dtype, tensor.data, tensor.size(), values.data());
  return values;
}

/// W + scale B A, summed as Adapters::apply sums it.
void merge_into(std::vector<float>& w, const StoredTensor& stored_a, const StoredTensor& stored_b,
                float scale) {
  const Index R = stored_a.shape[0], I = stored_a.shape[1], O = stored_b.shape[0];
  const std::vector<float> a = values_of(stored_a), b = values_of(stored_b);
  for (Index o = 0; o < O; ++o)
    for (Index r = 0; r < R; ++r) {
      const float factor = scale * b[static_cast<std::size_t>(o * R + r)];
      for (Index i = 0; i < I; ++i)
        w[static_cast<std::size_t>(o * I + i)] += factor * a[static_cast<std::size_t>(r * I + i)];
    }
}

}  // namespace

std::string merge_adapters(const fs::path& checkpoint, const fs::path& out) {
  const Model model = open_checkpoint(checkpoint);
  read_state(checkpoint);  // it is one of dsa-train's, or an Error says why not
  const SafetensorsFile state = SafetensorsFile::open(checkpoint / "state.safetensors");
  const auto alpha = state.metadata().find("lora_alpha");
  require(alpha != state.metadata().end(), checkpoint.string() + " has no adapters to merge");
  std::vector<CheckpointWriter::Declaration> tensors;
  for_each_tensor(model.weights, model.config,
                  [&](const std::string& name, const Parameter&, const std::vector<Index>& shape) {
                    tensors.push_back({name, Dtype::f32, shape});
                  });
  CheckpointWriter writer(out, tensors, Index{1} << 62);
  Index merged = 0;
  for_each_tensor(model.weights, model.config,
                  [&](const std::string& name, const Parameter& p, const std::vector<Index>&) {
                    std::vector<float> w = read_all<float>(p);
                    if (const StoredTensor* a = state.find(name + ".lora_A")) {
                      const float scale = static_cast<float>(std::stod(alpha->second) /
                                                             static_cast<double>(a->shape[0]));
                      merge_into(w, *a, state.at(name + ".lora_B"), scale);
                      ++merged;
                    }
                    writer.append(std::as_bytes(std::span(w)));
                  });
  writer.finish_tensors();
  for (const auto& entry : fs::directory_iterator(checkpoint))
    if (entry.path().extension() != ".safetensors")
      fs::copy_file(entry.path(), writer.directory() / entry.path().filename());
  writer.commit();
  return out.string() + ": " + std::to_string(merged) + " matrices with their adapters";
}

}  // namespace dsa::train
