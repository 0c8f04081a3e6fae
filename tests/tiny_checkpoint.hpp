// tests/tiny_checkpoint.hpp — checkpoints of a few kilobytes, whole or with something wrong.
#pragma once

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "core/checkpoint.hpp"
#include "core/json.hpp"
#include "core/random.hpp"

namespace dsa::test {

struct TinyTensor {
  Dtype dtype = Dtype::f32;
  std::vector<Index> shape;
  std::vector<double> values;
};
using TinyTensors = std::map<std::string, TinyTensor>;

/// DeepSeek-V3.2 in small: layer 0 dense, layer 1 a mixture; no size a multiple of another.
inline Json tiny_config() {
  return Json::parse(R"({
    "model_type": "deepseek_v32", "vocab_size": 11, "hidden_size": 10, "intermediate_size": 14,
    "moe_intermediate_size": 6, "num_hidden_layers": 2, "num_attention_heads": 2,
    "q_lora_rank": 7, "kv_lora_rank": 5, "qk_rope_head_dim": 4, "qk_nope_head_dim": 3,
    "v_head_dim": 3, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2,
    "n_group": 2, "topk_group": 1, "routed_scaling_factor": 2.5, "first_k_dense_replace": 1,
    "index_n_heads": 2, "index_head_dim": 8, "index_topk": 3, "dtype": "float32"})");
}

/// Every tensor that the config promises, F32, seeded by its place in the list.
inline TinyTensors tiny_tensors(const Json& json) {
  const Config config = parse_config(json, "the tiny config");
  const Weights w = empty_weights(config);
  TinyTensors tensors;
  for_each_tensor(w, config,
                  [&](const std::string& name, const auto&, const std::vector<Index>& shape) {
                    TinyTensor t{Dtype::f32, shape, {}};
                    Index n = 1;
                    for (Index extent : shape) n *= extent;
                    const std::uint64_t seed = tensors.size();
                    for (Index i = 0; i < n; ++i)
                      t.values.push_back(dyadic(seed, static_cast<std::uint64_t>(i)));
                    tensors[name] = std::move(t);
                  });
  return tensors;
}

inline void write_tensors(const std::filesystem::path& file, const TinyTensors& tensors) {
  std::vector<SafetensorsWriter::Declaration> declared;
  for (const auto& [name, t] : tensors) declared.push_back({name, t.dtype, t.shape});
  SafetensorsWriter out(file, declared);
  for (const auto& [name, t] : tensors) out.append_values(t.values);
  out.commit();
}

/// DIR/config.json and DIR/model.safetensors.
inline void write_checkpoint(const std::filesystem::path& dir, const Json& json,
                             const TinyTensors& tensors) {
  std::filesystem::create_directories(dir);
  write_text(dir / "config.json", json.dump(2));
  write_tensors(dir / "model.safetensors", tensors);
}

/// The experts of a layer as HuggingFace packs them.
inline void pack_experts(TinyTensors& tensors, const std::string& layer, Index experts) {
  TinyTensor gate_up, down;
  const std::string at = layer + ".mlp.experts.";
  const auto move_into = [&](TinyTensor& to, const std::string& name) {
    const TinyTensor one = tensors.at(name);
    to.shape = one.shape;
    to.values.insert(to.values.end(), one.values.begin(), one.values.end());
    tensors.erase(name);
  };
  for (Index e = 0; e < experts; ++e) {
    move_into(gate_up, at + std::to_string(e) + ".gate_proj.weight");
    move_into(gate_up, at + std::to_string(e) + ".up_proj.weight");
    move_into(down, at + std::to_string(e) + ".down_proj.weight");
  }
  gate_up.shape = {experts, 2 * gate_up.shape[0], gate_up.shape[1]};
  down.shape = {experts, down.shape[0], down.shape[1]};
  tensors[at + "gate_up_proj"] = gate_up;
  tensors[at + "down_proj"] = down;
}

/// Stores a matrix as it is in F8_E4M3, with made-up scales a block of `edge` x `edge`.
inline void to_fp8(TinyTensors& tensors, const std::string& name, Index edge) {
  TinyTensor& t = tensors.at(name);
  t.dtype = Dtype::f8_e4m3;
  TinyTensor scales{
      Dtype::f32, {(t.shape[0] + edge - 1) / edge, (t.shape[1] + edge - 1) / edge}, {}};
  for (Index i = 0; i < scales.shape[0] * scales.shape[1]; ++i)
    scales.values.push_back(0.75 + 0.25 * static_cast<double>(i));
  tensors[name + "_scale_inv"] = scales;
}

}  // namespace dsa::test
