#include "run/convert.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "core/check.hpp"
#include "core/checkpoint_writer.hpp"
#include "core/json.hpp"
#include "core/outputs.hpp"
#include "core/threads.hpp"
#include "run/quantise.hpp"

namespace dsa::run {
namespace {

namespace fs = std::filesystem;

/// One tensor of the output: the parameters whose rows it holds, one after the other.
struct Planned {
  std::string name;
  Dtype dtype;
  std::vector<Index> shape;
  std::vector<const Parameter*> sources;
};

struct Plan {
  std::vector<Planned> tensors;
  BlockFormat blocks;
  std::vector<Parameter> repeated;  // copies of embeddings and head inside MTP blocks
};

/// What stays F32 in a BF16 model: DeepSeek's own code computes with both in fp32.
bool stays_f32(const std::string& name) {
  return name.ends_with("e_score_correction_bias") ||
         name.ends_with(".indexer.weights_proj.weight");
}

Dtype target_dtype(const Conversion& job, const Parameter& p, const std::string& name) {
  if (job.dtype == Dtype::f32 || (job.dtype == Dtype::bf16 && stays_f32(name))) return Dtype::f32;
  if (job.dtype == Dtype::bf16) return Dtype::bf16;
  return is_fp8_in_releases(name) ? Dtype::f8_e4m3 : p.dtype;
}

Parameter unscaled(const StoredTensor& tensor) {
  Parameter p;
  p.name = tensor.name;
  p.dtype = tensor.dtype;
  p.shape = tensor.shape;
  p.data = tensor.data;
  return p;
}

/// The tensors of `stored` that a release repeats inside its MTP blocks.
std::vector<Parameter> repeated_tensors(const StoredCheckpoint& stored, const Weights& w,
                                        const Config& c) {
  std::vector<Parameter> repeated;
  for (std::size_t i = 0; i < w.mtp.size(); ++i)
    for (const char* end : {".embed_tokens.weight", ".shared_head.head.weight"}) {
      const Index layer = c.num_hidden_layers + static_cast<Index>(i);
      const auto found = stored.tensors.find("model.layers." + std::to_string(layer) + end);
      if (found == stored.tensors.end()) continue;
      repeated.push_back(unscaled(*found->second));
    }
  return repeated;
}

/// "…mlp.experts.7.up_proj.weight" -> "…mlp.experts.gate_up_proj"; empty for what is no expert.
std::string packed_name(const std::string& name) {
  constexpr std::string_view mark = ".mlp.experts.";
  const auto at = name.find(mark);
  if (at == std::string::npos) return {};
  return name.substr(0, at + mark.size()) +
         (name.ends_with(".down_proj.weight") ? "down_proj" : "gate_up_proj");
}

void plan_packed(Plan& plan, std::map<std::string, std::size_t>& where, const std::string& packed,
                 const Planned& one, Index experts) {
  const auto [entry, is_new] = where.try_emplace(packed, plan.tensors.size());
  if (is_new) {
    const Index matrices = packed.ends_with("gate_up_proj") ? 2 : 1;
    plan.tensors.push_back(
        {packed, one.dtype, {experts, matrices * one.shape[0], one.shape[1]}, {}});
  }
  plan.tensors[entry->second].sources.push_back(one.sources.front());
}

Plan make_plan(const Conversion& job, const StoredCheckpoint& stored, const Model& model) {
  Plan plan;
  plan.blocks = {model.config.fp8_block.value_or(128), model.config.fp8_scale_ue8m0};
  const bool was_packed =
      std::any_of(stored.tensors.begin(), stored.tensors.end(),
                  [](const auto& t) { return t.first.ends_with(".mlp.experts.gate_up_proj"); });
  const bool fp8 = job.dtype == Dtype::f8_e4m3;
  require(!fp8 || !job.packed_experts.value_or(false),
          "packed experts in FP8 are unsupported; choose --experts separate or another --dtype");
  const bool packed = job.packed_experts.value_or(was_packed && !fp8);
  std::map<std::string, std::size_t> where;
  for_each_tensor(
      model.weights, model.config,
      [&](const std::string& name, const Parameter& p, const std::vector<Index>& shape) {
        const Planned one{name, target_dtype(job, p, name), shape, {&p}};
        const std::string in = packed ? packed_name(name) : "";
        if (in.empty())
          plan.tensors.push_back(one);
        else
          plan_packed(plan, where, in, one, model.config.n_routed_experts);
      });
  plan.repeated = repeated_tensors(stored, model.weights, model.config);
  for (const Parameter& p : plan.repeated)
    plan.tensors.push_back({p.name, target_dtype(job, p, p.name), p.shape, {&p}});
  return plan;
}

std::vector<CheckpointWriter::Declaration> declarations(const Plan& plan) {
  std::vector<CheckpointWriter::Declaration> all;
  for (const Planned& t : plan.tensors) {
    all.push_back({t.name, t.dtype, t.shape});
    if (t.dtype == Dtype::f8_e4m3)
      all.push_back({t.name + "_scale_inv",
                     Dtype::f32,
                     {plan.blocks.count(t.shape[0]), plan.blocks.count(t.shape[1])}});
  }
  return all;
}

/// Rows are handled in panels of one block row; this many numbers are in memory at a time.
constexpr Index numbers_at_a_time = Index{1} << 24;

/// f(begin, end) for the panels of rows [first, last), in parallel.
template <class F>
void for_each_panel(Index first, Index last, Index panel, F&& f) {
  parallel_for((last - first + panel - 1) / panel, shared_loop_ns, [&](Index i) {
    const Index begin = first + i * panel;
    f(begin, std::min(last, begin + panel));
  });
}

Index panel_rows(const Parameter& p, const BlockFormat& blocks) {
  return std::max(blocks.edge, (Index{1} << 16) / p.columns() / blocks.edge * blocks.edge);
}

void write_tensor(CheckpointWriter& out, const Planned& t, const BlockFormat& blocks) {
  for (const Parameter* p : t.sources) {
    const Index columns = p->columns(), width = bits_of(t.dtype) / 8,
                panel = panel_rows(*p, blocks);
    std::vector<float> scales;
    if (t.dtype == Dtype::f8_e4m3)
      scales.resize(static_cast<std::size_t>(blocks.count(p->rows()) * blocks.count(columns)));
    const Index step = std::max(panel, numbers_at_a_time / columns / panel * panel);
    std::vector<std::byte> bytes;
    for (Index first = 0; first < p->rows(); first += step) {
      const Index last = std::min(p->rows(), first + step);
      bytes.resize(static_cast<std::size_t>((last - first) * columns * width));
      for_each_panel(first, last, panel, [&](Index begin, Index end) {
        std::byte* to = bytes.data() + (begin - first) * columns * width;
        if (t.dtype == Dtype::f8_e4m3)
          quantise_rows(*p, begin, end, blocks, to, scales.data());
        else
          narrow_rows(*p, begin, end, t.dtype, to);
      });
      out.append(bytes);
    }
    if (!scales.empty()) out.append(std::as_bytes(std::span(scales)));
  }
}

/// Numbers written, and then read back and compared.
class Meter {
 public:
  Meter(const cli::Progress& progress, const Plan& plan) : progress_(progress) {
    for (const Planned& t : plan.tensors)
      for (const Parameter* p : t.sources) all_ += 2 * p->rows() * p->columns();
  }
  void add(const Parameter& p) {
    done_ += p.rows() * p.columns();
    if (progress_) progress_("converting", static_cast<int>(1000. * done_ / all_), 1000);
  }

 private:
  const cli::Progress& progress_;
  double done_ = 0, all_ = 0;
};

/// Compares one parameter as it was with the same one read back.
void verify(const Parameter& was, const Parameter& is, const BlockFormat& blocks) {
  for_each_panel(0, was.rows(), panel_rows(was, blocks),
                 [&](Index begin, Index end) { check_rows(was, is, begin, end, blocks); });
}

/// `after` is the converted checkpoint, opened anew: names, shapes and shards are checked with it.
void verify_all(const Model& before, const Plan& plan, const fs::path& directory, Meter& meter) {
  const Model after = open_checkpoint(directory);
  std::vector<const Parameter*> converted;
  for_each_tensor(after.weights, after.config,
                  [&](const auto&, const Parameter& p, const auto&) { converted.push_back(&p); });
  std::size_t i = 0;
  for_each_tensor(before.weights, before.config,
                  [&](const std::string& name, const Parameter& p, const auto&) {
                    require(i < converted.size(), "the converted checkpoint has lost " + name);
                    verify(p, *converted[i++], plan.blocks);
                    meter.add(p);
                  });
  const StoredCheckpoint stored = StoredCheckpoint::open(directory);
  for (const Parameter& p : plan.repeated) {
    verify(p, unscaled(*stored.tensors.at(p.name)), plan.blocks);
  }
}

/// config.json with what the conversion changes; every other key is kept.
Json converted_config(const Conversion& job, const BlockFormat& blocks) {
  Json json = read_json(job.in / "config.json");
  const bool fp8 = job.dtype == Dtype::f8_e4m3;
  const char* name = job.dtype == Dtype::f32 ? "float32" : "bfloat16";
  const bool has_any = json.contains("dtype") || json.contains("torch_dtype");
  for (const char* key : {"dtype", "torch_dtype"})
    if (json.contains(key) && !fp8) json[key] = name;
  if (!has_any) json["dtype"] = name;
  if (!fp8) json.erase("quantization_config");
  if (fp8 && (!json.contains("quantization_config") || json["quantization_config"].is_null()))
    json["quantization_config"] = {{"activation_scheme", "dynamic"},
                                   {"fmt", "e4m3"},
                                   {"quant_method", "fp8"},
                                   {"weight_block_size", {blocks.edge, blocks.edge}}};
  if (!job.keep_mtp && json.contains("num_nextn_predict_layers"))
    json["num_nextn_predict_layers"] = 0;
  return json;
}

/// Tokenizer and other small files; returns what was too large.
std::vector<std::string> copy_other_files(const fs::path& in, const fs::path& out) {
  constexpr std::uintmax_t largest = 64 << 20;
  std::vector<std::string> left_out;
  for (const auto& entry : fs::directory_iterator(in)) {
    const std::string name = entry.path().filename().string();
    if (!entry.is_regular_file() || name.ends_with(".safetensors") || name == "config.json" ||
        name == "model.safetensors.index.json")
      continue;
    if (entry.file_size() > largest) {
      left_out.push_back(name);
      continue;
    }
    write_text(out / name, read_text(entry.path()));
  }
  return left_out;
}

}  // namespace

std::string convert(const Conversion& job) {
  Model model = open_checkpoint(job.in);
  const StoredCheckpoint stored = StoredCheckpoint::open(job.in);
  if (!job.keep_mtp) {
    model.weights.mtp.clear();
    model.config.num_nextn_predict_layers = 0;
  }
  const Plan plan = make_plan(job, stored, model);
  CheckpointWriter out(job.out, declarations(plan), job.shard_bytes);
  Meter meter(job.progress, plan);
  for (const Planned& tensor : plan.tensors) {
    write_tensor(out, tensor, plan.blocks);
    for (const Parameter* p : tensor.sources) meter.add(*p);
  }
  out.finish_tensors();
  write_text(out.directory() / "config.json", json_text(converted_config(job, plan.blocks)));
  verify_all(model, plan, out.directory(), meter);
  const auto left_out = copy_other_files(job.in, out.directory());
  out.commit();

  std::string line =
      fmt::format("{}: {} tensors, {} in {} file{}, every value read back and compared",
                  job.out.string(), plan.tensors.size(), bytes_text(out.total_bytes()),
                  out.shards(), out.shards() == 1 ? "" : "s");
  for (const std::string& name : left_out) line += "; " + name + " is large and was not copied";
  return line;
}

}  // namespace dsa::run
