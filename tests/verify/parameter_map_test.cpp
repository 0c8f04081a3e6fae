// Gradients and final parameters under other trainers' names and layouts.
#include "verify/names/parameter_map.hpp"

#include <numeric>
#include <set>

#include "core/checkpoint.hpp"
#include "core/file.hpp"
#include "core/safetensors.hpp"
#include "core/weights.hpp"
#include "tests/catch.hpp"
#include "tests/models.hpp"
#include "tests/paths.hpp"
#include "tests/scratch.hpp"
#include "verify/gradients/gradient_file.hpp"

using namespace dsa;
using namespace dsa::test;
using namespace dsa::verify;
using Catch::Contains;

namespace {

Index volume(const std::vector<Index>& shape) {
  return std::accumulate(shape.begin(), shape.end(), Index{1}, std::multiplies<>());
}

/// A file of gradients of the language-model loss with the given tensors, read as `names` has it.
class File {
 public:
  explicit File(const std::string& sample)
      : config_(read_config(test::sample(sample) / "checkpoint")) {}
  const Config& config() const { return config_; }

  /// f(subscript) for every number.
  template <class F>
  void put(const std::string& name, std::vector<Index> shape, const F& f) {
    std::vector<double> values(static_cast<std::size_t>(volume(shape)));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = f(static_cast<Index>(i));
    tensors_[name] = {std::move(shape), std::move(values)};
  }
  void put(const std::string& name, std::vector<Index> shape) {
    put(name, std::move(shape), [](Index i) { return static_cast<double>(i); });
  }

  ByParameter read(const std::string& names) const {
    const Scratch scratch;
    const auto path = scratch / "gradients.safetensors";
    std::vector<SafetensorsWriter::Declaration> declared = {{"tokens", Dtype::i64, {1, 2}}};
    for (const auto& [name, t] : tensors_) declared.push_back({name, Dtype::f64, t.shape});
    SafetensorsWriter out(path, declared);
    out.append_values(std::vector<double>{1, 2});
    for (const auto& [name, t] : tensors_) out.append_values(t.values);
    out.commit();
    return read_gradients(path, config_, names).gradients.at("lm");
  }

 private:
  Config config_;
  std::map<std::string, Numbered> tensors_;
};

double at(const ByParameter& gradients, const std::string& name, Index i) {
  return gradients.at(name).values.at(static_cast<std::size_t>(i));
}

}  // namespace

TEST_CASE("MaxText's scanned kernels are read as the model's matrices", "[names]") {
  File file("v32");
  const Config& c = file.config();
  const Index A = *c.q_lora_rank, N = c.num_attention_heads,
              D = c.qk_nope_head_dim + c.qk_rope_head_dim, U = c.v_head_dim, C = c.hidden_size,
              F = c.moe_intermediate_size, E = c.n_routed_experts, moe = c.num_hidden_layers - 1;
  REQUIRE(moe == 2);
  const std::string path = "lm.params/decoder/";
  file.put(path + "moe_layers/self_attention/wq_b/kernel", {A, moe, N, D});
  file.put(path + "moe_layers/self_attention/out/kernel", {N, moe, U, C});
  file.put(path + "dense_layers/pre_self_attention_layer_norm/scale", {C, 1});
  file.put("lm.params-decoder-moe_layers-DeepSeekMoeBlock_0-MoeBlock_0-wi_1", {E, moe, C, F});
  file.put(path + "logits_dense/kernel", {C, c.vocab_size});
  file.put("lm.params/token_embedder/embedding", {c.vocab_size, C});
  const ByParameter got = file.read("maxtext");

  const Index l = 1;  // of the stack; layer 2 of the model
  const std::string layer = "model.layers.2.";
  for (const auto& [n, d, a] : {std::array<Index, 3>{0, 0, 0}, {3, 22, 23}, {1, 5, 7}})
    CHECK(at(got, layer + "self_attn.q_b_proj.weight", (n * D + d) * A + a) ==
          static_cast<double>(((a * moe + l) * N + n) * D + d));
  for (const auto& [x, n, u] : {std::array<Index, 3>{0, 0, 0}, {39, 3, 12}, {8, 1, 5}})
    CHECK(at(got, layer + "self_attn.o_proj.weight", x * N * U + n * U + u) ==
          static_cast<double>(((n * moe + l) * U + u) * C + x));
  CHECK(at(got, layer + "mlp.experts.20.up_proj.weight", 4 * C + 39) ==
        static_cast<double>(((20 * moe + l) * C + 39) * F + 4));
  CHECK(at(got, "model.layers.1.mlp.experts.0.up_proj.weight", C) == 1);
  CHECK(at(got, "model.layers.0.input_layernorm.weight", C - 1) == static_cast<double>(C - 1));
  CHECK(at(got, "lm_head.weight", C) == 1);
  CHECK(at(got, "model.embed_tokens.weight", C) == static_cast<double>(C));
  CHECK(got.size() == static_cast<std::size_t>(2 * moe + 1 + moe * E + 2));
}

TEST_CASE("Megatron's fused matrices are read as the model's", "[names]") {
  File file("v32");
  const Config& c = file.config();
  const Index A = *c.q_lora_rank, C = c.hidden_size, R = c.kv_lora_rank + c.qk_rope_head_dim,
              F = c.intermediate_size, G = c.moe_intermediate_size;
  const std::string at0 = "lm.module.decoder.layers.0.", at1 = "lm.module.decoder.layers.1.";
  file.put(at0 + "self_attention.linear_qkv_down_proj.weight", {A + R, C});
  file.put(at0 + "self_attention.linear_q_up_proj.layer_norm_weight", {A});
  file.put(at0 + "mlp.linear_fc1.weight", {2 * F, C});
  file.put(at1 + "mlp.experts.linear_fc1.weight20", {2 * G, C});
  const ByParameter got = file.read("megatron");
  CHECK(at(got, "model.layers.0.self_attn.q_a_proj.weight", 0) == 0);
  CHECK(at(got, "model.layers.0.self_attn.kv_a_proj_with_mqa.weight", 0) ==
        static_cast<double>(A * C));
  CHECK(at(got, "model.layers.0.self_attn.q_a_layernorm.weight", A - 1) ==
        static_cast<double>(A - 1));
  CHECK(at(got, "model.layers.0.mlp.gate_proj.weight", 3) == 3);
  CHECK(at(got, "model.layers.0.mlp.up_proj.weight", 3) == static_cast<double>(F * C + 3));
  CHECK(at(got, "model.layers.1.mlp.experts.20.up_proj.weight", 0) == static_cast<double>(G * C));
  CHECK(got.size() == 7);
}

TEST_CASE("names that no line fits are the checkpoint's, and packed experts need no map",
          "[names]") {
  File file("v32");
  const Config& c = file.config();
  const Index E = c.n_routed_experts, C = c.hidden_size, F = c.moe_intermediate_size;
  file.put("lm.model.norm.weight", {C});
  file.put("lm.model.layers.1.mlp.experts.gate_up_proj", {E, 2 * F, C});
  const ByParameter got = file.read("megatron");
  CHECK(got.size() == static_cast<std::size_t>(1 + 2 * E));
  CHECK(at(got, "model.layers.1.mlp.experts.2.up_proj.weight", 0) ==
        static_cast<double>((2 * 2 + 1) * F * C));
}

TEST_CASE("the maps of the program name parameters that models have", "[names]") {
  std::set<std::string> known;
  for (const char* name : {"v32", "v2lite"}) {
    const Config config = read_config(test::sample(name) / "checkpoint");
    auto weights = empty_weights(config);
    for_each_tensor(weights, config,
                    [&](const std::string& parameter, auto&&...) { known.insert(parameter); });
  }
  const std::filesystem::path maps =
      std::filesystem::path(source_dir()) / "verify/names/parameters";
  for (const char* name : {"maxtext", "megatron"}) {
    int lines = 0;
    for_each_line(
        read_text((maps / (std::string(name) + ".txt")).string()), name, [&](const MapLine& line) {
          Config config;
          config.is_moe = {false, true};
          const Index layer = line.name.find("{layer+dense}") != line.name.npos ||
                                      line.name.find(".mlp.gate.") != line.name.npos ||
                                      line.name.find("experts") != line.name.npos
                                  ? 1
                                  : 0;
          const bool counted = line.name.find("{layer+dense}") != line.name.npos;
          INFO(line.name);
          CHECK(known.contains(
              with_numbers(line.name, {.layer = counted ? 0 : layer, .expert = 0}, config)));
          ++lines;
        });
    CHECK(lines > 30);
  }
}

TEST_CASE("what is wrong with a map or with a tensor is said in one sentence", "[names]") {
  File file("v32");
  const Config& c = file.config();
  const Index A = *c.q_lora_rank, C = c.hidden_size;
  const auto refused = [&](const std::string& name, std::vector<Index> shape,
                           const std::string& names) {
    File one("v32");
    one.put(name, std::move(shape));
    try {
      one.read(names);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string("nothing was refused");
  };
  const std::string q_a = "lm.model.layers.0.self_attn.q_a_proj.weight";
  CHECK_THAT(refused(q_a, {C, A}, ""), Contains("the transpose of its parameter's (24, 40)"));
  CHECK_THAT(refused(q_a, {A, C, 1}, ""), Contains("expected that of its parameter, (24, 40)"));
  CHECK_THAT(refused("model.norm.weight", {C}, ""),
             Contains("without its loss; write lm.model.norm.weight"));
  CHECK_THAT(refused("lm.decoder.final_layernorm.weight", {C}, ""),
             Contains("say whose they are with --names"));
  CHECK_THAT(refused("lm.decoder.final_layernorm.weight", {C + 1}, "megatron"),
             Contains("names/megatron.txt:4: its shape is (41), expected (40)"));
  CHECK_THAT(refused("lm.decoder.layers.0.self_attention.linear_qkv_down_proj.weight", {A + 31, C},
                     "megatron"),
             Contains("has 2200 numbers, and names/megatron.txt takes 2160 of them"));
  CHECK_THAT(refused("lm.decoder.layers.9.input_layernorm.weight", {C}, "megatron"),
             Contains("the model has no parameter model.layers.9.input_layernorm.weight"));
  CHECK_THAT(refused("lm.x/decoder/logits_dense/kernel", {c.vocab_size, C}, "maxtext"),
             Contains("(107, 40) does not hold a parameter of shape (107, 40)"));
  file.put("lm.decoder.final_layernorm.weight", {C});
  file.put("lm.model.norm.weight", {C});
  CHECK_THROWS_WITH(file.read("megatron"), Contains("is a second tensor of model.norm.weight"));

  const auto error_of = [](const std::string& text) {
    try {
      ParameterMap::parse(text, "my.map");
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  CHECK_THAT(error_of("x -> model.norm.weight | flipped"),
             Contains("my.map:1: there is no adapter \"flipped\""));
  CHECK_THAT(error_of("x -> model.layers.{layer}.mlp.gate.weight"), Contains("needs its layer"));
  CHECK_THAT(error_of("x{layer} -> model.layers.{layer}.mlp.gate.weight | layers(0)"),
             Contains("needs its layer"));
  CHECK_THAT(error_of("x{layer} -> model.layers.{layer}.mlp.experts.{expert}.up_proj.weight"),
             Contains("needs its expert"));
  CHECK_THAT(error_of("# nothing"), Contains("maps nothing"));
}
