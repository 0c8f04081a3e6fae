// tests/verify/name_map_test.cpp — other frameworks' names and layouts.
#include "verify/names/name_map.hpp"

#include <numeric>

#include "tests/catch.hpp"
#include "tests/scratch.hpp"
#include "tests/verify/localise_helpers.hpp"

namespace {

using namespace dsa;
using namespace dsa::test;
using namespace dsa::verify;

Config config() { return read_config(test::sample("v32") / "checkpoint"); }

/// 0, 1, 2, ... as F32.
void add_counted(Recording& golden, const std::string& name, std::vector<Index> shape) {
  Index n = 1;
  for (const Index extent : shape) n *= extent;
  std::vector<float> values(static_cast<std::size_t>(n));
  std::iota(values.begin(), values.end(), 0.0F);
  add_trace(golden, name, Dtype::f32, std::move(shape), values);
}

Recording of_tokens(Index T) {
  Recording golden;
  golden.path = "theirs";
  golden.sequences = {plain_sequence(std::vector<Token>(static_cast<std::size_t>(T), 1))};
  return golden;
}

/// What a counted tensor of this shape becomes, row by row.
std::vector<double> adapted(const std::string& name, std::vector<Index> shape,
                            const std::string& adapters, Index T = 2) {
  Recording golden = of_tokens(T);
  add_counted(golden, "x", std::move(shape));
  NameMap::parse("x -> " + name + " | " + adapters, "map").apply(golden, config());
  const Tensor<double, 2> values = golden.trace.at(name).values();
  return {values.begin(), values.end()};
}

template <class F>
std::string message_of(F f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

std::string error_of(const std::string& map) {
  return message_of([&] { NameMap::parse(map, "my.map"); });
}

}  // namespace

TEST_CASE("names are mapped by patterns, and others are kept", "[names]") {
  Recording golden = of_tokens(2);
  for (const char* name : {"a.decoder.layers.11.mlp", "moe_0.mlp", "model.norm", "what"})
    add_counted(golden, name, {2, 3});
  NameMap::parse(
      "# a comment\n\n"
      "*decoder.layers.{layer}.mlp -> model.layers.{layer}.mlp  # and another\n"
      "moe_{layer}.mlp -> model.layers.{layer+dense}.mlp\n",
      "map")
      .apply(golden, config());
  std::vector<std::string> names;
  for (const Trace::Entry& entry : golden.trace.entries()) names.push_back(entry.name);
  CHECK(names == std::vector<std::string>{"model.layers.1.mlp", "model.layers.11.mlp", "model.norm",
                                          "what"});
  CHECK(golden.trace.at("model.layers.11.mlp").dtype == Dtype::f32);
}

TEST_CASE("axes", "[names]") {
  using V = std::vector<double>;
  const std::string norm = "model.norm";
  CHECK(adapted(norm, {1, 2, 3}, "first(3)") == V{0, 1, 2, 3, 4, 5});
  CHECK(adapted(norm, {2, 1, 3}, "sequence-first") == V{0, 1, 2, 3, 4, 5});
  CHECK(adapted(norm, {3, 2}, "transposed") == V{0, 2, 4, 1, 3, 5});
  CHECK(adapted(norm, {1, 2, 2, 2}, "heads-first") == V{0, 1, 4, 5, 2, 3, 6, 7});
  CHECK(adapted(norm, {2, 4}, "first(1)") == V{0, 4});
  CHECK(adapted(norm, {2, 4}, "after(3)") == V{3, 7});
  CHECK(adapted(norm, {2, 4}, "first(tokens)") == V{0, 1, 4, 5});
  Recording golden = of_tokens(2);
  golden.sequences.push_back(golden.sequences[0]);
  add_counted(golden, "x", {2, 2, 2});
  NameMap::parse("x -> model.norm", "map").apply(golden, config());
  CHECK(golden.trace.at(norm).values().shape() == Shape<2>{2, 2});
}

TEST_CASE("rotary channels and packed heads", "[names]") {
  using V = std::vector<double>;
  const Config c = config();
  const Index P = c.qk_rope_head_dim, R = c.kv_lora_rank, N = c.num_attention_heads,
              B = c.qk_nope_head_dim, U = c.v_head_dim;
  REQUIRE(c.rope_layout == RopeLayout::interleaved);
  const std::string at = "model.layers.0.self_attn.";
  const V halves = adapted(at + "k_rope", {1, P}, "rope-half", 1);
  for (Index i = 0; i < P / 2; ++i) {
    CHECK(halves[static_cast<std::size_t>(2 * i)] == static_cast<double>(i));
    CHECK(halves[static_cast<std::size_t>(2 * i + 1)] == static_cast<double>(i + P / 2));
  }
  CHECK(adapted(at + "k_rope", {1, P}, "rope-interleaved", 1).at(1) == 1);
  const V first = adapted(at + "kv_a_proj_with_mqa", {1, R + P}, "rope-first, rope-half", 1);
  CHECK(first[0] == static_cast<double>(P));
  CHECK(first[static_cast<std::size_t>(R)] == 0);
  CHECK(first[static_cast<std::size_t>(R + 1)] == static_cast<double>(P / 2));
  const V kv = adapted(at + "kv_b_proj", {1, N * (B + U)}, "k-then-v", 1);
  CHECK(kv[static_cast<std::size_t>(B)] == static_cast<double>(N * B));
  CHECK(kv[static_cast<std::size_t>(B + U)] == static_cast<double>(B));
  // The indexer's layout is the other one: what is interleaved goes to halves.
  const Index D = c.indexer->head_dim;
  REQUIRE(c.indexer->rope_layout == RopeLayout::half);
  const V k = adapted(at + "indexer.k", {1, D}, "rope-interleaved", 1);
  CHECK(k[1] == 2);
  CHECK(k[static_cast<std::size_t>(P / 2)] == 1);
  CHECK(k.back() == static_cast<double>(D - 1));
}

TEST_CASE("selections told as masks, or beyond the tokens", "[names]") {
  Recording golden = of_tokens(2);
  add_trace(golden, "m", Dtype::f32, {1, 2, 2}, std::vector<float>{0, -2.38e38F, 0, 0});
  NameMap::parse("m -> model.layers.0.self_attn.indexer | additive-mask", "map")
      .apply(golden, config());
  const StoredTensor& ids = golden.trace.at("model.layers.0.self_attn.indexer");
  CHECK(ids.dtype == Dtype::i32);
  const Tensor<double, 2> values = trace_values(ids);
  CHECK(std::vector<double>(values.begin(), values.end()) == std::vector<double>{0, -1, 0, 1});
  CHECK(adapted("model.layers.0.self_attn.indexer", {2, 2}, "known-keys") ==
        std::vector<double>{0, 1, -1, -1});
}

TEST_CASE("errors name the file and the line", "[names]") {
  CHECK(error_of("\nx = y\n") == "my.map:2: expected PATTERN -> NAME, found \"x = y\"");
  CHECK(error_of("x -> model.nrom").starts_with("my.map:1: the reference has no tensor"));
  CHECK(error_of("x -> model.layers.{layer}.mlp").starts_with("my.map:1: \"x\" and"));
  CHECK(error_of("x.{expert} -> model.norm").starts_with("my.map:1: pattern \"x.{expert}\""));
  CHECK(error_of("x -> model.norm | upside-down")
            .starts_with("my.map:1: there is no layout adapter \"upside-down\""));
  CHECK(error_of("x -> model.norm | first(many)").find("no extent") != std::string::npos);
  CHECK(error_of("# nothing\n").starts_with("my.map maps nothing"));
  CHECK_THROWS_WITH(NameMap::open("nowhere"),
                    "--names \"nowhere\" is neither a file nor one of huggingface, llama.cpp, "
                    "maxtext, megatron");
  Recording golden = of_tokens(2);
  add_counted(golden, "a1", {2, 3});
  add_counted(golden, "a2", {2, 3});
  CHECK_THROWS_WITH(NameMap::parse("a* -> model.norm", "my.map").apply(golden, config()),
                    "my.map:1: a1 and a2 of theirs both become model.norm; make the patterns "
                    "tell them apart");
  CHECK(message_of([&] {
          NameMap::parse("a1 -> model.norm | rope-half", "my.map").apply(golden, config());
        }).starts_with("my.map:1: rope-half makes no sense for model.norm"));
}

TEST_CASE("the maps of the program are right as far as they can be read", "[names]") {
  for (const char* name : {"huggingface", "llama.cpp", "maxtext", "megatron"})
    CHECK_NOTHROW(NameMap::open(name));
}

TEST_CASE("a trace under Megatron's names and axes is judged like its own", "[names][localise]") {
  const Scratch scratch;
  TensorFile file = TensorFile::read(test::sample("v32") / "trace.fp64.safetensors");
  const std::pair<const char*, const char*> words[] = {
      {"model.layers.", "decoder.layers."},
      {"self_attn.q_a_proj", "self_attention.linear_q_down_proj"},
      {"self_attn.q_b_proj", "self_attention.linear_q_up_proj"},
      {"self_attn.kv_b_proj", "self_attention.linear_kv_up_proj"},
      {"self_attn.indexer.wq_b", "self_attention.core_attention.indexer.linear_wq_b"}};
  int renamed = 0;
  for (Column& column : file.columns)
    for (std::size_t w = 1; w < std::size(words); ++w) {
      const auto at = column.name.find(words[w].first);
      if (at == std::string::npos) continue;
      column.name.replace(at, std::string::npos, words[w].second);
      column.name.replace(0, std::string(words[0].first).size(), words[0].second);
      while (column.shape.size() > 3) column.shape.erase(column.shape.begin());
      std::swap(column.shape[0], column.shape[1]);  // (B, S) to (S, B) with B = 1
      ++renamed;
    }
  REQUIRE(renamed >= 8);
  file.write(scratch / "theirs");
  JudgeOptions options;
  options.runs = 4;
  const auto checkpoint = test::sample("v32") / "checkpoint";
  const Localisation without = localise(checkpoint, scratch / "theirs", options);
  CHECK(without.unmapped.size() == static_cast<std::size_t>(renamed));
  options.names = "megatron";
  const Localisation with = localise(checkpoint, scratch / "theirs", options);
  CAPTURE(with.why);
  CHECK(with.outcome == Outcome::pass);
  CHECK(with.unmapped.empty());
  CHECK(judge(checkpoint, scratch / "theirs", std::nullopt, options).outcome == Outcome::pass);
}
