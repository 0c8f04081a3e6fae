// dsa-verify invariants: what holds, what breaks it, and the file protocol.
#include "verify/invariants/invariants.hpp"

#include <atomic>
#include <fstream>

#include "core/random.hpp"
#include "tests/catch.hpp"
#include "tests/models.hpp"
#include "tests/scratch.hpp"
#include "verify/defects/defect.hpp"
#include "verify/invariants/parts.hpp"
#include "verify/report/report.hpp"

using Catch::Matchers::Contains;
using namespace dsa;
using namespace dsa::test;
using namespace dsa::verify;
namespace fs = std::filesystem;

namespace {

fs::path checkpoint(const std::string& name) { return sample(name) / "checkpoint"; }

InvariantOptions short_options(Index length = 0) {
  InvariantOptions options;
  options.judge.runs = 4;
  options.length = length;
  return options;
}

Variant exact(const std::string& name) {
  return open_models(checkpoint(name), reference::Precision::fp64).exact();
}

Invariants ask(const std::string& name, const Variant& altered, Index length = 0) {
  return check_invariants(checkpoint(name), reference_implementation(altered, true),
                          short_options(length));
}

const Invariant& row(const Invariants& result, const std::string& name) {
  for (const Invariant& i : result.invariants)
    if (i.name == name) return i;
  throw Error("there is no invariant " + name);
}

/// "" where the invariant holds; else its verdict and where.
std::string trouble(const Invariants& result) {
  std::string text;
  for (const Invariant& i : result.invariants)
    if (i.held != Held::pass && i.held != Held::not_applicable && i.held != Held::not_possible)
      text += i.name + ": " + name_of(i.held) + " at " + i.at + "; ";
  return text;
}

Variant broken(const std::string& sample_name, const std::string& defect,
               const std::string& variant) {
  Variant altered = exact(sample_name);
  for (const Defect& d : all_defects())
    if (d.name == defect)
      for (const DefectVariant& v : d.variants)
        if (v.name == variant) {
          v.apply(altered);
          return altered;
        }
  throw Error("there is no defect " + defect + " " + variant);
}

/// What a command looks like from outside: logits only, with a new draw of roundings every time.
Implementation rounded(const std::string& name, reference::Precision precision, std::uint64_t seed,
                       const std::function<void(Variant&)>& alter = {}) {
  ModelPair models = open_models(checkpoint(name), precision);
  models.alter = alter;
  const auto calls = std::make_shared<std::atomic<std::uint64_t>>(0);
  const auto ours = [=] {
    return reference_implementation(
        models.rounded({reference::Rounding::Mode::random, random_bits(seed, (*calls)++)}), true);
  };
  Implementation implementation;
  implementation.name = "rounded";
  const auto named = [](Recording said) {
    said.dtype = "fp32";
    return said;
  };
  implementation.run = [=](const std::vector<Sequence>& b) { return named(ours().run(b)); };
  implementation.run_in_chunks = [=](const Sequence& s, const std::vector<Index>& ends) {
    return named(ours().run_in_chunks(s, ends));
  };
  return implementation;
}

void write_logits(const fs::path& file, Dtype dtype, const std::vector<Index>& shape,
                  const std::vector<double>& values, const std::string& name = "logits") {
  SafetensorsWriter out(file, {{name, dtype, shape}});
  out.append_values(values);
  out.commit();
}

const std::vector<Sequence> two_by_three = {plain_sequence({1, 2, 3}),
                                            masked_sequence({0, 4, 5}, {0, 1, 1})};

Recording call(const std::string& command) {
  return command_implementation(command, 2).run(two_by_three);
}

}  // namespace

TEST_CASE("every invariant holds of the reference", "[invariants]") {
  for (const char* name : {"v2lite", "v3", "v32", "glm", "ties", "fp8"}) {
    const Invariants result = ask(name, exact(name));
    INFO(name << " " << trouble(result));
    CHECK(result.outcome == Outcome::pass);
    CHECK(trouble(result).empty());
    CHECK(result.length == default_length(read_config(checkpoint(name))));
    CHECK(row(result, "causality").n > 1000);
    CHECK(row(result, "causality").limit == 0);
    for (const char* bitwise :
         {"prefill = chunked", "prefill = several chunks", "prefill = decode", "packed = separate",
          "padded on the left = unpadded", "thread counts agree", "prefix"})
      CHECK(row(result, bitwise).from == "bitwise");
    CHECK(row(result, "absorbed = expanded").value > 0);  // other sums: rounding is seen
  }
}

TEST_CASE("a mask off by one breaks causality", "[invariants]") {
  Variant altered = exact("v32");
  altered.ops.topk_select = [inner = altered.ops.topk_select](const std::string& name,
                                                              View<Index, 2> chosen,
                                                              View<const double, 2> scores) {
    inner(name, chosen, scores);
    const Index S = scores.shape[1], first = S - scores.shape[0];
    if (!name.ends_with("self_attn.indexer")) return;
    for (Index t = 0; t < chosen.shape[0]; ++t)
      if (first + t + 1 < S) chosen(t, 0) = first + t + 1;
  };
  const Invariants result = ask("v32", altered);
  CHECK(result.outcome == Outcome::fail);
  CHECK(row(result, "causality").held == Held::fail);
  CHECK_THAT(row(result, "causality").at, Contains("changed"));
  CHECK(row(result, "chosen keys are visible").held == Held::fail);
  CHECK(row(result, "no key twice").held == Held::pass);
  CHECK_THAT(result.why, Contains("the first: causality"));
  CHECK(exit_code(result.outcome) == 1);
}

TEST_CASE("known defects break the invariants that they should", "[invariants]") {
  struct Expected {
    const char *defect, *variant, *invariant;
  };
  for (const Expected& e : std::initializer_list<Expected>{
           {"selection-before-mask", "masked after", "causality"},
           {"selection-topk", "K-1", "|chosen| = min(k, visible)"},
           {"selection-topk", "K-1", "sparse = dense"},
           {"selection-padding-is-key-zero", "", "no key twice"},
           {"selection-mask-not-reapplied", "lowest keys first", "causality"},
           {"indexer-scores-zero-beyond-limit", "keys=32", "prefill = chunked"},
           {"indexer-prefix-keys-lost", "", "prefill = decode"},
           {"selection-within-chunk", "chunk=32", "packed = separate"},
           {"selection-within-chunk", "chunk=16", "padded on the left = unpadded"},
           {"kv-b-halves-swapped", "", "absorbed = expanded"},
           {"rope-missing", "query", "shifted = unshifted"},
           {"key-rope-missing", "", "RoPE preserves norms"},
           {"router-scaling-factor", "missing", "router weights sum to the scale"}}) {
    const Invariants result = ask("v32", broken("v32", e.defect, e.variant));
    INFO(e.defect << " " << e.variant << ": " << trouble(result));
    CHECK(result.outcome == Outcome::fail);
    CHECK(row(result, e.invariant).held == Held::fail);
    CHECK(!(row(result, e.invariant).value <= row(result, e.invariant).limit));
  }
}

TEST_CASE("another path for short texts, or from the third chunk on, is seen as such",
          "[invariants]") {
  const auto right = reference_implementation(exact("v32"), true),
             wrong =
                 reference_implementation(broken("v32", "router-scaling-factor", "missing"), true);
  Implementation paths;  // as a command is: asked for few lengths and cuts
  paths.name = "paths";
  paths.run = [=](const std::vector<Sequence>& batch) {
    const bool is_short = batch.size() == 1 && batch.front().size() <= 22;
    return (is_short ? wrong : right).run(batch);
  };
  paths.run_in_chunks = [=](const Sequence& s, const std::vector<Index>& ends) {
    const bool several = ends.size() == 3 || ends.size() == 4;
    return (several ? wrong : right).run_in_chunks(s, ends);
  };
  const Invariants result = check_invariants(checkpoint("v32"), paths, short_options());
  INFO(trouble(result));
  CHECK(row(result, "short = long").held == Held::fail);
  CHECK(row(result, "short = long").n == 21 + 22);
  CHECK(row(result, "prefix").held == Held::pass);
  CHECK(row(result, "prefill = several chunks").held == Held::fail);
  CHECK_THAT(row(result, "prefill = several chunks").note,
             Contains("12, 33, 49; at 7, 22, 44, 49; at 6, 23, 45, 49"));
  CHECK(row(result, "prefill = chunked").held == Held::pass);
  CHECK(row(result, "prefill = decode").held == Held::pass);
}

TEST_CASE("logits that do not depend on tokens, or come from nowhere, are caught", "[invariants]") {
  const Index V = read_config(checkpoint("v32")).vocab_size;
  Implementation constant;
  constant.name = "constant";
  constant.run = [V](const std::vector<Sequence>& batch) {
    return Recording{.dtype = "fp32",
                     .logits = std::vector(batch.size(), normal<2>({batch[0].size(), V}, 1))};
  };
  const Invariants same = check_invariants(checkpoint("v32"), constant, short_options());
  CHECK(row(same, "tokens are read").held == Held::fail);
  CHECK(same.outcome == Outcome::fail);

  Implementation noise = constant;
  noise.run = [V, n = std::make_shared<std::uint64_t>(0)](const std::vector<Sequence>& batch) {
    return Recording{.dtype = "fp32",
                     .logits = std::vector(batch.size(), normal<2>({batch[0].size(), V}, ++*n))};
  };
  const Invariants random = check_invariants(checkpoint("v32"), noise, short_options());
  CHECK(row(random, "repeatable").held == Held::fail);
}

TEST_CASE("roundings that differ from call to call are no false alarm", "[invariants]") {
  for (const char* name : {"v32", "ties"})
    for (const std::uint64_t seed : {1, 2, 3}) {
      const Invariants result = check_invariants(
          checkpoint(name), rounded(name, reference::Precision::hf_fp32, seed), short_options());
      INFO(name << " " << seed << ": " << trouble(result));
      CHECK(result.outcome != Outcome::fail);
      CHECK(result.precision == "hf-fp32");
      CHECK(row(result, "repeatable").value > 0);
      CHECK_THAT(row(result, "repeatable").note, Contains("not bitwise"));
      CHECK(row(result, "absorbed = expanded").held == Held::not_possible);
    }
}

TEST_CASE("a defect is seen through roundings", "[invariants]") {
  const auto alter = [](Variant& altered) {
    for (const Defect& d : all_defects())
      if (d.name == "selection-before-mask") d.variants.front().apply(altered);
  };
  const Invariants result = check_invariants(
      checkpoint("v32"), rounded("v32", reference::Precision::hf_fp32, 1, alter), short_options());
  INFO(trouble(result));
  CHECK(row(result, "prefix").held == Held::fail);
  CHECK(row(result, "prefill = decode").held == Held::fail);
  CHECK(row(result, "prefix").value > 1);
}

TEST_CASE("a sequence no longer than top-k is inconclusive", "[invariants]") {
  const Invariants result = ask("v32", exact("v32"), 22);
  CHECK(result.outcome == Outcome::inconclusive);
  CHECK(exit_code(result.outcome) == 3);
  CHECK_THAT(result.why, Contains("22 tokens are no more than index_topk = 22"));
  CHECK(ask("v32", exact("v32"), 23).outcome == Outcome::pass);
  CHECK(ask("v3", exact("v3"), 2).outcome == Outcome::pass);  // no indexer: nothing to choose
  CHECK_THROWS_WITH(ask("v3", exact("v3"), 1),
                    "--length 1 leaves nothing to compare; give 2 or more");
}

TEST_CASE("places to cut are all of them or a stated subset", "[invariants]") {
  CHECK(points(4, 2, 47) == std::vector<Index>{1, 2, 3});
  CHECK(told(points(4, 2, 47), 4, "places") == "all 3 places");
  const std::vector<Index> some = points(100, 30, 10);
  CHECK(some.size() <= 10);
  for (const Index t : {1, 29, 30, 31, 99}) CHECK(std::count(some.begin(), some.end(), t) == 1);
  CHECK(std::is_sorted(some.begin(), some.end()));
  CHECK_THAT(told(some, 100, "places"), Contains(" of 99 places: 1, "));
}

TEST_CASE("the result as JSON and as a table", "[invariants]") {
  const Invariants result = ask("v32", broken("v32", "selection-topk", "K-1"));
  const Json json = to_json(result);
  CHECK(json["verdict"] == "fail");
  CHECK(json["exit_code"] == 1);
  CHECK(json["topk"] == 22);
  CHECK(json["receipt"]["checkpoint_sha256"].get<std::string>().size() == 64);
  CHECK(json["invariants"].size() == result.invariants.size());
  for (const Json& i : json["invariants"]) {
    const std::string verdict = i["verdict"];
    INFO(i["name"]);
    CHECK(i["value"].is_null() == (verdict == "not applicable" || verdict == "not possible"));
    CHECK(i["sentence"].get<std::string>().size() > 10);
    if (verdict == "fail") CHECK(i["at"].is_string());
  }
  const std::string text = table(result, false);
  CHECK_THAT(text, Contains("FAIL: ") && Contains("sparse = dense") && Contains("index_topk 22"));
  CHECK_THAT(table(result, true), Contains("\x1b[1;31m"));
}

TEST_CASE("a command is told tokens and mask and gives logits", "[invariants]") {
  const Scratch scratch;
  const std::vector<double> values = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  for (const Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::bf16, Dtype::f16}) {
    write_logits(scratch / "good", dtype, {2, 3, 2}, values);
    const Recording said = call("cp {in} " + (scratch / "seen").string() + " && cp " +
                                (scratch / "good").string() + " {out} #");
    REQUIRE(said.logits.size() == 2);
    CHECK(said.logits[1](2, 1) == 11);
    CHECK(said.logits[0](0, 1) == 1);
    CHECK(said.dtype == (dtype == Dtype::f64   ? "fp64"
                         : dtype == Dtype::f32 ? "fp32"
                         : dtype == Dtype::f16 ? "f16"
                                               : "bf16"));
  }
  const SafetensorsFile seen = SafetensorsFile::open(scratch / "seen");
  std::vector<double> tokens(6), mask(6);
  decode(Dtype::i64, seen.at("tokens").data, 6, tokens.data());
  decode(Dtype::i64, seen.at("attention_mask").data, 6, mask.data());
  CHECK(seen.at("tokens").shape == std::vector<Index>{2, 3});
  CHECK(tokens == std::vector<double>{1, 2, 3, 0, 4, 5});
  CHECK(mask == std::vector<double>{1, 1, 1, 0, 1, 1});

  // Without {in} and {out} they are the last two words; {chunks} asks for a cache.
  std::ofstream(scratch / "copy.sh") << "cp " << (scratch / "good").string() << " \"$2\"";
  CHECK(call("/bin/sh " + (scratch / "copy.sh").string()).logits[1](2, 0) == 10);
  CHECK(!command_implementation("true", 2).run_in_chunks);
  write_logits(scratch / "one", Dtype::f32, {1, 3, 2}, {0, 1, 2, 3, 4, 5});
  const Implementation cached = command_implementation(
      "test {chunks} = 2,3 && cp " + (scratch / "one").string() + " {out} #", 2);
  CHECK(cached.run_in_chunks(two_by_three[0], {2, 3}).logits[0](2, 1) == 5);
}

TEST_CASE("a command that fails is one sentence", "[invariants]") {
  const Scratch scratch;
  const auto copied = [&](const std::string& name) {
    return "cp " + (scratch / name).string() + " {out} #";
  };
  const std::vector<double> six = {0, 1, 2, 3, 4, 5};
  std::vector<double> spoiled(12, 1);
  spoiled[4] = std::nan("");
  write_logits(scratch / "shape", Dtype::f32, {1, 3, 2}, six);
  write_logits(scratch / "name", Dtype::f32, {1, 3, 2}, six, "logit");
  write_logits(scratch / "nan", Dtype::f32, {2, 3, 2}, spoiled);
  write_logits(scratch / "integers", Dtype::i32, {2, 3, 2}, std::vector<double>(12, 1));
  std::fill(spoiled.begin(), spoiled.end(), 1);
  spoiled[6] = std::nan("");  // a row of padding: nobody reads it
  write_logits(scratch / "padding", Dtype::f32, {2, 3, 2}, spoiled);

  CHECK_THROWS_WITH(call("echo one >&2; echo two >&2; exit 7 #"),
                    Contains("ended with status 7; its last line: two"));
  CHECK_THROWS_WITH(call("exit 1 #"), Contains("ended with status 1, and said nothing on stderr"));
  CHECK_THROWS_WITH(call("kill -9 $$ #"), Contains("ended with status 137"));
  CHECK_THROWS_WITH(call("no-such-program"), Contains("status 127") && Contains("not found"));
  CHECK_THROWS_WITH(call("if #"), Contains("ended with status 2"));  // not even a command
  CHECK_THROWS_WITH(call("true"), Contains("wrote no file {out}"));
  CHECK_THROWS_WITH(call("echo garbage > {out} #"), Contains("wrote a file that cannot be read: "));
  CHECK_THROWS_WITH(call(copied("shape")),
                    Contains("wrote logits of shape (1, 3, 2), expected (sequences, positions, "
                             "vocab_size) = (2, 3, 2)"));
  CHECK_THROWS_WITH(call(copied("name")), Contains("without a tensor \"logits\""));
  CHECK_THROWS_WITH(call(copied("nan")),
                    Contains("a logit that is NaN: sequence 0, position 2, token 0"));
  CHECK_THROWS_WITH(call(copied("integers")), Contains("not F64, F32, F16 or BF16"));
  CHECK(call(copied("padding")).logits.size() == 2);
  CHECK_THROWS_WITH(call(" "), Contains("--command is empty"));
}
