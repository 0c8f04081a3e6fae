#include "core/checkpoint.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <utility>

#include "core/check.hpp"
#include "core/json.hpp"
#include "core/trace_names.hpp"

namespace dsa {
namespace {

namespace fs = std::filesystem;
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

/// What stands before "embed_tokens.weight" and "norm.weight": "model.", or what a wrapper made of
/// it ("language_model.model.", "model.language_model.", PEFT's "base_model.model.model.", "").
std::string prefix_of(const std::map<std::string, const StoredTensor*>& tensors) {
  constexpr std::string_view end = "embed_tokens.weight";
  for (const auto& [name, tensor] : tensors) {
    if (!name.ends_with(end)) continue;
    const std::string prefix = name.substr(0, name.size() - end.size());
    if (tensors.contains(prefix + "norm.weight")) return prefix;
  }
  return "model.";
}

/// The name as this repository knows it; empty: not a tensor of the language model.
std::string without_prefix(const std::string& name, const std::string& prefix) {
  if (prefix == "model.") return name;
  if (name.ends_with("lm_head.weight")) return "lm_head.weight";
  if (!name.starts_with(prefix)) return "";
  return "model." + name.substr(prefix.size());
}

}  // namespace

StoredCheckpoint StoredCheckpoint::open(const fs::path& directory) {
  StoredCheckpoint stored;
  stored.directory = directory;
  std::set<std::string> shards;
  const auto listed = find_shards(directory, shards);
  stored.shards.reserve(shards.size());  // the map below points into the elements
  for (const std::string& shard : shards)
    stored.shards.push_back(SafetensorsFile::open(directory / shard));

  std::map<std::string, const StoredTensor*> as_named;
  for (const SafetensorsFile& file : stored.shards)
    for (const StoredTensor& tensor : file.tensors()) {
      const std::string shard = file.path().filename().string();
      const auto entry = listed.find(tensor.name);
      require(listed.empty() || (entry != listed.end() && entry->second == shard),
              file.path().string() + " has tensor " + tensor.name + ", which the index " +
                  (entry == listed.end() ? "does not list" : "places in " + entry->second) +
                  "; download or convert the checkpoint again");
      as_named[tensor.name] = &tensor;
    }
  for (const auto& [name, shard] : listed)
    require(as_named.contains(name),
            (directory / shard).string() + " has no tensor " + name +
                ", which model.safetensors.index.json places there; download it again");
  stored.take(as_named);
  for (const auto& entry : fs::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".safetensors") && !shards.contains(name)) stored.unlisted.push_back(name);
  }
  std::sort(stored.unlisted.begin(), stored.unlisted.end());
  return stored;
}

void StoredCheckpoint::take(const std::map<std::string, const StoredTensor*>& as_named) {
  prefix = prefix_of(as_named);
  for (const auto& [name, tensor] : as_named) {
    require(name.find(".lora_A.") == std::string::npos,
            "checkpoint " + directory.string() + " holds a LoRA adapter that is not merged (" +
                name + "); merge it into the weights first (PEFT: merge_and_unload)");
    const std::string known = without_prefix(name, prefix);
    if (known.empty()) {
      outside.push_back(name);
      continue;
    }
    tensors[known] = tensor;
    if (known.ends_with("_scale_inv") || known.ends_with("_scale")) keep_scales(known, *tensor);
  }
}

void StoredCheckpoint::keep_scales(const std::string& name, const StoredTensor& tensor) {
  const bool is_e8m0 = tensor.dtype == Dtype::f8_e8m0;
  if (tensor.dtype == Dtype::f32) {
    if (reinterpret_cast<std::uintptr_t>(tensor.data) % alignof(float) == 0) return;
  } else if (tensor.dtype != Dtype::bf16 && tensor.dtype != Dtype::f16 && !is_e8m0) {
    return;
  }
  std::vector<float>& copy = scales[name];
  copy.resize(static_cast<std::size_t>(tensor.size()));
  if (!is_e8m0) return decode(tensor.dtype, tensor.data, tensor.size(), copy.data());
  for (std::size_t i = 0; i < copy.size(); ++i) {  // OCP MX: 2^(byte - 127); 255 is NaN
    const int exponent = std::to_integer<int>(tensor.data[i]);
    copy[i] = exponent == 255 ? std::numeric_limits<float>::quiet_NaN()
                              : std::ldexp(1.0f, exponent - 127);
  }
}

bool lacks_only_the_indexer(const StoredCheckpoint& stored, const CheckpointProblems& problems) {
  const auto is_indexer = [](const std::string& text) {
    return text.find(".self_attn.indexer.") != std::string::npos;
  };
  return !problems.missing.empty() && problems.extra.empty() && problems.misshaped.empty() &&
         problems.unreadable.empty() &&
         std::all_of(problems.missing.begin(), problems.missing.end(), is_indexer) &&
         std::none_of(stored.tensors.begin(), stored.tensors.end(),
                      [&](const auto& tensor) { return is_indexer(tensor.first); });
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
  if (lacks_only_the_indexer(*stored, problems))
    throw Error(
        "checkpoint " + directory.string() + " lacks the indexer alone (" +
        std::to_string(problems.missing.size()) +
        " tensors, all of self_attn.indexer): it is a dense model under the name of a sparse "
        "one; correct model_type, or give it an indexer by dsa-train --init-indexer");
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
  tie_weights(model.weights, model.config);
  model.memory = std::move(arena);
  model.files.clear();
  return model;
}

}  // namespace dsa
