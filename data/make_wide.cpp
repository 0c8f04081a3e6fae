// data/make_wide.cpp — a checkpoint of DeepSeek-V3.2's true widths and as many layers as asked, or
// of the same shape scaled down (bench-mid).
//
// The weights are random and a function of (seed, tensor name, index), so that the same seed gives
// the same layer 3 whether there are four layers or sixty-one. Formats, names and block scales of
// the wide one are those of the release: F8_E4M3 matrices with one power-of-two scale a 128 x 128
// block; bench-mid is bf16 throughout.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstring>
#include <iostream>
#include <optional>

#include "core/checkpoint_writer.hpp"
#include "core/json.hpp"
#include "core/random.hpp"
#include "core/weights.hpp"

namespace dsa {
namespace {

struct Options {
  std::string out, shape = "v32", shard_size = "5GB";
  std::optional<Index> layers, dense, vocab;  // absent: the shape's own
  std::uint64_t seed = 1;
};

/// config.json of DeepSeek-V3.2 on huggingface.co, four layers of it.
Json wide_config() {
  return {{"architectures", {"DeepseekV32ForCausalLM"}},
          {"model_type", "deepseek_v32"},
          {"attention_bias", false},
          {"dtype", "bfloat16"},
          {"first_k_dense_replace", 3},
          {"hidden_act", "silu"},
          {"hidden_size", 7168},
          {"index_head_dim", 128},
          {"index_n_heads", 64},
          {"index_topk", 2048},
          {"intermediate_size", 18432},
          {"kv_lora_rank", 512},
          {"max_position_embeddings", 163840},
          {"moe_intermediate_size", 2048},
          {"moe_layer_freq", 1},
          {"n_group", 8},
          {"n_routed_experts", 256},
          {"n_shared_experts", 1},
          {"norm_topk_prob", true},
          {"num_attention_heads", 128},
          {"num_experts_per_tok", 8},
          {"num_hidden_layers", 4},
          {"num_key_value_heads", 128},
          {"num_nextn_predict_layers", 0},
          {"q_lora_rank", 1536},
          {"qk_nope_head_dim", 128},
          {"qk_rope_head_dim", 64},
          {"quantization_config",
           {{"activation_scheme", "dynamic"},
            {"fmt", "e4m3"},
            {"quant_method", "fp8"},
            {"scale_fmt", "ue8m0"},
            {"weight_block_size", {128, 128}}}},
          {"rms_norm_eps", 1e-6},
          {"rope_scaling",
           {{"type", "yarn"},
            {"factor", 40},
            {"original_max_position_embeddings", 4096},
            {"beta_fast", 32},
            {"beta_slow", 1},
            {"mscale", 1.0},
            {"mscale_all_dim", 1.0}}},
          {"rope_theta", 10000},
          {"routed_scaling_factor", 2.5},
          {"scoring_func", "sigmoid"},
          {"tie_word_embeddings", false},
          {"topk_group", 4},
          {"topk_method", "noaux_tc"},
          {"v_head_dim", 128},
          {"vocab_size", 129280}};
}

/// V3.2's shape scaled down to 271 M parameters: what benchmarks of whole models run on a laptop.
Json bench_mid_config() {
  Json config = wide_config();
  config.erase("quantization_config");
  config.update({{"first_k_dense_replace", 1},
                 {"hidden_size", 1024},
                 {"index_n_heads", 16},
                 {"index_topk", 512},
                 {"intermediate_size", 2816},
                 {"moe_intermediate_size", 512},
                 {"n_group", 4},
                 {"n_routed_experts", 16},
                 {"num_attention_heads", 16},
                 {"num_experts_per_tok", 4},
                 {"num_hidden_layers", 8},
                 {"num_key_value_heads", 16},
                 {"q_lora_rank", 384},
                 {"topk_group", 2},
                 {"vocab_size", 8192}});
  return config;
}

Json config_of(const Options& o) {
  Json config = o.shape == "bench-mid" ? bench_mid_config() : wide_config();
  if (o.layers) config["num_hidden_layers"] = *o.layers;
  if (o.dense) config["first_k_dense_replace"] = *o.dense;
  if (o.vocab) config["vocab_size"] = *o.vocab;
  const Index layers = config["num_hidden_layers"], dense = config["first_k_dense_replace"];
  require(dense <= layers, "--dense is " + std::to_string(dense) + ", expected at most --layers, " +
                               std::to_string(layers));
  return config;
}

/// 256 equally likely values of a standard normal: the quantiles (i + 1/2) / 256, by bisection.
std::array<double, 256> normal_quantiles() {
  std::array<double, 256> values{};
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double p = (static_cast<double>(i) + 0.5) / 256;
    double low = -8, high = 8;
    for (int step = 0; step < 60; ++step) {
      const double middle = (low + high) / 2;
      (std::erfc(-middle / std::sqrt(2.0)) / 2 < p ? low : high) = middle;
    }
    values[i] = low;
  }
  return values;
}

/// A tensor's numbers depend on its name and not on its place in a file.
std::uint64_t stream_of(std::uint64_t seed, std::string_view name) {
  return random_bits(seed, seed_of(name));
}

/// Writes tensors of random numbers to a checkpoint, a few megabytes at a time.
class RandomTensors {
 public:
  RandomTensors(CheckpointWriter& out, std::uint64_t seed) : out_(out), seed_(seed) {}

  /// mean + deviation * normal, in the format asked for.
  void write(const CheckpointWriter::Declaration& tensor, double mean, double deviation) {
    Index n = 1;
    for (Index extent : tensor.shape) n *= extent;
    std::array<double, 256> values = normal_;
    for (double& x : values) x = mean + deviation * x;
    const std::uint64_t seed = stream_of(seed_, tensor.name);
    switch (tensor.dtype) {
      case Dtype::f8_e4m3:
        return stream<std::uint8_t>(tensor.dtype, values, seed, n);
      case Dtype::bf16:
        return stream<std::uint16_t>(tensor.dtype, values, seed, n);
      default:
        return stream<std::uint32_t>(tensor.dtype, values, seed, n);
    }
  }

  /// Block scales 2^exponent and 2^(exponent - 1), so that a wrong block is a wrong number.
  void write_scales(const CheckpointWriter::Declaration& tensor, int exponent) {
    const std::uint64_t seed = stream_of(seed_, tensor.name);
    std::vector<float> scales(static_cast<std::size_t>(tensor.shape[0] * tensor.shape[1]));
    for (std::size_t i = 0; i < scales.size(); ++i)
      scales[i] = std::ldexp(1.0f, exponent - static_cast<int>(random_bits(seed, i) & 1));
    out_.append(std::as_bytes(std::span(scales)));
  }

 private:
  template <class Code>
  void stream(Dtype dtype, const std::array<double, 256>& values, std::uint64_t seed, Index n) {
    std::array<Code, 256> codes;
    encode(dtype, values.data(), 256, reinterpret_cast<std::byte*>(codes.data()));
    constexpr Index piece = Index{1} << 22;  // a multiple of the eight codes one hash chooses
    std::vector<Code> buffer(static_cast<std::size_t>(std::min(n, piece) + 7));
    for (Index begin = 0; begin < n; begin += piece) {
      const Index count = std::min(piece, n - begin);
      Code* next = buffer.data();
      for (Index i = 0; i < count; i += 8) {
        std::uint64_t bits = random_bits(seed, static_cast<std::uint64_t>((begin + i) / 8));
        for (int byte = 0; byte < 8; ++byte, bits >>= 8) *next++ = codes[bits & 0xFF];
      }
      out_.append(std::as_bytes(std::span(buffer).first(static_cast<std::size_t>(count))));
    }
  }

  CheckpointWriter& out_;
  std::uint64_t seed_;
  std::array<double, 256> normal_ = normal_quantiles();
};

/// The release's format of a parameter: norms of the indexer and the router's bias are F32.
Dtype release_dtype(const std::string& name, const Config& c) {
  if (c.fp8_block && is_fp8_in_releases(name)) return Dtype::f8_e4m3;
  const bool wide = name.ends_with("e_score_correction_bias") ||
                    name.find(".indexer.k_norm.") != std::string::npos;
  return wide ? Dtype::f32 : Dtype::bf16;
}

/// Every parameter of the config, each FP8 matrix followed by its scales.
std::vector<CheckpointWriter::Declaration> declare(const Config& c) {
  std::vector<CheckpointWriter::Declaration> tensors;
  const Weights w = empty_weights(c);
  for_each_tensor(w, c, [&](const std::string& name, const auto&, const std::vector<Index>& shape) {
    const Dtype dtype = release_dtype(name, c);
    tensors.push_back({name, dtype, shape});
    if (dtype != Dtype::f8_e4m3) return;
    const Index b = *c.fp8_block;
    tensors.push_back(
        {name + "_scale_inv", Dtype::f32, {(shape[0] + b - 1) / b, (shape[1] + b - 1) / b}});
  });
  return tensors;
}

// Codes of a normal of this deviation reach 448, the largest e4m3: the scale does the rest.
constexpr double fp8_deviation = 154;

/// Matrices have deviation 1/sqrt(fan in), so that activations keep their size through the layers.
void write_tensor(RandomTensors& random, const CheckpointWriter::Declaration& tensor) {
  const std::string& name = tensor.name;
  if (name.ends_with("_scale_inv")) {
    // E[4^-bit] of the two scales is 5/8.
    const double fan_in = 128 * static_cast<double>(tensor.shape[1]);
    const double scale = 1 / (std::sqrt(fan_in * 5 / 8) * fp8_deviation);
    return random.write_scales(tensor, static_cast<int>(std::lround(std::log2(scale))));
  }
  if (tensor.dtype == Dtype::f8_e4m3) return random.write(tensor, 0, fp8_deviation);
  if (name.ends_with("bias")) return random.write(tensor, 0, 0.1);
  if (tensor.shape.size() == 1) return random.write(tensor, 1, 0.1);
  if (name.find("embed_tokens") != std::string::npos) return random.write(tensor, 0, 1);
  random.write(tensor, 0, 1 / std::sqrt(static_cast<double>(tensor.shape[1])));
}

void make_wide(const Options& o) {
  const Json json = config_of(o);
  const Config config = parse_config(json, "the config of shape " + o.shape);
  const auto tensors = declare(config);
  CheckpointWriter out(o.out, tensors, parse_bytes(o.shard_size, "--shard-size"));
  std::cout << fmt::format("{}: {} of {} layers dense, {} in {} file{}", o.out,
                           std::count(config.is_moe.begin(), config.is_moe.end(), false),
                           config.num_hidden_layers, bytes_text(out.total_bytes()), out.shards(),
                           out.shards() == 1 ? "" : "s")
            << std::endl;

  const auto begin = std::chrono::steady_clock::now();
  RandomTensors random(out, o.seed);
  for (const auto& tensor : tensors) write_tensor(random, tensor);
  out.finish_tensors();
  write_text(out.directory() / "config.json", json.dump(2) + "\n");
  out.commit();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  std::cout << fmt::format("written in {:.1f} s ({:.0f} MB/s)\n", seconds.count(),
                           static_cast<double>(out.total_bytes()) / 1e6 / seconds.count());
}

constexpr const char* about = R"(
Writes a DeepSeek-V3.2 checkpoint of true widths (hidden 7168, 128 heads, 256 experts, an indexer
of 64 heads x 128, top-k 2048) with random weights: for timing, for memory, and for checking code
at sizes that tiny models do not reach. FP8 with 128 x 128 power-of-two block scales, sharded.

--shape bench-mid is the same scaled down to 271 M parameters in bf16 (hidden 1024, 8 layers, 16
heads, an indexer of 16 x 128, top-k 512, 16 experts choose 4): the model of the benchmarks.

Disk use of the wide one: a dense layer takes 0.6 GB, a mixture-of-experts layer 11.5 GB, embeddings and head
together 3.7 GB with the full vocabulary. The total is printed before anything is written, and
compared with the free space.

Examples: make_wide /data/wide --layers 2 --dense 1 --vocab 8192
          make_wide /data/mid --shape bench-mid)";

}  // namespace
}  // namespace dsa

int main(int argc, char** argv) {
  dsa::Options o;
  CLI::App app(dsa::about, "make_wide");
  app.add_option("out", o.out, "Directory to create")->required()->type_name("OUT");
  app.add_option("--shape", o.shape, "v32, or bench-mid")
      ->check(CLI::IsMember({"v32", "bench-mid"}))
      ->capture_default_str();
  app.add_option("--layers", o.layers, "Layers (default 4 of the release's 61; bench-mid: 8)")
      ->check(CLI::Range(1, 10000));
  app.add_option("--dense", o.dense,
                 "How many of them, from the first, are dense (default 3; bench-mid: 1)")
      ->check(CLI::Range(0, 10000));
  app.add_option("--vocab", o.vocab,
                 "Rows of the embeddings and of the head (default 129280; bench-mid: 8192)")
      ->check(CLI::Range(1, 1 << 24));
  app.add_option("--shard-size", o.shard_size, "Largest shard, e.g. 5GB")->capture_default_str();
  app.add_option("--seed", o.seed, "Another seed is another model")->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  try {
    dsa::make_wide(o);
  } catch (const std::exception& error) {
    std::cerr << "make_wide: " << error.what() << '\n';
    return 2;
  }
  return 0;
}
