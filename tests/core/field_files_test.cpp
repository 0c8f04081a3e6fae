// Checkpoints and configs as people have them: wrappers' names, other spellings, other scales, and
// what must be refused by its name. Each case was reported in public.
#include <cmath>

#include "core/checkpoint.hpp"
#include "tests/catch.hpp"
#include "tests/scratch.hpp"
#include "tests/tiny_checkpoint.hpp"

using namespace dsa;
using namespace dsa::test;
using Catch::Contains;

namespace {

Json with(const Json& more) {
  Json json = tiny_config();
  for (const auto& [key, value] : more.items()) json[key] = value;
  return json;
}
Config parse(const Json& more) { return parse_config(with(more), "config.json of DIR"); }

std::string failure(const Json& more) {
  try {
    parse(more);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

std::string failure_of(const std::filesystem::path& dir) {
  try {
    open_checkpoint(dir);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

std::map<std::string, std::vector<double>> numbers_in(const std::filesystem::path& dir) {
  const Model model = open_checkpoint(dir);
  std::map<std::string, std::vector<double>> numbers;
  for_each_tensor(model.weights, model.config,
                  [&](const std::string& name, const Parameter& p, const auto&) {
                    numbers[name] = read_all<double>(p);
                  });
  return numbers;
}

Json fp8_config(Index edge) {
  return with({{"quantization_config",
                {{"quant_method", "fp8"}, {"fmt", "e4m3"}, {"weight_block_size", {edge, edge}}}}});
}

const std::string wk = "model.layers.1.self_attn.indexer.wk.weight";

}  // namespace

TEST_CASE("configs that only spell things otherwise are read", "[config]") {
  CHECK(parse({{"dtype", "torch.bfloat16"}}).dtype == Dtype::bf16);
  CHECK(parse({{"dtype", "half"}}).dtype == Dtype::f16);
  CHECK(parse({{"dtype", "auto"}, {"torch_dtype", "float32"}}).dtype == Dtype::f32);
  CHECK_THAT(failure({{"dtype", "int8"}}),
             Contains("\"dtype\" is \"int8\", expected \"bfloat16\""));

  for (const char* alias : {"num_experts", "num_local_experts"}) {
    Json json = tiny_config();
    json.erase("n_routed_experts");
    json[alias] = 4;
    CHECK(parse_config(json, "x").n_routed_experts == 4);
    CHECK(parse_config(json, "x").unused_keys.empty());
    json["n_routed_experts"] = 8;
    CHECK_THROWS_WITH(parse_config(json, "x"), Contains("\"" + std::string(alias) +
                                                        "\" is 4 but \"n_routed_experts\" is 8"));
  }
  CHECK(parse({{"num_key_value_heads", 1}}).num_attention_heads == 2);
  CHECK_THAT(failure({{"num_key_value_heads", 4}}), Contains("expected 2 as num_attention_heads"));

  const Json yarn = {{"type", "yarn"},
                     {"rope_type", "deepseek_yarn"},
                     {"factor", 40},
                     {"original_max_position_embeddings", 4096}};
  CHECK(parse({{"rope_scaling", yarn}}).rope.yarn);
}

TEST_CASE("Kimi-K2 is DeepSeek-V3 under another name", "[config]") {
  Json text = tiny_config();
  for (const char* key : {"index_n_heads", "index_head_dim", "index_topk"}) text.erase(key);
  text["model_type"] = "kimi_k2";
  text["rope_scaling"] = {{"type", "yarn"},   {"factor", 32},
                          {"beta_fast", 1.0}, {"beta_slow", 1.0},
                          {"mscale", 1},      {"original_max_position_embeddings", 4096}};
  const Config plain = parse_config(text, "x");
  CHECK(plain.rope.beta_fast == 1);
  CHECK_FALSE(plain.indexer);
  const Json nested = {
      {"model_type", "kimi_k25"}, {"vision_config", {{"depth", 2}}}, {"text_config", text}};
  const Config inner = parse_config(nested, "x");
  CHECK(inner.model_type == "kimi_k2");
  CHECK(inner.hidden_size == plain.hidden_size);
  CHECK(inner.unused_keys == std::vector<std::string>{"vision_config"});
}

TEST_CASE("lists may count the multi-token-prediction layers", "[config]") {
  const Json more = {{"num_nextn_predict_layers", 1},
                     {"mlp_layer_types", {"dense", "sparse", "sparse"}},
                     {"indexer_types", {"full", "shared", "full"}}};
  const Config config = parse(more);
  CHECK(config.is_moe == std::vector<bool>{false, true});
  CHECK(config.indexer->computes == std::vector<bool>{true, false});
  CHECK_THAT(failure({{"mlp_layer_types", {"dense", "sparse", "sparse"}}}),
             Contains("has 3 entries, expected 2, one a layer"));
  CHECK_THAT(
      failure({{"num_nextn_predict_layers", 1}, {"mlp_layer_types", {"dense", "sparse", "dense"}}}),
      Contains("\"dense\" of layer 2, a multi-token-prediction layer"));
}

TEST_CASE("IndexCache shares selections by frequency and by pattern", "[config]") {
  Json json = with({{"num_hidden_layers", 10}, {"use_index_cache", true}, {"index_topk_freq", 4}});
  const std::vector<bool> every_four = {true, true,  false, false, false,
                                        true, false, false, false, true};
  CHECK(parse_config(json, "x").indexer->computes == every_four);
  json["use_index_cache"] = false;
  CHECK(parse_config(json, "x").indexer->computes == std::vector<bool>(10, true));
  json["use_index_cache"] = true;
  json["index_topk_pattern"] = "FFSSSFSSSF";
  CHECK(parse_config(json, "x").indexer->computes == every_four);
}

TEST_CASE("keys that change the forward pass are refused, others are listed", "[config]") {
  CHECK_THAT(failure({{"swiglu_limit", 10.0}}),
             Contains("\"swiglu_limit\" is 10.0, which clamps the activations"));
  CHECK_THAT(failure({{"final_logit_softcapping", 30.0}}), Contains("bounds the logits"));
  CHECK_THAT(failure({{"attention_sink", true}}), Contains("adds a sink"));
  CHECK_THAT(failure({{"my_attention_sink_size", 4}}),
             Contains("\"my_attention_sink_size\" is 4, which by its name adds a sink"));
  CHECK(parse({{"learnable_sink_init", 0.0}}).unused_keys.empty());
  CHECK_THAT(failure({{"layer_types", {"indexed_attention", "full_attention"}}}),
             Contains("says \"full_attention\" of layer 1, expected \"indexed_attention\""));
  const Json yarn = {{"rope_type", "yarn"}, {"factor", 40}, {"rope_theta", 10000}};
  CHECK_THAT(failure({{"rope_parameters", {{"main", yarn}, {"indexed_attention", yarn}}}}),
             Contains("holds a set of parameters \"indexed_attention\" of its own"));
  CHECK(parse({{"swiglu_limit", nullptr}, {"logit_scale", 1.0}, {"sliding_window", nullptr}})
            .unused_keys.empty());
  const Config config = parse({{"pretraining_tp", 1}, {"bos_token_id", 0}, {"a_note", {1, 2}}});
  CHECK(config.unused_keys == std::vector<std::string>{"a_note", "bos_token_id", "pretraining_tp"});
}

TEST_CASE("formats that cannot be read exactly are refused by name", "[config]") {
  const auto quantised = [](const Json& q) { return failure({{"quantization_config", q}}); };
  const Json int4 = {{"num_bits", 4}, {"type", "int"}, {"strategy", "group"}, {"group_size", 32}};
  CHECK_THAT(quantised({{"quant_method", "compressed-tensors"},
                        {"format", "pack-quantized"},
                        {"config_groups", {{"group_0", {{"weights", int4}}}}}}),
             Contains("INT4 weights by group of 32 (compressed-tensors, pack-quantized)"));
  CHECK_THAT(quantised({{"quant_method", "modelopt"}, {"quant_algo", "NVFP4"}}), Contains("NVFP4"));
  CHECK_THAT(quantised({{"quant_method", "fp8"}, {"weight_block_size", {1, 32}}}),
             Contains("MXFP8"));
  CHECK_THAT(quantised({{"quant_method", "fp8"}}), Contains("one scale a tensor or channel"));

  const Scratch scratch;
  write_checkpoint(scratch / "model", tiny_config(), tiny_tensors(tiny_config()));
  write_text(scratch / "model/hf_quant_config.json",
             R"({"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4"}})");
  CHECK_THAT(failure_of(scratch / "model"),
             Contains("hf_quant_config.json says that the weights are NVFP4 (modelopt), which dsa "
                      "does not read"));
}

TEST_CASE("a wrapper's prefix of names is read", "[checkpoint]") {
  const auto tensors = tiny_tensors(tiny_config());
  const Scratch scratch;
  write_checkpoint(scratch / "plain", tiny_config(), tensors);
  const auto expected = numbers_in(scratch / "plain");
  const std::pair<const char*, const char*> prefixes[] = {
      {"language_model.model.", "language_model."},
      {"model.language_model.", ""},
      {"base_model.model.model.", "base_model.model."},
      {"", ""}};
  for (const auto& [prefix, of_head] : prefixes) {
    TinyTensors wrapped = {{"vision_tower.patch.weight", {Dtype::f32, {2}, {1, 2}}}};
    if (std::string(prefix).empty()) wrapped.clear();  // no name can be told from a text model's
    for (const auto& [name, tensor] : tensors)
      wrapped[name.starts_with("model.") ? prefix + name.substr(6) : of_head + name] = tensor;
    INFO(prefix);
    write_checkpoint(scratch / "wrapped", tiny_config(), wrapped);
    CHECK(numbers_in(scratch / "wrapped") == expected);
    const StoredCheckpoint stored = StoredCheckpoint::open(scratch / "wrapped");
    CHECK(stored.prefix == prefix);
    CHECK(stored.outside.size() == wrapped.size() - tensors.size());
    std::filesystem::remove_all(scratch / "wrapped");
  }
  auto adapted = tensors;
  adapted["model.layers.0.self_attn.o_proj.lora_A.weight"] = {Dtype::f32, {1}, {1}};
  write_checkpoint(scratch / "adapted", tiny_config(), adapted);
  CHECK_THAT(failure_of(scratch / "adapted"), Contains("a LoRA adapter that is not merged"));
}

TEST_CASE("block scales of other names and dtypes are the same numbers", "[checkpoint]") {
  const Index edge = 4;
  auto tensors = tiny_tensors(tiny_config());
  to_fp8(tensors, wk, edge);
  TinyTensor& scales = tensors.at(wk + "_scale_inv");
  for (std::size_t i = 0; i < scales.values.size(); ++i)
    scales.values[i] = std::ldexp(1.0, static_cast<int>(i % 5) - 7);  // exact in every format
  const Scratch scratch;
  write_checkpoint(scratch / "f32", fp8_config(edge), tensors);
  const auto expected = numbers_in(scratch / "f32");

  auto renamed = tensors;
  renamed[wk + "_scale"] = renamed.at(wk + "_scale_inv");
  renamed.erase(wk + "_scale_inv");
  write_checkpoint(scratch / "quark", fp8_config(edge), renamed);
  CHECK(numbers_in(scratch / "quark") == expected);

  for (const Dtype dtype : {Dtype::bf16, Dtype::f16}) {
    scales.dtype = dtype;
    const std::string name(name_of(dtype));
    write_checkpoint(scratch / name, fp8_config(edge), tensors);
    CHECK(numbers_in(scratch / name) == expected);
  }

  renamed[wk + "_scale"] = {Dtype::f32, {8}, std::vector<double>(8, 1)};
  write_checkpoint(scratch / "channel", fp8_config(edge), renamed);
  CHECK_THAT(failure_of(scratch / "channel"), Contains("is FP8 with one scale a channel"));
  renamed[wk + "_scale"] = {Dtype::f32, {1}, {1}};
  write_checkpoint(scratch / "tensor", fp8_config(edge), renamed);
  CHECK_THAT(failure_of(scratch / "tensor"), Contains("is FP8 with one scale a tensor"));
}

TEST_CASE("packed FP8 experts are slices with their blocks' scales", "[checkpoint]") {
  // F = 6 is no multiple of the edge: up_proj begins within a block.
  const Index edge = 4, E = 4, F = 6, C = 10;
  auto tensors = tiny_tensors(tiny_config());
  pack_experts(tensors, "model.layers.1", E);
  const std::string at = "model.layers.1.mlp.experts.";
  std::map<std::string, std::vector<double>> scaled;
  for (const auto& [name, rows, columns] : {std::tuple{std::string("gate_up_proj"), 2 * F, C},
                                            std::tuple{std::string("down_proj"), C, F}}) {
    TinyTensor& packed = tensors.at(at + name);
    packed.dtype = Dtype::f8_e4m3;
    const Index down = (rows + edge - 1) / edge, across = (columns + edge - 1) / edge;
    TinyTensor scales{Dtype::f32, {E, down, across}, {}};
    for (Index i = 0; i < E * down * across; ++i)
      scales.values.push_back(0.5 + 0.25 * static_cast<double>(i % 7));
    std::vector<double> values;
    for (Index i = 0; i < E * rows * columns; ++i) {
      const Index e = i / (rows * columns), r = i / columns % rows, c = i % columns;
      values.push_back(
          round_to(Dtype::f8_e4m3, packed.values[static_cast<std::size_t>(i)]) *
          scales.values[static_cast<std::size_t>((e * down + r / edge) * across + c / edge)]);
    }
    scaled[name] = values;
    tensors[at + name + "_scale_inv"] = scales;
  }
  const Scratch scratch;
  write_checkpoint(scratch / "model", fp8_config(edge), tensors);
  const auto numbers = numbers_in(scratch / "model");
  for (Index e = 0; e < E; ++e) {
    const auto slice = [&](const std::string& packed, Index first, Index rows, Index columns,
                           Index all_rows) {
      const auto begin = scaled.at(packed).begin() + (e * all_rows + first) * columns;
      return std::vector<double>(begin, begin + rows * columns);
    };
    const std::string name = at + std::to_string(e) + ".";
    CHECK(numbers.at(name + "gate_proj.weight") == slice("gate_up_proj", 0, F, C, 2 * F));
    CHECK(numbers.at(name + "up_proj.weight") == slice("gate_up_proj", F, F, C, 2 * F));
    CHECK(numbers.at(name + "down_proj.weight") == slice("down_proj", 0, C, F, C));
  }
}

TEST_CASE("a multi-token-prediction block may own its head and embeddings", "[checkpoint]") {
  Json json = with({{"num_nextn_predict_layers", 1}});
  auto tensors = tiny_tensors(json);
  const std::string head = "model.layers.2.shared_head.head.weight";
  tensors[head] = tensors.at("lm_head.weight");
  const Scratch scratch;
  write_checkpoint(scratch / "same", json, tensors);
  const Model same = open_checkpoint(scratch / "same");
  CHECK_FALSE(same.weights.mtp.front().owns_head);
  CHECK(same.weights.mtp.front().shared_head.weight.name == "lm_head.weight");

  tensors.at(head).values[3] += 1;
  write_checkpoint(scratch / "own", json, tensors);
  const Model own = open_checkpoint(scratch / "own");
  CHECK(own.weights.mtp.front().owns_head);
  CHECK(own.weights.mtp.front().shared_head.weight.name == head);
  CHECK(read_all<double>(own.weights.mtp.front().shared_head.weight) == tensors.at(head).values);
  CHECK_FALSE(own.weights.mtp.front().owns_embedding);
}

TEST_CASE("what a directory holds besides the model is told", "[checkpoint]") {
  const Scratch scratch;
  const auto tensors = tiny_tensors(tiny_config());
  write_checkpoint(scratch / "model", tiny_config(), tensors);
  write_tensors(scratch / "model/model-mtp-00001.safetensors",
                {{"model.layers.2.enorm.weight", {Dtype::f32, {1}, {1}}}});
  CHECK(StoredCheckpoint::open(scratch / "model").unlisted ==
        std::vector<std::string>{"model-mtp-00001.safetensors"});

  auto dense = tensors;
  std::erase_if(dense, [](const auto& t) { return t.first.find(".indexer.") != t.first.npos; });
  write_checkpoint(scratch / "dense", tiny_config(), dense);
  CHECK_THAT(failure_of(scratch / "dense"), Contains("lacks the indexer alone (10 tensors"));

  const Json shared = with({{"index_topk_pattern", "FS"}});
  write_checkpoint(scratch / "shared", shared, tensors);
  Weights weights;
  const StoredCheckpoint stored = StoredCheckpoint::open(scratch / "shared");
  const CheckpointProblems problems = bind(stored, parse_config(shared, "x"), weights);
  CHECK(problems.none());
  CHECK(problems.unused.size() == 5);
  CHECK(problems.unused.front() == "model.layers.1.self_attn.indexer.k_norm.bias");
}
