#include "core/checkpoint.hpp"

#include <algorithm>
#include <cstring>
#include <optional>
#include <set>
#include <utility>

#include "core/check.hpp"
#include "core/json.hpp"
#include "core/trace_names.hpp"

namespace dsa {
namespace {

namespace fs = std::filesystem;
constexpr std::string_view scale_suffix = "_scale_inv";

/// {tensor: file} of model.safetensors.index.json.
std::map<std::string, std::string> read_index(const fs::path& file) {
  const Json json = read_json(file);
  const std::string what = file.string();
  require(json.is_object() && json.contains("weight_map") && json["weight_map"].is_object(),
          what + " has no \"weight_map\" object; expected {\"weight_map\": {TENSOR: FILE, ...}}");
  std::map<std::string, std::string> files;
  for (const auto& [name, shard] : json["weight_map"].items()) {
    require(shard.is_string(),
            what + ": tensor " + name + " is in " + shard.dump() + ", expected the name of a file");
    const fs::path path = shard.get<std::string>();
    require(!path.empty() && path == path.filename() && path != ".." && path != ".",
            what + ": tensor " + name + " is in \"" + path.string() +
                "\", expected a file of the same directory");
    files[name] = path.string();
  }
  require(!files.empty(), what + ": \"weight_map\" is empty, expected the model's tensors");
  return files;
}

/// Which shards there are, and where the index (if any) says each tensor lies.
std::map<std::string, std::string> find_shards(const fs::path& dir, std::set<std::string>& shards) {
  require(fs::is_directory(dir), "cannot open checkpoint " + dir.string() +
                                     ": no such directory; expected one with config.json and "
                                     "model.safetensors");
  const bool single = fs::exists(dir / "model.safetensors");
  const fs::path index = dir / "model.safetensors.index.json";
  if (!fs::exists(index)) {
    require(single, "checkpoint " + dir.string() +
                        " has neither model.safetensors nor model.safetensors.index.json; expected "
                        "weights in the safetensors format");
    shards.insert("model.safetensors");
    return {};
  }
  auto listed = read_index(index);
  for (const auto& [name, shard] : listed) shards.insert(shard);
  require(!single || shards.contains("model.safetensors"),
          "checkpoint " + dir.string() +
              " has model.safetensors beside an index that does not list it; remove one of them");
  for (const std::string& shard : shards)
    require(fs::exists(dir / shard), "checkpoint " + dir.string() + " has no " + shard +
                                         ", which model.safetensors.index.json lists; download it "
                                         "again");
  return listed;
}

/// Ties the stored tensors to the parameters of one config.
class Binder {
 public:
  Binder(const StoredCheckpoint& stored, const Config& config, CheckpointProblems& problems)
      : stored_(stored), config_(config), problems_(problems) {}

  void bind(Weights& w) {
    w = empty_weights(config_);
    if (!any_mtp(w)) w.mtp.clear();
    for_each_tensor(w, config_,
                    [&](const std::string& name, Parameter& p, const std::vector<Index>& shape) {
                      p.name = name;
                      p.shape = shape;
                      place(p);
                    });
    if (config_.tie_word_embeddings) w.lm_head.weight = w.embed_tokens;
    mtp_layers_ = static_cast<Index>(w.mtp.size());
    for (const auto& [name, tensor] : stored_.tensors)
      if (!used_.contains(name)) judge_unused(*tensor);
  }

 private:
  const StoredTensor* find(const std::string& name) const {
    const auto found = stored_.tensors.find(name);
    return found == stored_.tensors.end() ? nullptr : found->second;
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
      const Index layer = layer_of(name);
      if (any || layer < config_.num_hidden_layers) return;
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
      packed_ok_[slice.packed] =
          has_shape(packed, slice.packed_shape) && is_readable(packed) && is_not_packed_fp8(packed);
    if (!packed_ok_[slice.packed]) return;
    const Index row_bytes = packed.shape[2] * bits_of(packed.dtype) / 8;
    p.name = slice.packed + "[" + std::to_string(slice.expert) + ", " +
             std::to_string(slice.first_row) + ":" + std::to_string(slice.first_row + p.shape[0]) +
             "]";
    p.dtype = packed.dtype;
    p.data = packed.data + (slice.expert * packed.shape[1] + slice.first_row) * row_bytes;
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

  bool is_not_packed_fp8(const StoredTensor& tensor) {
    if (tensor.dtype != Dtype::f8_e4m3) return true;
    problems_.unreadable.push_back("tensor " + tensor.name +
                                   " is packed F8_E4M3, which is unsupported; expected FP8 experts "
                                   "one by one, each with its weight_scale_inv");
    return false;
  }

  void attach(Parameter& p, const StoredTensor& tensor) {
    if (tensor.dtype == Dtype::f8_e4m3 && !attach_scale(p, tensor)) return;
    p.dtype = tensor.dtype;
    p.data = tensor.data;
  }

  /// X_scale_inv of an FP8 matrix X: one F32 a block, the last of a row or column ragged.
  bool attach_scale(Parameter& p, const StoredTensor& tensor) {
    const std::string name = tensor.name + std::string(scale_suffix);
    const StoredTensor* scale = find(name);
    if (p.shape.size() != 2 || scale == nullptr) {
      problems_.unreadable.push_back(
          "tensor " + tensor.name + " is F8_E4M3, expected " +
          (p.shape.size() == 2 ? "with its block scales " + name : "a wider type for a vector"));
      return false;
    }
    used_.insert(name);
    const Index b = config_.fp8_block.value_or(p.block);
    if (!has_shape(*scale, {(p.rows() + b - 1) / b, (p.columns() + b - 1) / b})) return false;
    if (scale->dtype != Dtype::f32) {
      problems_.unreadable.push_back("tensor " + name + " has dtype " +
                                     std::string(name_of(scale->dtype)) + ", expected F32");
      return false;
    }
    p.block = b;
    const auto copy = stored_.realigned.find(name);
    p.scale_inv = copy != stored_.realigned.end() ? copy->second.data()
                                                  : reinterpret_cast<const float*>(scale->data);
    return true;
  }

  /// A stored tensor that is no parameter: harmless, or a problem.
  void judge_unused(const StoredTensor& tensor) {
    const std::string& name = tensor.name;
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
    problems_.extra.push_back("tensor " + name +
                              " is not part of the model that config.json "
                              "describes; remove it or correct the config");
  }

  const StoredCheckpoint& stored_;
  const Config& config_;
  CheckpointProblems& problems_;
  Index mtp_layers_ = 0;
  std::set<std::string, std::less<>> used_;
  std::map<std::string, bool> packed_ok_;
};

}  // namespace

StoredCheckpoint StoredCheckpoint::open(const fs::path& directory) {
  StoredCheckpoint stored;
  stored.directory = directory;
  std::set<std::string> shards;
  const auto listed = find_shards(directory, shards);
  stored.shards.reserve(shards.size());  // the map below points into the elements
  for (const std::string& shard : shards)
    stored.shards.push_back(SafetensorsFile::open(directory / shard));

  for (const SafetensorsFile& file : stored.shards)
    for (const StoredTensor& tensor : file.tensors()) {
      const std::string shard = file.path().filename().string();
      const auto entry = listed.find(tensor.name);
      require(listed.empty() || (entry != listed.end() && entry->second == shard),
              file.path().string() + " has tensor " + tensor.name + ", which the index " +
                  (entry == listed.end() ? "does not list" : "places in " + entry->second) +
                  "; download or convert the checkpoint again");
      stored.tensors[tensor.name] = &tensor;
      const auto address = reinterpret_cast<std::uintptr_t>(tensor.data);
      if (tensor.name.ends_with(scale_suffix) && tensor.dtype == Dtype::f32 &&
          address % alignof(float) != 0) {
        auto& copy = stored.realigned[tensor.name];
        copy.resize(static_cast<std::size_t>(tensor.size()));
        std::memcpy(copy.data(), tensor.data, copy.size() * sizeof(float));
      }
    }
  for (const auto& [name, shard] : listed)
    require(stored.tensors.contains(name),
            (directory / shard).string() + " has no tensor " + name +
                ", which model.safetensors.index.json places there; download it again");
  return stored;
}

CheckpointProblems bind(const StoredCheckpoint& stored, const Config& config, Weights& weights) {
  CheckpointProblems problems;
  Binder(stored, config, problems).bind(weights);
  return problems;
}

Model open_checkpoint(const fs::path& directory) {
  Model model;
  model.config = read_config(directory);
  auto stored = std::make_shared<const StoredCheckpoint>(StoredCheckpoint::open(directory));
  const CheckpointProblems problems = bind(*stored, model.config, model.weights);
  std::vector<std::string> all;
  for (const auto* list :
       {&problems.misshaped, &problems.unreadable, &problems.missing, &problems.extra})
    all.insert(all.end(), list->begin(), list->end());
  const std::string more = all.size() < 2 ? ""
                                          : " (and " + std::to_string(all.size() - 1) +
                                                " more; dsa-run inspect lists them all)";
  require(all.empty(),
          "checkpoint " + directory.string() + ": " + (all.empty() ? "" : all.front()) + more);
  for (const SafetensorsFile& shard : stored->shards) model.files.push_back(shard.memory());
  model.memory = std::move(stored);
  return model;
}

Model resident(Model model, Index limit_bytes) {
  constexpr auto real_bytes = static_cast<Index>(sizeof(double));
  Index elements = 0;
  for_each_tensor(model.weights, model.config, [&](const auto&, const Parameter& p, const auto&) {
    elements += p.rows() * p.columns();
  });
  if (elements > limit_bytes / real_bytes) return model;

  auto arena = std::make_shared<std::vector<double>>(static_cast<std::size_t>(elements));
  double* next = arena->data();
  for_each_tensor(model.weights, model.config, [&](const auto&, Parameter& p, const auto&) {
    read_rows(p, 0, p.rows(), next);
    p.dtype = Dtype::f64;
    p.seen_finite = true;
    p.data = reinterpret_cast<const std::byte*>(next);
    p.scale_inv = nullptr;
    p.loaded_as.reset();  // rounded already
    next += p.rows() * p.columns();
  });
  if (model.config.tie_word_embeddings) model.weights.lm_head.weight = model.weights.embed_tokens;
  model.memory = std::move(arena);
  model.files.clear();
  return model;
}

}  // namespace dsa
