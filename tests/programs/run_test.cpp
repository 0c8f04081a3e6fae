// dsa-run and make_wide as a user meets them: output, files, exit status, one line of complaint.
#include <limits>

#include "core/json.hpp"
#include "core/recording.hpp"
#include "tests/catch.hpp"
#include "tests/paths.hpp"
#include "tests/programs/programs.hpp"
#include "tests/scratch.hpp"
#include "tests/tiny_checkpoint.hpp"

using namespace dsa;
using namespace dsa::test;
using Catch::Contains;
namespace fs = std::filesystem;

namespace {

std::map<std::string, std::vector<double>> numbers_of(const fs::path& dir) {
  const Model model = open_checkpoint(dir);
  std::map<std::string, std::vector<double>> numbers;
  for_each_tensor(model.weights, model.config,
                  [&](const std::string& name, const Parameter& p, const auto&) {
                    numbers[name] = read_all<double>(p);
                  });
  return numbers;
}

Json config_of(const fs::path& dir) { return read_json(dir / "config.json"); }

/// The tiny checkpoint with an MTP block, a tokenizer, and one key that means nothing to us.
struct Tiny {
  Scratch scratch;
  Json json = tiny_config();
  TinyTensors tensors;
  std::string in = (scratch / "in").string();
  Tiny() {
    json["num_nextn_predict_layers"] = 1;
    json["auto_map"] = "kept";
    tensors = tiny_tensors(json);
    write();
    write_text(scratch / "in/tokenizer.json", "{}");
  }
  void write() const { write_checkpoint(in, json, tensors); }
  std::string to(const std::string& name) const { return (scratch / name).string(); }
};

}  // namespace

TEST_CASE("dsa-run --help reads like a manual page", "[run]") {
  CHECK(run("dsa-run --help").status == 0);
  CHECK_THAT(run("dsa-run inspect --help").out, Contains("Exit status 0: nothing is wrong"));
  CHECK_THAT(run("dsa-run convert --help").out, Contains("e_score_correction_bias"));
  CHECK_THAT(complaint("dsa-run"), Contains("see dsa-run --help"));
  CHECK_THAT(complaint("dsa-run inspect"), Contains("dir is required"));
  CHECK_THAT(complaint("dsa-run inspect . --context 0"), Contains("--context"));
  CHECK_THAT(complaint("dsa-run convert a b --dtype int4"), Contains("int4"));
}

TEST_CASE("inspect describes a whole checkpoint", "[run]") {
  const Tiny tiny;
  const std::string report = tiny.to("report.json");
  const Outcome result = run("dsa-run inspect " + tiny.in + " --context 100 --json " + report);
  CHECK(result.status == 0);
  CHECK_THAT(result.out, Contains("deepseek_v32: 2 layers, hidden 10, 2 heads, vocabulary 11") &&
                             Contains("2 of 4 experts + 1 shared") &&
                             Contains("attention, 3 keys"));
  const Json json = read_json(report);
  CHECK(json["ok"] == true);
  CHECK(json["mtp_blocks"] == 1);
  Index parameters = 0;
  for (const auto& [name, tensor] : tiny.tensors)
    parameters += static_cast<Index>(tensor.values.size());
  CHECK(json["parameters"] == parameters);
  CHECK(json["dtypes"]["F32"]["bytes"] == 4 * parameters);
  CHECK(json["routed_parameters"] == 4 * 3 * 6 * 10);
  CHECK(json["indexer_parameters"] == 2 * (16 * 7 + 8 * 10 + 8 + 8 + 2 * 10));
  // Two layers, three keys, two heads, 2 (9 + 5) FLOP; an indexer of two heads x 8 over 100 keys.
  CHECK(json["attention"]["flops"] == 2 * 3 * 2 * 2 * (9 + 5));
  CHECK(json["indexer"]["flops"] == 2 * 100 * 2 * 2 * (8 + 1));
  CHECK(json["cache_bytes_per_token"] == 2 * (9 + 8) * 4);
}

TEST_CASE("inspect counts a config alone as it counts the checkpoint", "[run]") {
  const Tiny tiny;
  const std::string whole = tiny.to("whole.json"), alone = tiny.to("alone.json");
  CHECK(run("dsa-run inspect " + tiny.in + " --json " + whole).status == 0);
  fs::remove(tiny.scratch / "in/model.safetensors");
  for (const std::string& path : {tiny.in, tiny.in + "/config.json"}) {
    const Outcome result = run("dsa-run inspect " + path + " --json " + alone);
    CHECK(result.status == 0);
    CHECK_THAT(result.out, Contains("no weights are here"));
    const Json want = read_json(whole), got = read_json(alone);
    CHECK(got["has_weights"] == false);
    for (const char* same :
         {"parameters", "active_parameters", "routed_parameters", "indexer_parameters",
          "mtp_parameters", "mtp_blocks", "layers", "attention", "indexer"})
      CHECK(got[same] == want[same]);
    CHECK(got["weights"]["flops"] == want["weights"]["flops"]);
  }
  write_text(tiny.scratch / "in/other.safetensors", "");
  CHECK_THAT(complaint("dsa-run inspect " + tiny.in), Contains("has neither model.safetensors"));
}

TEST_CASE("inspect lists everything that is wrong and exits 1", "[run]") {
  Tiny tiny;
  tiny.tensors.erase("model.layers.0.self_attn.o_proj.weight");
  tiny.tensors.erase("lm_head.weight");
  tiny.tensors["nonsense"] = {Dtype::f32, {1}, {0}};
  tiny.tensors.at("model.norm.weight").shape = {2, 5};
  tiny.tensors.at("model.embed_tokens.weight").values[13] = std::nan("");
  tiny.write();
  const std::string report = tiny.to("report.json");
  const Outcome result = run("dsa-run inspect " + tiny.in + " --json " + report);
  CHECK(result.status == 1);
  for (const char* line :
       {"missing     tensor lm_head.weight is missing",
        "missing     tensor model.layers.0.self_attn.o_proj.weight is missing",
        "extra       tensor nonsense is not part of the model",
        "misshaped   tensor model.norm.weight has shape (2, 5), expected (10)",
        "not_finite  tensor model.embed_tokens.weight (F32) holds NaN at row 1, column 3",
        "5 problems"})
    CHECK_THAT(result.out, Contains(line));
  CHECK(read_json(report)["problems"]["missing"].size() == 2);
}

TEST_CASE("inspect names bad block scales", "[run]") {
  Tiny tiny;
  tiny.json["quantization_config"] = {
      {"quant_method", "fp8"}, {"weight_block_size", {4, 4}}, {"scale_fmt", "ue8m0"}};
  const std::string name = "model.layers.0.mlp.gate_proj.weight";
  to_fp8(tiny.tensors, name, 4);
  tiny.write();
  CHECK_THAT(run("dsa-run inspect " + tiny.in).out,
             Contains("bad_scale   tensor " + name + "_scale_inv holds 0.75") &&
                 Contains("block row 0, column 0; expected a power of two"));
  for (double& scale : tiny.tensors.at(name + "_scale_inv").values) scale = 2;
  tiny.tensors.at(name + "_scale_inv").values[5] = -2;
  tiny.write();
  const Outcome result = run("dsa-run inspect " + tiny.in);
  CHECK(result.status == 1);
  CHECK_THAT(result.out, Contains("block row 1, column 2; expected a positive finite number"));
}

TEST_CASE("inspect warns of what no trained model has, and exits 0", "[run]") {
  Tiny tiny;
  const std::string bias = "model.layers.1.mlp.gate.e_score_correction_bias",
                    wk = "model.layers.1.self_attn.indexer.wk.weight";
  for (const std::string& name : {bias, wk})
    for (double& value : tiny.tensors.at(name).values) value = 0;
  to_fp8(tiny.tensors, "model.layers.0.self_attn.o_proj.weight", 4);
  TinyTensor& scales = tiny.tensors.at("model.layers.0.self_attn.o_proj.weight_scale_inv");
  for (double& scale : scales.values) scale = 1e-4;
  scales.values.back() = 1;
  tiny.json["quantization_config"] = {{"quant_method", "fp8"}, {"weight_block_size", {4, 4}}};
  std::erase_if(tiny.tensors, [](const auto& t) { return t.first.starts_with("model.layers.2."); });
  tiny.write();
  write_tensors(tiny.in + "/extra.safetensors", {{"x", {Dtype::f32, {1}, {1}}}});
  const std::string report = tiny.to("report.json");
  const Outcome result = run("dsa-run inspect " + tiny.in + " --json " + report);
  CHECK(result.status == 0);
  const auto warned = [&](const std::string& sentence) {
    CHECK_THAT(result.out, Contains("warning     " + sentence));
  };
  warned("config.json has keys that nothing here depends on: auto_map");
  warned("config.json promises 1 multi-token-prediction block, and the checkpoint holds 0");
  warned("extra.safetensors lies in the directory and no index lists it");
  warned("tensor " + bias + " holds 0 everywhere");
  warned("tensor " + wk + " holds 0 everywhere");
  warned("tensor model.layers.0.self_attn.o_proj.weight has 1 block scale of exactly 1");
  CHECK(read_json(report)["warnings"].size() == 6);
  CHECK(read_json(report)["unused_keys"] == Json{"auto_map"});
}

TEST_CASE("inspect reads the samples", "[run]") {
  for (const char* name : {"v2lite", "v3", "v32", "glm"}) {
    for (const char* below : {"", "/checkpoint"}) {
      const fs::path dir =
          fs::path(source_dir()) / "data" / "samples" / (name + std::string(below));
      if (!fs::exists(dir / "config.json")) continue;
      INFO(dir);
      CHECK(run("dsa-run inspect " + dir.string()).status == 0);
    }
  }
}

TEST_CASE("broken input is one line and exit status 2", "[run]") {
  Tiny tiny;
  CHECK_THAT(complaint("dsa-run inspect " + tiny.to("none")), Contains("none"));
  CHECK_THAT(
      complaint("dsa-run convert " + tiny.to("none") + " " + tiny.to("out") + " --dtype bf16"),
      Contains("none"));
  write_text(tiny.scratch / "in/config.json", "{\n\"vocab_size\": 1,,\n}");
  CHECK_THAT(complaint("dsa-run inspect " + tiny.in), Contains("config.json"));
  tiny.write();
  fs::resize_file(tiny.scratch / "in/model.safetensors", 3000);
  CHECK_THAT(complaint("dsa-run inspect " + tiny.in), Contains("model.safetensors"));
  tiny.write();
  CHECK_THAT(complaint("dsa-run inspect " + tiny.in + " --json " + tiny.to("no/where.json")),
             Contains("cannot write"));
}

TEST_CASE("fp32 to fp8 to bf16: every value is the rounding that was meant", "[run]") {
  const Tiny tiny;
  const std::string fp8 = tiny.to("fp8"), bf16 = tiny.to("bf16");
  REQUIRE(run("dsa-run convert " + tiny.in + " " + fp8 + " --dtype fp8").status == 0);
  REQUIRE(run("dsa-run convert " + fp8 + " " + bf16 + " --dtype bf16").status == 0);
  CHECK(run("dsa-run inspect " + fp8).status == 0);
  const auto original = numbers_of(tiny.in), quantised = numbers_of(fp8), last = numbers_of(bf16);
  CHECK(last.size() == original.size());
  for (const auto& [name, x] : original) {
    double largest = 0;
    for (double v : x) largest = std::max(largest, std::abs(v));
    const bool is_matrix = name.find("_proj") != std::string::npos ||
                           name.find(".wq_b") != std::string::npos ||
                           name.find(".wk.") != std::string::npos;
    const bool is_fp8 = is_matrix && name.find("weights_proj") == std::string::npos &&
                        name.find("eh_proj") == std::string::npos;
    // No tensor is larger than one 128 x 128 block, so that it has one scale.
    const double scale = static_cast<double>(static_cast<float>(largest / 448));
    const bool is_f32 = name.find("weights_proj") != std::string::npos ||
                        name.find("correction_bias") != std::string::npos;
    Index wrong = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double q = is_fp8 ? round_to(Dtype::f8_e4m3, x[i] / scale) * scale : x[i];
      if (quantised.at(name)[i] != q) ++wrong;
      if (last.at(name)[i] != (is_f32 ? q : round_to(Dtype::bf16, q))) ++wrong;
    }
    INFO(name);
    CHECK(wrong == 0);
  }
  CHECK(config_of(fp8)["quantization_config"]["weight_block_size"] == Json{128, 128});
  CHECK(config_of(fp8)["dtype"] == "float32");
  CHECK_FALSE(config_of(bf16).contains("quantization_config"));
  CHECK(config_of(bf16)["dtype"] == "bfloat16");
  CHECK(config_of(bf16)["auto_map"] == "kept");
  CHECK(read_text(fs::path(bf16) / "tokenizer.json") == "{}");
}

TEST_CASE("ue8m0 scales are powers of two, and FP8 codes survive a second conversion", "[run]") {
  Tiny tiny;
  tiny.json["quantization_config"] = {
      {"quant_method", "fp8"}, {"weight_block_size", {4, 4}}, {"scale_fmt", "ue8m0"}};
  tiny.write();
  const std::string once = tiny.to("once"), twice = tiny.to("twice");
  REQUIRE(run("dsa-run convert " + tiny.in + " " + once + " --dtype fp8").status == 0);
  CHECK(run("dsa-run inspect " + once).status == 0);  // which would name a bad scale
  REQUIRE(run("dsa-run convert " + once + " " + twice + " --dtype fp8").status == 0);
  CHECK(read_text(fs::path(once) / "model.safetensors") ==
        read_text(fs::path(twice) / "model.safetensors"));
}

TEST_CASE("experts are packed and unpacked, MTP blocks kept and dropped", "[run]") {
  const Tiny tiny;
  const std::string packed = tiny.to("packed"), back = tiny.to("back");
  REQUIRE(run("dsa-run convert " + tiny.in + " " + packed +
              " --dtype fp32 --experts packed --shard-size 2kB")
              .status == 0);
  CHECK(StoredCheckpoint::open(packed).tensors.contains("model.layers.1.mlp.experts.down_proj"));
  CHECK(StoredCheckpoint::open(packed).shards.size() > 3);
  CHECK(numbers_of(packed) == numbers_of(tiny.in));
  REQUIRE(
      run("dsa-run convert " + packed + " " + back + " --dtype fp32 --experts separate --mtp drop")
          .status == 0);
  CHECK(config_of(back)["num_nextn_predict_layers"] == 0);
  const auto without = numbers_of(back), all = numbers_of(tiny.in);
  CHECK(without.size() < all.size());
  for (const auto& [name, x] : without) CHECK(x == all.at(name));
  CHECK_THAT(
      complaint("dsa-run convert " + packed + " " + tiny.to("x") + " --dtype fp8 --experts packed"),
      Contains("packed experts in FP8 are unsupported"));
}

TEST_CASE("convert leaves nothing behind when it fails", "[run]") {
  Tiny tiny;
  const std::string out = tiny.to("out"), convert = "dsa-run convert " + tiny.in + " " + out;
  fs::create_directory(out);
  CHECK_THAT(complaint(convert + " --dtype bf16"), Contains("out exists already"));
  CHECK(fs::is_empty(out));
  fs::remove(out);
  tiny.tensors.at("lm_head.weight").values[12] = std::numeric_limits<double>::infinity();
  tiny.write();
  CHECK_THAT(complaint(convert + " --dtype bf16"), Contains("lm_head.weight"));
  tiny.tensors.at("lm_head.weight").values[12] = 3.4e38;
  tiny.write();
  CHECK_THAT(complaint(convert + " --dtype bf16"),
             Contains("lm_head.weight, row 1, column 2") && Contains("beyond the largest BF16"));
  tiny.tensors.erase("lm_head.weight");
  tiny.write();
  CHECK_THAT(complaint(convert + " --dtype bf16"), Contains("lm_head.weight is missing"));
  CHECK_FALSE(fs::exists(out));
  CHECK_FALSE(fs::exists(out + ".partial"));
  CHECK_THAT(complaint(convert + " --dtype bf16 --shard-size big"), Contains("\"big\""));
}

TEST_CASE("make_wide checks its options and the disk before it writes", "[run]") {
  const Scratch scratch;
  const std::string out = (scratch / "wide").string();
  CHECK_THAT(complaint("make_wide " + out + " --layers 2 --dense 3"),
             Contains("--dense is 3, expected at most --layers, 2"));
  CHECK_THAT(complaint("make_wide " + out + " --layers 400"), Contains("free; make room first"));
  CHECK(fs::is_empty(scratch.path()));
}

TEST_CASE("jsonl writes a golden as MaxText reads it", "[run][cli]") {
  const Scratch scratch;
  const fs::path golden = fs::path(source_dir()) / "data/samples/v3/logits.safetensors";
  const std::string out = (scratch / "golden.jsonl").string();
  CHECK(run("dsa-run jsonl " + golden.string() + " " + out + " --dtype fp32").status == 0);
  const Recording before = read_recording(golden, "fp32", 0), after = read_recording(out, "", 0);
  REQUIRE(after.sequences.size() == before.sequences.size());
  CHECK(after.dtype == "fp32");
  for (std::size_t b = 0; b < before.sequences.size(); ++b) {
    CHECK(after.sequences[b].tokens == before.sequences[b].tokens);
    CHECK(std::equal(before.logits[b].begin(), before.logits[b].end(), after.logits[b].begin(),
                     after.logits[b].end()));
  }

  const std::string missing = (scratch / "missing").string();
  CHECK_THAT(complaint("dsa-run jsonl " + missing + " " + out), Contains(missing));
  const fs::path trace = fs::path(source_dir()) / "data/samples/v3/trace.fp64.safetensors";
  const fs::path other = scratch / "other.jsonl";
  complaint("dsa-run jsonl " + trace.string() + " " + other.string() + " --dtype bf16");
  CHECK_FALSE(fs::exists(other));
}

TEST_CASE("logits runs tokens of any format, to the bit the same", "[run]") {
  const Scratch scratch;
  const auto in = [&](const std::string& name) { return (scratch / name).string(); };
  const std::string checkpoint = (fs::path(source_dir()) / "data/samples/v32/checkpoint").string();
  write_text(in("lists.json"), "[[1, 2, 3, 4, 5],\n [6, 7]]");
  write_text(in("lines.jsonl"), "{\"tokens\": [1, 2, 3, 4, 5], \"prompt\": 0}\n\n[6, 7]\n");
  const std::string ask =
      "dsa-run logits " + checkpoint + " --format fp32 --mla absorbed --tokens ";
  CHECK(run(ask + in("lists.json") + " --trace -o " + in("a.safetensors")).status == 0);
  CHECK(run(ask + in("lines.jsonl") + " --chunk 2 -o " + in("b.jsonl")).status == 0);
  CHECK(run(ask + in("a.safetensors") + " --threads 2 -o " + in("c.safetensors")).status == 0);

  const Recording a = read_recording(in("a.safetensors"), "", 107),
                  b = read_recording(in("b.jsonl"), "", 107),
                  c = read_recording(in("c.safetensors"), "", 107);
  REQUIRE(a.sequences.size() == 2);
  CHECK(a.sequences[1].tokens == std::vector<Token>{6, 7, 0, 0, 0});
  CHECK(a.sequences[1].documents == std::vector<Index>{0, 0, -1, -1, -1});
  CHECK(b.sequences[1].tokens == std::vector<Token>{6, 7});
  for (std::size_t i = 0; i < 2; ++i) {
    CHECK(std::equal(b.logits[i].begin(), b.logits[i].end(), a.logits[i].begin()));
    CHECK(std::equal(a.logits[i].begin(), a.logits[i].end(), c.logits[i].begin()));
  }
  CHECK(a.logits[0](4, 0) != 0);
  CHECK(a.logits[1](2, 0) == 0);  // padding
  CHECK(a.trace.contains("model.layers.2.mlp.gate.experts"));
  const auto chosen = a.trace.at("model.layers.0.self_attn.indexer").values();
  CHECK(chosen(1, 0) == 0);
  CHECK(chosen(1, 1) == 1);
  CHECK(chosen(1, 2) == -1);
  CHECK(c.trace.empty());
}

TEST_CASE("logits refuses in one sentence what it cannot run", "[run]") {
  const Scratch scratch;
  const auto in = [&](const std::string& name) { return (scratch / name).string(); };
  const std::string checkpoint = (fs::path(source_dir()) / "data/samples/v32/checkpoint").string();
  write_text(in("t.json"), "[1, 2, 3]");
  const auto refused = [&](const std::string& options) {
    return complaint("dsa-run logits " + checkpoint + " " + options);
  };
  const std::string good = "--tokens " + in("t.json") + " ", to = "-o " + in("o.safetensors ");
  CHECK_THAT(refused(good), Contains("--out"));
  CHECK_THAT(refused(good + "-o " + in("o.txt")), Contains("expected *.safetensors or *.jsonl"));
  CHECK_THAT(refused(good + "--trace -o " + in("o.jsonl")), Contains("JSON lines hold no trace"));
  CHECK_THAT(refused(good + to + "--isa sse9"), Contains("there is no instruction set \"sse9\""));
  CHECK_THAT(refused(good + "--plan --isa sse9"), Contains("there is no instruction set \"sse9\""));
  CHECK_THAT(refused(good + to + "--format int4"), Contains("there is no format \"int4\""));
  CHECK_THAT(refused(good + to + "--backend tpu"), Contains("no backend \"tpu\"; choose cpu"));
  CHECK_THAT(refused(good + to + "--memory 1KB"), Contains("no room for a cache"));
  CHECK_THAT(refused(good + to + "--chunk 0"), Contains("see dsa-run logits --help"));
  CHECK_THAT(refused(good + to + "--backend cuda-host --threads 2"),
             Contains("leave it out for cuda-host"));
  CHECK_THAT(complaint("dsa-run login"), Contains("there is no command \"login\""));
  const auto refused_tokens = [&](const std::string& text) {
    write_text(in("bad"), text);
    return refused("--tokens " + in("bad") + " " + to);
  };
  CHECK_THAT(refused_tokens("[[1], [107]]"), Contains("sequence 1 has token id 107"));
  CHECK_THAT(refused_tokens("[]"), Contains("no token ids"));
  CHECK_THAT(refused_tokens("[[1], []]"), Contains("sequence 1 has no token ids"));
  CHECK_THAT(refused_tokens("{\"token\": [1]}"), Contains("has no tokens"));
  CHECK_THAT(refused_tokens("[1]\n[2.5]"), Contains("line 2 has \"2.5\""));
  CHECK_THAT(refused_tokens("one two three"), Contains("safetensors"));
  CHECK_FALSE(fs::exists(in("o.safetensors")));

  const Outcome plan = run("dsa-run logits " + checkpoint + " " + good + "--plan --memory 1MB");
  CHECK(plan.status == 0);
  CHECK_THAT(plan.out, Contains("for 3 tokens") && Contains("of 1 MB, into which"));
}
