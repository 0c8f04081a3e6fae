// Checkpoint directories: what is read, and the sentence for each thing that can be wrong.
#include "core/checkpoint.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/checkpoint_writer.hpp"
#include "core/json.hpp"
#include "tests/catch.hpp"
#include "tests/scratch.hpp"
#include "tests/tiny_checkpoint.hpp"

using namespace dsa;
using namespace dsa::test;
using Catch::Contains;

namespace {

const std::string gate_proj = "model.layers.0.mlp.gate_proj.weight";

/// Every parameter's numbers, in the order of for_each_tensor.
std::map<std::string, std::vector<double>> numbers_of(const Model& model) {
  std::map<std::string, std::vector<double>> numbers;
  for_each_tensor(model.weights, model.config,
                  [&](const std::string& name, const Parameter& p, const auto&) {
                    numbers[name] = read_all<double>(p);
                  });
  return numbers;
}

std::string failure(const std::filesystem::path& dir) {
  try {
    numbers_of(open_checkpoint(dir));
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

/// The failure of opening and reading a checkpoint of these tensors.
std::string failure(const Json& json, const TinyTensors& tensors) {
  const Scratch scratch;
  write_checkpoint(scratch / "model", json, tensors);
  return failure(scratch / "model");
}

Json with_mtp() {
  Json json = tiny_config();
  json["num_nextn_predict_layers"] = 1;
  return json;
}

/// Splits a checkpoint into two shards; returns the index.
Json write_shards(const std::filesystem::path& dir, const Json& json, const TinyTensors& all) {
  std::filesystem::create_directories(dir);
  write_text(dir / "config.json", json.dump());
  TinyTensors halves[2];
  Json index;
  for (const auto& [name, tensor] : all) {
    const int half = name < "model.layers.1" ? 0 : 1;
    halves[half][name] = tensor;
    index["weight_map"][name] = half == 0 ? "a.safetensors" : "b.safetensors";
  }
  write_tensors(dir / "a.safetensors", halves[0]);
  write_tensors(dir / "b.safetensors", halves[1]);
  write_text(dir / "model.safetensors.index.json", index.dump());
  return index;
}

}  // namespace

TEST_CASE("every number of a checkpoint is read", "[checkpoint]") {
  const Scratch scratch;
  const auto tensors = tiny_tensors(tiny_config());
  write_checkpoint(scratch / "model", tiny_config(), tensors);
  const Model model = open_checkpoint(scratch / "model");
  const auto numbers = numbers_of(model);
  CHECK(numbers.size() == tensors.size());
  for (const auto& [name, values] : numbers) CHECK(values == tensors.at(name).values);
  CHECK(read_all<float>(model.weights.norm).size() == 10);

  const Parameter& p = model.weights.layers[0].mlp.gate_proj.weight;
  std::vector<double> rows(2 * 10);
  read_rows(p, 3, 5, rows.data());
  CHECK(std::equal(rows.begin(), rows.end(), tensors.at(gate_proj).values.begin() + 30));
  CHECK_THROWS_WITH(read_rows(p, 3, 15, rows.data()),
                    "rows 3 to 15 of tensor " + gate_proj + " were asked for, which has 14");
  CHECK_THROWS_WITH(read_all<double>(Parameter{}), Contains("is not in the checkpoint"));
}

TEST_CASE("a resident model holds the same numbers", "[checkpoint]") {
  const Scratch scratch;
  write_checkpoint(scratch / "model", tiny_config(), tiny_tensors(tiny_config()));
  const Model model = open_checkpoint(scratch / "model");
  const Model held = resident(model, 1 << 20);
  CHECK(numbers_of(held) == numbers_of(model));
  CHECK(held.weights.norm.dtype == Dtype::f64);
  CHECK(model.files.size() == 1);
  CHECK(held.files.empty());
  const Model too_large = resident(model, 100);
  CHECK(too_large.weights.norm.dtype == Dtype::f32);
  CHECK(numbers_of(too_large) == numbers_of(model));
}

TEST_CASE("packed experts are the same rows", "[checkpoint]") {
  const Scratch scratch;
  auto tensors = tiny_tensors(tiny_config());
  write_checkpoint(scratch / "separate", tiny_config(), tensors);
  pack_experts(tensors, "model.layers.1", 4);
  write_checkpoint(scratch / "packed", tiny_config(), tensors);
  const Model packed = open_checkpoint(scratch / "packed");
  CHECK(numbers_of(packed) == numbers_of(open_checkpoint(scratch / "separate")));
  CHECK(packed.weights.layers[1].moe.experts[2].up_proj.weight.name ==
        "model.layers.1.mlp.experts.gate_up_proj[2, 6:12]");

  auto broken = tensors;
  broken.at("model.layers.1.mlp.experts.gate_up_proj").shape = {4, 10, 12};
  CHECK_THAT(
      failure(tiny_config(), broken),
      Contains("gate_up_proj has shape (4, 10, 12), expected (4, 12, 10)") && !Contains("more;"));
  broken = tensors;
  broken.at("model.layers.1.mlp.experts.down_proj").dtype = Dtype::f8_e4m3;
  CHECK_THAT(failure(tiny_config(), broken),
             Contains("down_proj is F8_E4M3, expected with its block scales"));
}

TEST_CASE("FP8 is scaled block by block, ragged edges included", "[checkpoint]") {
  Json json = tiny_config();
  json["quantization_config"] = {{"quant_method", "fp8"}, {"weight_block_size", {4, 4}}};
  auto tensors = tiny_tensors(json);
  to_fp8(tensors, gate_proj, 4);  // 14 x 10: four blocks down, three across
  const Scratch scratch;
  write_checkpoint(scratch / "model", json, tensors);
  const Model model = open_checkpoint(scratch / "model");
  const Parameter& p = model.weights.layers[0].mlp.gate_proj.weight;
  REQUIRE(p.scale_inv != nullptr);
  const auto values = read_all<double>(p);
  const auto& codes = tensors.at(gate_proj).values;
  Index wrong = 0;
  for (Index r = 0; r < 14; ++r)
    for (Index c = 0; c < 10; ++c) {
      const double scale = 0.75 + 0.25 * static_cast<double>(r / 4 * 3 + c / 4);
      const auto i = static_cast<std::size_t>(r * 10 + c);
      if (values[i] != codes[i] * scale) ++wrong;
    }
  CHECK(wrong == 0);
  std::vector<double> row(10);
  read_rows(p, 9, 10, row.data());
  CHECK(std::equal(row.begin(), row.end(), values.begin() + 90));
  CHECK(numbers_of(resident(model, 1 << 20)) == numbers_of(model));

  auto broken = tensors;
  broken.erase(gate_proj + "_scale_inv");
  CHECK_THAT(failure(json, broken),
             Contains("is F8_E4M3, expected with its block scales " + gate_proj + "_scale_inv"));
  broken = tensors;
  broken.at(gate_proj + "_scale_inv").shape = {3, 4};
  CHECK_THAT(failure(json, broken), Contains("_scale_inv has shape (3, 4), expected (4, 3)"));
  broken = tensors;
  broken.at(gate_proj + "_scale_inv").dtype = Dtype::f64;
  CHECK_THAT(failure(json, broken), Contains("_scale_inv has dtype F64, expected F32, BF16, F16"));
  broken = tensors;
  broken.at(gate_proj).dtype = Dtype::f32;
  CHECK_THAT(failure(json, broken), Contains("which is F32; only F8_E4M3 weights have block"));
  broken = tensors;
  broken.at(gate_proj).values[0] = 1e9;  // becomes NaN
  CHECK_THAT(failure(json, broken), Contains("(F8_E4M3) holds NaN at row 0, column 0"));
  broken = tensors;
  broken.at(gate_proj + "_scale_inv").values[11] = std::numeric_limits<double>::infinity();
  CHECK_THAT(failure(json, broken), Contains("at row 12, column "));
}

TEST_CASE("scales at an odd address are read all the same", "[checkpoint]") {
  Json json = tiny_config();
  json["quantization_config"] = {{"quant_method", "fp8"}, {"weight_block_size", {4, 4}}};
  json["vocab_size"] = 11;
  auto tensors = tiny_tensors(json);
  to_fp8(tensors, gate_proj, 4);
  to_fp8(tensors, "model.layers.0.self_attn.q_a_proj.weight", 4);  // 70 bytes, two short of 72
  const Scratch scratch;
  write_checkpoint(scratch / "model", json, tensors);
  CHECK_FALSE(StoredCheckpoint::open(scratch / "model").scales.empty());
  const auto numbers = numbers_of(open_checkpoint(scratch / "model"));
  const auto& codes = tensors.at("model.layers.0.self_attn.q_a_proj.weight").values;
  CHECK(numbers.at("model.layers.0.self_attn.q_a_proj.weight")[69] == codes[69] * 2);
}

TEST_CASE("missing, extra, misshaped and unreadable tensors are named", "[checkpoint]") {
  const auto whole = tiny_tensors(tiny_config());
  auto tensors = whole;
  tensors.erase("model.layers.1.self_attn.indexer.k_norm.bias");
  CHECK_THAT(failure(tiny_config(), tensors),
             Contains("tensor model.layers.1.self_attn.indexer.k_norm.bias is missing, expected "
                      "with shape (8)"));
  tensors.erase("lm_head.weight");
  CHECK_THAT(failure(tiny_config(), tensors), Contains("(and 1 more; dsa-run inspect lists them"));
  tensors = whole;
  tensors["model.layers.0.self_attn.extra"] = {Dtype::f32, {1}, {0}};
  CHECK_THAT(failure(tiny_config(), tensors), Contains("self_attn.extra is not part of the model"));
  tensors = whole;
  tensors.at("model.norm.weight") = {Dtype::f32, {2, 5}, std::vector<double>(10)};
  CHECK_THAT(failure(tiny_config(), tensors),
             Contains("tensor model.norm.weight has shape (2, 5), expected (10)"));
  tensors = whole;
  tensors.at("model.norm.weight").dtype = Dtype::i32;
  CHECK_THAT(failure(tiny_config(), tensors),
             Contains("model.norm.weight has dtype I32, expected F64, F32, F16, BF16"));
  tensors = whole;
  tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = {Dtype::f32, {2}, {1, 2}};
  CHECK(failure(tiny_config(), tensors) == "no error");
}

TEST_CASE("numbers that are not finite are named with their place", "[checkpoint]") {
  auto tensors = tiny_tensors(tiny_config());
  tensors.at(gate_proj).values[47] = std::numeric_limits<double>::quiet_NaN();
  CHECK_THAT(failure(tiny_config(), tensors),
             Contains("tensor " + gate_proj + " (F32) holds NaN at row 4, column 7"));
  tensors = tiny_tensors(tiny_config());
  tensors.at("model.norm.weight").values[3] = -std::numeric_limits<double>::infinity();
  CHECK_THAT(failure(tiny_config(), tensors), Contains("holds -infinity at index 3"));
}

TEST_CASE("tied embeddings are the head", "[checkpoint]") {
  Json json = tiny_config();
  json["tie_word_embeddings"] = true;
  auto tensors = tiny_tensors(json);
  CHECK_FALSE(tensors.contains("lm_head.weight"));
  const Scratch scratch;
  write_checkpoint(scratch / "model", json, tensors);
  const Model model = open_checkpoint(scratch / "model");
  CHECK(model.weights.lm_head.weight.data == model.weights.embed_tokens.data);
  const Model held = resident(model, 1 << 20);
  CHECK(held.weights.lm_head.weight.data == held.weights.embed_tokens.data);

  tensors["lm_head.weight"] = tensors.at("model.embed_tokens.weight");
  CHECK(failure(json, tensors) == "no error");
  tensors["lm_head.weight"].shape = {10, 11};
  CHECK_THAT(failure(json, tensors), Contains("lm_head.weight has shape (10, 11), expected (11"));
}

TEST_CASE("MTP blocks are whole or absent", "[checkpoint]") {
  const auto whole = tiny_tensors(with_mtp());
  const Scratch scratch;
  auto tensors = whole;
  tensors["model.layers.2.embed_tokens.weight"] = whole.at("model.embed_tokens.weight");
  tensors["model.layers.2.shared_head.head.weight"] = whole.at("lm_head.weight");
  write_checkpoint(scratch / "whole", with_mtp(), tensors);
  CHECK(open_checkpoint(scratch / "whole").weights.mtp.size() == 1);
  tensors["model.layers.2.shared_head.head.weight"].shape = {10, 11};
  CHECK_THAT(failure(with_mtp(), tensors), Contains("shared_head.head.weight has shape (10, 11)"));

  write_checkpoint(scratch / "absent", with_mtp(), tiny_tensors(tiny_config()));
  CHECK(open_checkpoint(scratch / "absent").weights.mtp.empty());

  tensors = whole;
  tensors.erase("model.layers.2.hnorm.weight");
  CHECK_THAT(failure(with_mtp(), tensors), Contains("model.layers.2.hnorm.weight is missing"));

  // The config does not ask for the block: HuggingFace ignores it, if it is one.
  CHECK(failure(tiny_config(), whole) == "no error");
  tensors = tiny_tensors(tiny_config());
  tensors["model.layers.2.hnorm.weight"] = whole.at("model.layers.2.hnorm.weight");
  CHECK_THAT(failure(tiny_config(), tensors), Contains("hnorm.weight is not part of the model"));
}

TEST_CASE("a sharded checkpoint agrees with its index", "[checkpoint]") {
  const Scratch scratch;
  const auto dir = scratch / "model";
  const auto tensors = tiny_tensors(tiny_config());
  const Json index = write_shards(dir, tiny_config(), tensors);
  const auto numbers = numbers_of(open_checkpoint(dir));
  for (const auto& [name, values] : numbers) CHECK(values == tensors.at(name).values);
  const auto with_index = [&](auto&& change) {
    Json changed = index;
    change(changed);
    write_text(dir / "model.safetensors.index.json", changed.dump());
    return failure(dir);
  };
  CHECK_THAT(with_index([](Json& i) { i["weight_map"].erase("lm_head.weight"); }),
             Contains("a.safetensors has tensor lm_head.weight, which the index does not list"));
  CHECK_THAT(with_index([](Json& i) { i["weight_map"]["lm_head.weight"] = "b.safetensors"; }),
             Contains("lm_head.weight, which the index places in b.safetensors"));
  CHECK_THAT(with_index([](Json& i) { i["weight_map"]["ghost"] = "b.safetensors"; }),
             Contains("b.safetensors has no tensor ghost, which model.safetensors.index.json"));
  CHECK_THAT(with_index([](Json& i) { i["weight_map"]["ghost"] = "c.safetensors"; }),
             Contains("has no c.safetensors, which model.safetensors.index.json lists"));
  CHECK_THAT(with_index([](Json& i) { i["weight_map"]["ghost"] = "../a.safetensors"; }),
             Contains("expected a file of the same directory"));
  CHECK_THAT(with_index([](Json& i) { i["weight_map"]["ghost"] = 3; }),
             Contains("tensor ghost is in 3, expected the name of a file"));
  CHECK_THAT(with_index([](Json& i) { i = Json::object(); }), Contains("has no \"weight_map\""));
  CHECK_THAT(with_index([](Json& i) { i["weight_map"] = Json::object(); }), Contains("is empty"));
  write_text(dir / "model.safetensors.index.json", index.dump());
  write_tensors(dir / "model.safetensors", tensors);
  CHECK_THAT(failure(dir), Contains("model.safetensors beside an index that does not list it"));
}

TEST_CASE("a directory without weights says what is expected", "[checkpoint]") {
  const Scratch scratch;
  CHECK_THROWS_WITH(StoredCheckpoint::open(scratch / "none"), Contains("no such directory"));
  write_text(scratch / "config.json", tiny_config().dump());
  CHECK_THAT(failure(scratch.path()),
             Contains("has neither model.safetensors nor model.safetensors.index.json"));
  write_text(scratch / "model.safetensors", "");
  CHECK_THAT(failure(scratch.path()), Contains("model.safetensors holds 0 bytes"));
}

TEST_CASE("a checkpoint is written in shards, or not at all", "[checkpoint]") {
  const Scratch scratch;
  const std::vector<CheckpointWriter::Declaration> two = {{"a", Dtype::f32, {2}},
                                                          {"b", Dtype::f32, {3}}};
  const std::vector<std::byte> bytes(20);
  const std::span all(bytes);
  {
    CheckpointWriter out(scratch / "out", two, 12);
    CHECK(out.shards() == 2);
    out.append(all.first(8));
    CHECK_THROWS_WITH(out.finish_tensors(), Contains("is incomplete"));
    CHECK_THROWS_WITH(CheckpointWriter(scratch / "out", two, 12), Contains("partial exists"));
    out.append(all.first(4));
    out.append(all.first(8));
    out.finish_tensors();
    CHECK_THROWS_WITH(out.append(all), Contains("is complete, yet more bytes follow"));
    out.commit();
  }
  CHECK(StoredCheckpoint::open(scratch / "out").shards.size() == 2);
  CHECK_THROWS_WITH(CheckpointWriter(scratch / "out", two, 12), Contains("exists already"));
  { CheckpointWriter(scratch / "abandoned", two, 12).append(all.first(8)); }
  CHECK_FALSE(std::filesystem::exists(scratch / "abandoned.partial"));
  CHECK_THROWS_WITH(CheckpointWriter(scratch / "huge", {{"a", Dtype::f32, {Index{1} << 50}}}, 12),
                    Contains("free; make room first"));
  CHECK(parse_bytes("1.5 GiB", "x") == 1610612736);
  CHECK(parse_bytes("200kB", "x") == 200000);
  for (const char* bad : {"", "GB", "5 parsecs", "-1", "1e300", "nan"})
    CHECK_THROWS_WITH(parse_bytes(bad, "--shard-size"), Contains("expected a size such as 5GB"));
}
