// Ties the tensors of a checkpoint to the parameters of a config, and says what stands in the way.
#include <cstring>
#include <set>
#include <utility>

#include "core/check.hpp"
#include "core/checkpoint.hpp"
#include "core/trace_names.hpp"

namespace dsa {
namespace {

/// Ties the stored tensors to the parameters of one config.
class Binder {
 public:
  Binder(const StoredCheckpoint& stored, const Config& config, CheckpointProblems& problems)
      : stored_(stored), config_(config), problems_(problems) {}

  void bind(Weights& w) {
    w = empty_weights(config_);
    if (!any_mtp(w)) w.mtp.clear();
    for (std::size_t i = 0; i < w.mtp.size(); ++i) {
      const std::string at = mtp_name(i);
      w.mtp[i].owns_embedding = differs(at + "embed_tokens.weight", "model.embed_tokens.weight");
      w.mtp[i].owns_head = differs(at + "shared_head.head.weight", head_name());
    }
    for_each_tensor(w, config_,
                    [&](const std::string& name, Parameter& p, const std::vector<Index>& shape) {
                      p.name = name;
                      p.shape = shape;
                      place(p);
                    });
    tie_weights(w, config_);
    mtp_layers_ = static_cast<Index>(w.mtp.size());
    for (const auto& [name, tensor] : stored_.tensors)
      if (!used_.contains(name)) judge_unused(name, *tensor);
  }

 private:
  const StoredTensor* find(const std::string& name) const {
    const auto found = stored_.tensors.find(name);
    return found == stored_.tensors.end() ? nullptr : found->second;
  }

  std::string mtp_name(std::size_t i) const {
    return "model.layers." + std::to_string(config_.num_hidden_layers + static_cast<Index>(i)) +
           ".";
  }
  std::string head_name() const {
    return config_.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
  }

  /// DeepSeek's releases repeat the embeddings and the head in every MTP block; others train new
  /// ones. Whether `copy` is stored and is no copy.
  bool differs(const std::string& copy, const std::string& original) const {
    const StoredTensor *a = find(copy), *b = find(original);
    if (a == nullptr) return false;
    return b == nullptr || a->dtype != b->dtype || a->shape != b->shape ||
           std::memcmp(a->data, b->data, static_cast<std::size_t>(a->bytes())) != 0;
  }

  /// An expert's matrix inside a packed tensor: that tensor, and the first row and rows of it.
  struct Slice {
    std::string packed;
    std::vector<Index> packed_shape;
    Index expert, first_row;
  };
  std::optional<Slice> slice_of(const std::string& name) const {
    constexpr std::string_view mark = ".mlp.experts.";
    const auto at = name.find(mark);
    if (at == std::string::npos) return std::nullopt;
    const std::string prefix = name.substr(0, at + mark.size());
    const Index e = std::stoll(name.substr(prefix.size()));
    const Index E = config_.n_routed_experts, F = config_.moe_intermediate_size,
                C = config_.hidden_size;
    if (name.ends_with(".down_proj.weight")) return Slice{prefix + "down_proj", {E, C, F}, e, 0};
    const Index first = name.ends_with(".up_proj.weight") ? F : 0;
    return Slice{prefix + "gate_up_proj", {E, 2 * F, C}, e, first};
  }

  bool any_mtp(Weights& w) const {
    bool any = false;
    for_each_tensor(w, config_, [&](const std::string& name, auto&, const auto&) {
      if (any || layer_of(name) < config_.num_hidden_layers) return;
      const auto slice = slice_of(name);
      any = find(name) != nullptr || (slice && find(slice->packed) != nullptr);
    });
    return any;
  }

  void place(Parameter& p) {
    if (const StoredTensor* tensor = find(p.name)) {
      used_.insert(p.name);
      if (has_shape(*tensor, p.shape) && is_readable(*tensor)) attach(p, *tensor);
      return;
    }
    const auto slice = slice_of(p.name);
    if (const StoredTensor* packed = slice ? find(slice->packed) : nullptr)
      return place_slice(p, *slice, *packed);
    problems_.missing.push_back("tensor " + p.name + " is missing, expected with shape " +
                                shape_text(p.shape));
  }

  void place_slice(Parameter& p, const Slice& slice, const StoredTensor& packed) {
    if (used_.insert(slice.packed).second)  // judged once, not once an expert
      packed_[slice.packed] = {
          has_shape(packed, slice.packed_shape) && is_readable(packed),
          packed.dtype == Dtype::f8_e4m3 ? scales_of(slice.packed, slice.packed_shape) : nullptr};
    const auto& [is_right, scales] = packed_[slice.packed];
    if (!is_right || (packed.dtype == Dtype::f8_e4m3 && scales == nullptr)) return;
    const Index rows = packed.shape[1], columns = packed.shape[2];
    const Index row_bytes = columns * bits_of(packed.dtype) / 8;
    p.name = slice.packed + "[" + std::to_string(slice.expert) + ", " +
             std::to_string(slice.first_row) + ":" + std::to_string(slice.first_row + p.shape[0]) +
             "]";
    p.dtype = packed.dtype;
    p.data = packed.data + (slice.expert * rows + slice.first_row) * row_bytes;
    if (scales == nullptr) return;
    p.block = config_.fp8_block.value_or(p.block);
    p.scale_inv = scales + slice.expert * blocks(rows) * blocks(columns);
    if (slice.first_row % p.block == 0)
      p.scale_inv += slice.first_row / p.block * blocks(columns);
    else
      p.scale_row = slice.first_row;  // the slice begins within a block
  }

  Index blocks(Index n) const {
    const Index b = config_.fp8_block.value_or(Parameter{}.block);
    return (n + b - 1) / b;
  }

  bool has_shape(const StoredTensor& tensor, const std::vector<Index>& shape) {
    if (tensor.shape == shape) return true;
    problems_.misshaped.push_back("tensor " + tensor.name + " has shape " +
                                  shape_text(tensor.shape) + ", expected " + shape_text(shape));
    return false;
  }

  bool is_readable(const StoredTensor& tensor) {
    for (Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::f16, Dtype::bf16, Dtype::f8_e4m3})
      if (tensor.dtype == dtype) return true;
    problems_.unreadable.push_back("tensor " + tensor.name + " has dtype " +
                                   std::string(name_of(tensor.dtype)) +
                                   ", expected F64, F32, F16, BF16 or F8_E4M3");
    return false;
  }

  void attach(Parameter& p, const StoredTensor& tensor) {
    if (tensor.dtype == Dtype::f8_e4m3 && !attach_scale(p, tensor)) return;
    p.dtype = tensor.dtype;
    p.data = tensor.data;
  }

  bool attach_scale(Parameter& p, const StoredTensor& tensor) {
    if (p.shape.size() != 2) {
      problems_.unreadable.push_back("tensor " + tensor.name +
                                     " is F8_E4M3, expected a wider type for a vector");
      return false;
    }
    p.block = config_.fp8_block.value_or(p.block);
    p.scale_inv = scales_of(p.name, p.shape);
    return p.scale_inv != nullptr;
  }

  /// The block scales of an FP8 tensor (its last two axes are cut into blocks, the last of a row or
  /// column ragged): X_scale_inv, or X_scale, which AMD's Quark writes and multiplies with, too.
  /// Null, and a problem, where there are none that can be read exactly.
  const float* scales_of(const std::string& name, std::vector<Index> shape) {
    std::string found = name + "_scale_inv";
    if (find(found) == nullptr && find(name + "_scale") != nullptr) found = name + "_scale";
    const StoredTensor* scale = find(found);
    if (scale == nullptr) {
      problems_.unreadable.push_back("tensor " + name +
                                     " is F8_E4M3, expected with its block scales " + found);
      return nullptr;
    }
    used_.insert(found);
    const Index rows = shape[shape.size() - 2];
    for (std::size_t axis = shape.size() - 2; axis < shape.size(); ++axis)
      shape[axis] = blocks(shape[axis]);
    if (scale->shape != shape && (scale->size() == 1 || scale->shape.front() == rows)) {
      problems_.unreadable.push_back("tensor " + name + " is FP8 with one scale a " +
                                     (scale->size() == 1 ? "tensor" : "channel") + " (" +
                                     scale->name + " " + shape_text(scale->shape) +
                                     "), which dsa does not read; expected one a block, " +
                                     shape_text(shape));
      return nullptr;
    }
    if (!has_shape(*scale, shape)) return nullptr;
    const auto copy = stored_.scales.find(found);
    if (copy != stored_.scales.end()) return copy->second.data();
    if (scale->dtype == Dtype::f32) return reinterpret_cast<const float*>(scale->data);
    problems_.unreadable.push_back("tensor " + scale->name + " has dtype " +
                                   std::string(name_of(scale->dtype)) +
                                   ", expected F32, BF16, F16 or F8_E8M0");
    return nullptr;
  }

  /// A stored tensor that is no parameter: harmless, or a problem.
  void judge_unused(const std::string& name, const StoredTensor& tensor) {
    const Index L = config_.num_hidden_layers, V = config_.vocab_size, C = config_.hidden_size;
    if (name.ends_with(".rotary_emb.inv_freq")) return;  // old exports store the frequency table
    if (name == "lm_head.weight") {                      // tied: the embeddings stored twice
      has_shape(tensor, {V, C});
      return;
    }
    if (const Index layer = layer_of(name); layer >= L) {
      const std::string at = in_layer(layer, "");
      // DeepSeek's releases repeat the embeddings and the head in every MTP block.
      if (layer < L + mtp_layers_ &&
          (name == at + "embed_tokens.weight" || name == at + "shared_head.head.weight")) {
        has_shape(tensor, {V, C});
        return;
      }
      // MTP blocks that the config does not ask for: HuggingFace skips them too.
      if (layer >= L + config_.num_nextn_predict_layers && find(at + "eh_proj.weight")) return;
    }
    if (name.find(".self_attn.indexer.") != std::string::npos && config_.indexer) {
      const Index layer = layer_of(name);
      if (0 <= layer && layer < L && !config_.indexer->computes[static_cast<std::size_t>(layer)]) {
        problems_.unused.push_back(tensor.name);
        return;
      }
    }
    constexpr std::string_view scale_suffix = "_scale_inv";
    if (name.ends_with(scale_suffix)) {
      const std::string scaled = name.substr(0, name.size() - scale_suffix.size());
      const StoredTensor* base = find(scaled);
      if (base != nullptr && base->dtype != Dtype::f8_e4m3) {
        problems_.unreadable.push_back("tensor " + name + " scales " + scaled + ", which is " +
                                       std::string(name_of(base->dtype)) +
                                       "; only F8_E4M3 weights have block scales");
        return;
      }
    }
    problems_.extra.push_back("tensor " + tensor.name +
                              " is not part of the model that config.json "
                              "describes; remove it or correct the config");
  }

  const StoredCheckpoint& stored_;
  const Config& config_;
  CheckpointProblems& problems_;
  Index mtp_layers_ = 0;
  std::set<std::string, std::less<>> used_;
  struct Packed {
    bool is_right = false;
    const float* scales = nullptr;
  };
  std::map<std::string, Packed> packed_;
};

}  // namespace

CheckpointProblems bind(const StoredCheckpoint& stored, const Config& config, Weights& weights) {
  CheckpointProblems problems;
  Binder(stored, config, problems).bind(weights);
  return problems;
}

}  // namespace dsa
