#include "run/inspect.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/check.hpp"
#include "core/checkpoint_writer.hpp"

namespace dsa::run {
namespace {

bool is_indexer(const std::string& name) { return name.find(".indexer.") != std::string::npos; }
bool is_routed(const std::string& name) { return name.find(".mlp.experts.") != std::string::npos; }

Index layer_index(const std::string& name) {
  constexpr std::string_view prefix = "model.layers.";
  return name.starts_with(prefix) ? std::stoll(name.substr(prefix.size())) : -1;
}

/// True if some element has every bit of `exponent` set: infinity or NaN, or NaN in e4m3.
template <class Word>
bool any_with_bits(const std::byte* data, Index n, Word exponent) {
  unsigned found = 0;
  for (Index i = 0; i < n; ++i) {
    Word word;
    std::memcpy(&word, data + i * static_cast<Index>(sizeof word), sizeof word);
    found |= (word & exponent) == exponent;
  }
  return found != 0;
}

bool may_hold_nonfinite(Dtype dtype, const std::byte* data, Index n) {
  switch (dtype) {
    case Dtype::f64:
      return any_with_bits<std::uint64_t>(data, n, 0x7FF0'0000'0000'0000u);
    case Dtype::f32:
      return any_with_bits<std::uint32_t>(data, n, 0x7F80'0000u);
    case Dtype::f16:
      return any_with_bits<std::uint16_t>(data, n, 0x7C00u);
    case Dtype::bf16:
      return any_with_bits<std::uint16_t>(data, n, 0x7F80u);
    case Dtype::f8_e4m3:
      return any_with_bits<std::uint8_t>(data, n, 0x7Fu);
    default:
      return true;  // read_rows decides
  }
}

/// The first number of the tensor that is not finite, as a sentence; empty if there is none.
std::string find_nonfinite(const Parameter& p) {
  const Index columns = p.columns(), row_bytes = columns * bits_of(p.dtype) / 8;
  std::vector<double> row(static_cast<std::size_t>(columns));
  for (Index r = 0; r < p.rows(); ++r) {
    if (!may_hold_nonfinite(p.dtype, p.data + r * row_bytes, columns)) continue;
    try {
      read_rows(p, r, r + 1, row.data());
    } catch (const Error& error) {
      return error.what();
    }
  }
  return {};
}

/// The first block scale that no quantiser writes, as a sentence; empty if there is none.
std::string find_bad_scale(const Parameter& p, bool ue8m0) {
  const Index across = (p.columns() + p.block - 1) / p.block;
  const Index first = p.scale_row / p.block * across;
  const Index last = (p.scale_row + p.rows() + p.block - 1) / p.block * across;
  for (Index i = first; i < last; ++i) {
    const float scale = p.scale_inv[i];
    int exponent = 0;
    const bool positive = std::isfinite(scale) && scale > 0;
    if (positive && (!ue8m0 || std::frexp(scale, &exponent) == 0.5f)) continue;
    return "tensor " + p.name + "_scale_inv holds " + std::to_string(scale) + " for block row " +
           std::to_string(i / across) + ", column " + std::to_string(i % across) + "; expected " +
           (positive ? "a power of two (scale_fmt is ue8m0)" : "a positive finite number");
  }
  return {};
}

void count_parameter(Inspection& r, const std::string& name, const Parameter& p, Index elements) {
  const Config& c = r.config;
  r.parameters += elements;
  if (layer_index(name) >= c.num_hidden_layers) {
    r.mtp_parameters += elements;
    return;  // MTP blocks are not part of decoding one token
  }
  if (is_routed(name)) r.routed_parameters += elements;
  if (is_indexer(name)) r.indexer_parameters += elements;
  double share = 1;
  if (is_routed(name))
    share = static_cast<double>(c.num_experts_per_tok) / static_cast<double>(c.n_routed_experts);
  const bool is_table = name == "model.embed_tokens.weight";
  if (is_table) share = 1 / static_cast<double>(c.vocab_size);

  const double touched = share * static_cast<double>(elements);
  r.active_parameters += touched;
  if (p.shape.size() == 2 && !is_table) r.weights.flops += 2 * touched;
  if (r.has_weights && !p.present()) return;
  double bytes = static_cast<double>(elements) * static_cast<double>(bits_of(p.dtype)) / 8;
  if (p.quantised())
    bytes += 4.0 * static_cast<double>((p.rows() + p.block - 1) / p.block) *
             static_cast<double>((p.columns() + p.block - 1) / p.block);
  r.weights.bytes += share * bytes;
}

/// The head of a model with tied embeddings is the whole table, read once more.
void count_tied_head(Inspection& r, const Parameter& table) {
  const double elements = static_cast<double>(r.config.vocab_size * r.config.hidden_size);
  r.active_parameters += elements;
  r.weights.flops += 2 * elements;
  r.weights.bytes += elements * static_cast<double>(bits_of(table.dtype)) / 8;
}

/// The formulas of the header.
void count_attention(Inspection& r) {
  const Config& c = r.config;
  const Index S = r.context, R = c.kv_lora_rank, P = c.qk_rope_head_dim, L = c.num_hidden_layers;
  const Index number = bits_of(c.dtype) / 8;
  const bool sparse = c.indexer && c.use_sparse_attention;
  const auto keys = static_cast<double>(sparse ? std::min(c.indexer->topk, S) : S);
  const auto layers = static_cast<double>(L), bytes = static_cast<double>(number);
  r.attention.flops =
      layers * keys * 2 * static_cast<double>(c.num_attention_heads * ((R + P) + R));
  r.attention.bytes = layers * keys * static_cast<double>(R + P) * bytes;
  r.cache_bytes_per_token = L * (R + P) * number;
  if (!sparse) return;
  const Index H = c.indexer->n_heads, D = c.indexer->head_dim;
  const auto own = std::count(c.indexer->computes.begin(), c.indexer->computes.end(), true);
  const double scored = static_cast<double>(own) * static_cast<double>(S);
  r.indexer.flops = scored * 2 * static_cast<double>(H * (D + 1));
  r.indexer.bytes = scored * static_cast<double>(D) * bytes;
  r.cache_bytes_per_token += own * D * number;
}

/// False: a config, or a directory with nothing in it that may hold weights.
bool is_checkpoint(const std::filesystem::path& path) {
  if (!std::filesystem::is_directory(path)) return false;
  return std::any_of(std::filesystem::directory_iterator(path), {}, [](const auto& entry) {
    const std::string name = entry.path().filename();
    return entry.path().extension() == ".safetensors" || entry.path().extension() == ".bin" ||
           name == "model.safetensors.index.json";
  });
}

void inspect_weights(Inspection& r) {
  const StoredCheckpoint stored = StoredCheckpoint::open(r.directory);
  for (const auto& [name, tensor] : stored.tensors) {
    auto& row = r.dtypes[std::string(name_of(tensor->dtype))];
    ++row.tensors;
    row.bytes += tensor->bytes();
  }
  Weights w;
  r.problems = bind(stored, r.config, w);
  r.mtp_blocks = static_cast<Index>(w.mtp.size());
  for_each_tensor(w, r.config, [&](const std::string& name, const Parameter& p, const auto&) {
    count_parameter(r, name, p, p.rows() * p.columns());
    if (!p.present()) return;
    if (p.scale_inv != nullptr) {
      if (auto sentence = find_bad_scale(p, r.config.fp8_scale_ue8m0); !sentence.empty())
        r.bad_scales.push_back(std::move(sentence));
    }
    if (auto sentence = find_nonfinite(p); !sentence.empty())
      r.not_finite.push_back(std::move(sentence));
  });
  if (r.config.tie_word_embeddings) count_tied_head(r, w.embed_tokens);
  r.warnings = warnings_of(stored, r.problems, r.config, w);
}

/// Every parameter of the config, in the dtype that a release has it in.
void count_promised(Inspection& r) {
  const Config& c = r.config;
  Weights w = empty_weights(c);
  r.mtp_blocks = static_cast<Index>(w.mtp.size());
  for_each_tensor(w, c, [&](const std::string& name, Parameter& p, const auto& shape) {
    p.shape = shape;
    p.dtype = c.fp8_block && is_fp8_in_releases(name) ? Dtype::f8_e4m3 : c.dtype;
    p.block = c.fp8_block.value_or(p.block);
    count_parameter(r, name, p, p.rows() * p.columns());
    auto& row = r.dtypes[std::string(name_of(p.dtype))];
    ++row.tensors;
    row.bytes += p.rows() * p.columns() * bits_of(p.dtype) / 8;
  });
  if (c.tie_word_embeddings) count_tied_head(r, w.embed_tokens);
  r.warnings = warnings_of(c);
}

}  // namespace

Inspection inspect(const std::filesystem::path& checkpoint_or_config, Index context) {
  Inspection r;
  r.directory = checkpoint_or_config;
  r.config = read_config(checkpoint_or_config);
  r.context = context;
  r.has_weights = is_checkpoint(checkpoint_or_config);
  if (r.has_weights)
    inspect_weights(r);
  else
    count_promised(r);
  count_attention(r);
  return r;
}

}  // namespace dsa::run
