// tests/core/recording_test.cpp — goldens in both formats: what is read, and what is refused.
#include "core/recording.hpp"

#include <cmath>
#include <limits>

#include "tests/bytes.hpp"
#include "tests/catch.hpp"
#include "tests/scratch.hpp"
#include "tests/skip.hpp"

using Catch::Matchers::Contains;
using dsa::Dtype;
using dsa::Index;
using dsa::Recording;

namespace {

struct Values {
  std::string name;
  Dtype dtype;
  std::vector<Index> shape;
  std::vector<double> values;
};

const Values tokens23 = {"tokens", Dtype::i64, {2, 3}, {0, 1, 2, 3, 2, 1}};

std::vector<double> counting(int n) {
  std::vector<double> values;
  for (int i = 0; i < n; ++i) values.push_back(i + 0.5);
  return values;
}

Recording read(const std::vector<Values>& tensors, const std::string& dtype = "", Index vocab = 4) {
  const dsa::test::Scratch scratch;
  std::vector<dsa::SafetensorsWriter::Declaration> declared;
  for (const Values& t : tensors) declared.push_back({t.name, t.dtype, t.shape});
  dsa::SafetensorsWriter writer(scratch / "g", declared);
  for (const Values& t : tensors) writer.append_values(t.values);
  writer.commit();
  return dsa::read_recording(scratch / "g", dtype, vocab);
}

void refuse(const std::vector<Values>& tensors, const std::string& sentence,
            const std::string& dtype = "") {
  CHECK_THROWS_WITH(read(tensors, dtype), Contains(sentence));
}

Recording read_lines(const std::string& text, const std::string& dtype = "", Index vocab = 0) {
  return dsa::parse_recording(dsa::test::bytes_of(text), "g.jsonl", dtype, vocab);
}

void refuse_lines(const std::string& text, const std::string& sentence, Index vocab = 0) {
  INFO(text);
  CHECK_THROWS_WITH(read_lines(text, "", vocab), Contains(sentence));
}

const std::string line1 =
    R"({"prompt":"a","tokens":[0,1],"logits":[[1,2.5],[-0.0,1e-3]],"formatted_prompt":"x"})";
const std::string line2 = R"({"prompt":"b","tokens":[1],"logits":[[3,4]],"image_path":{"k":[]}})";

}  // namespace

TEST_CASE("sequences know their positions and documents", "[golden-reader]") {
  const auto plain = dsa::plain_sequence({7, 8, 9});
  CHECK(plain.positions == std::vector<Index>{0, 1, 2});
  CHECK(plain.documents == std::vector<Index>{0, 0, 0});

  const auto masked = dsa::masked_sequence({5, 7, 8, 5}, {0, 1, 1, 0});
  CHECK(masked.size() == 4);
  CHECK(masked.documents == std::vector<Index>{-1, 0, 0, -1});
  CHECK(masked.positions[1] == 0);
  CHECK(masked.positions[2] == 1);

  const auto packed = dsa::packed_sequence({{1, 2}, {3}, {4, 5}});
  CHECK(packed.tokens == std::vector<dsa::Token>{1, 2, 3, 4, 5});
  CHECK(packed.positions == std::vector<Index>{0, 1, 0, 0, 1});
  CHECK(packed.documents == std::vector<Index>{0, 0, 1, 2, 2});

  CHECK_THROWS_WITH(dsa::plain_sequence({}), Contains("empty sequence"));
  CHECK_THROWS_WITH(dsa::packed_sequence({}), Contains("has no documents"));
  CHECK_THROWS_WITH(dsa::packed_sequence({{1}, {}}), Contains("document 1 of the packed"));
  CHECK_THROWS_WITH(dsa::masked_sequence({1, 2}, {0, 0}), Contains("nothing but padding"));
  CHECK_THROWS_WITH(dsa::masked_sequence({1, 2}, {1, 2}), Contains("mask value 2, expected 0 or"));
  CHECK_THROWS_WITH(dsa::masked_sequence({1, 2}, {1}), Contains("1 mask values for 2 tokens"));
}

TEST_CASE("a golden of two sequences is read", "[golden-reader]") {
  for (const Dtype dtype : {Dtype::i64, Dtype::i32, Dtype::u8, Dtype::u64}) {
    Values tokens = tokens23;
    tokens.dtype = dtype;
    const Recording golden = read({tokens, {"logits", Dtype::f32, {2, 3, 4}, counting(24)}});
    REQUIRE(golden.sequences.size() == 2);
    CHECK(golden.sequences[1].tokens == std::vector<dsa::Token>{3, 2, 1});
    CHECK(golden.sequences[1].positions == std::vector<Index>{0, 1, 2});
    REQUIRE(golden.logits.size() == 2);
    CHECK(golden.logits[1].shape() == dsa::Shape<2>{3, 4});
    CHECK(golden.logits[1](2, 3) == 23.5);
    CHECK(golden.dtype == "fp32");
    CHECK(golden.columns == std::vector<std::string>{"fp32"});
    CHECK(golden.trace.empty());
  }
}

TEST_CASE("one sequence needs no batch axis", "[golden-reader]") {
  const Recording golden =
      read({{"tokens", Dtype::i32, {2}, {3, 0}}, {"logits.bf16", Dtype::f32, {2, 4}, counting(8)}});
  CHECK(golden.sequences.size() == 1);
  CHECK(golden.logits.at(0)(1, 0) == 4.5);
  CHECK(golden.dtype == "bf16");
}

TEST_CASE("the most precise column is read unless one is named", "[golden-reader]") {
  std::vector<Values> tensors = {tokens23};
  double first = 0;
  for (const char* column : {"bf16", "fp32", "fp64"}) {
    tensors.push_back({"logits." + std::string(column), Dtype::f64, {2, 3, 4}, counting(24)});
    tensors.back().values[0] = ++first;
  }
  CHECK(read(tensors).dtype == "fp64");
  CHECK(read(tensors).logits[0](0, 0) == 3);
  CHECK(read(tensors).columns == std::vector<std::string>{"fp64", "fp32", "bf16"});
  CHECK(read(tensors, "bf16").logits[0](0, 0) == 1);
  CHECK(read(tensors, "fp32").dtype == "fp32");
  refuse(tensors, "has no logits in fp16; columns present: fp64, fp32, bf16", "fp16");
  tensors.pop_back();
  CHECK(read(tensors).dtype == "fp32");
}

TEST_CASE("the name of plain logits is that of their dtype", "[golden-reader]") {
  const auto plain = [](Dtype dtype) {
    return read({tokens23, {"logits", dtype, {2, 3, 4}, counting(24)}}).dtype;
  };
  CHECK(plain(Dtype::f64) == "fp64");
  CHECK(plain(Dtype::f32) == "fp32");
  CHECK(plain(Dtype::bf16) == "bf16");
  CHECK(plain(Dtype::f16) == "f16");
  refuse({tokens23, {"logits", Dtype::i32, {2, 3, 4}, counting(24)}}, "is stored as I32, expected");
  refuse({tokens23, {"logits.fp64", Dtype::f32, {2, 3, 4}, counting(24)}},
         "tensor logits.fp64 is stored as F32, which does not hold fp64 numbers");
  refuse({tokens23, {"logits.fp32", Dtype::bf16, {2, 3, 4}, counting(24)}}, "does not hold fp32");
}

TEST_CASE("NaN and infinities in logits are the judge's business", "[golden-reader]") {
  auto values = counting(24);
  values[5] = std::nan("");
  values[6] = -std::numeric_limits<double>::infinity();
  const Recording golden = read({tokens23, {"logits", Dtype::f32, {2, 3, 4}, values}});
  CHECK(std::isnan(golden.logits[0](1, 1)));
  CHECK(golden.logits[0](1, 2) == values[6]);
}

TEST_CASE("an attention mask makes padding", "[golden-reader]") {
  const Values logits = {"logits", Dtype::f32, {2, 3, 4}, counting(24)};
  for (const Dtype dtype : {Dtype::i64, Dtype::boolean}) {
    const Recording golden =
        read({tokens23, logits, {"attention_mask", dtype, {2, 3}, {1, 1, 1, 0, 1, 1}}});
    CHECK(golden.sequences[0].documents == std::vector<Index>{0, 0, 0});
    CHECK(golden.sequences[1].documents == std::vector<Index>{-1, 0, 0});
    CHECK(golden.sequences[1].positions[2] == 1);
    CHECK(golden.trace.empty());
  }
  const auto mask = [](std::vector<Index> shape, std::vector<double> values) {
    return Values{"attention_mask", Dtype::i64, std::move(shape), std::move(values)};
  };
  refuse({tokens23, logits, mask({2, 3}, {1, 1, 1, 0, 0, 0})}, "sequence 1 is nothing but padding");
  refuse({tokens23, logits, mask({2, 3}, {1, 1, -1, 0, 1, 1})}, "sequence 0 has the mask value -1");
  refuse({tokens23, logits, mask({3, 2}, {1, 1, 1, 0, 1, 1})},
         "attention_mask has shape (3, 2), expected that of tokens, (2, 3)");
  refuse({tokens23, logits, {"attention_mask", Dtype::f32, {2, 3}, {1, 1, 1, 1, 1, 1}}},
         "attention_mask is stored as F32, expected integers");
}

TEST_CASE("tokens are checked", "[golden-reader]") {
  const Values logits = {"logits", Dtype::f32, {2, 3, 4}, counting(24)};
  refuse({logits}, "has no tensor tokens; it has logits");
  refuse({{"tokens", Dtype::f32, {2, 3}, {0, 1, 2, 3, 2, 1}}, logits},
         "tensor tokens is stored as F32, expected integers");
  refuse({{"tokens", Dtype::i64, {1, 2, 3}, {0, 1, 2, 3, 2, 1}}, logits},
         "tensor tokens has shape (1, 2, 3), expected (B, S) or (S)");
  refuse({{"tokens", Dtype::i64, {0, 3}, {}}, logits}, "expected at least one token");
  refuse({{"tokens", Dtype::i64, {2, 0}, {}}, logits}, "expected at least one token");
  refuse({{"tokens", Dtype::i64, {}, {1}}, logits}, "has shape (), expected (B, S)");
  refuse({{"tokens", Dtype::i64, {2, 3}, {0, 1, 2, 3, 4, 1}}, logits},
         "sequence 1 has token id 4 at position 1, expected 0 to 3");
  refuse({{"tokens", Dtype::i64, {2, 3}, {0, -1, 2, 3, 2, 1}}, logits},
         "sequence 0 has token id -1");
  refuse({{"tokens", Dtype::u64, {2, 3}, {0, 0x1p63, 2, 3, 2, 1}}, logits}, "beyond 2^63");
}

TEST_CASE("logits have the shape of the tokens and the width of the model", "[golden-reader]") {
  const auto logits = [](std::vector<Index> shape, int n) {
    return Values{"logits", Dtype::f32, std::move(shape), counting(n)};
  };
  for (const auto& wrong : {logits({3, 2, 4}, 24), logits({2, 4, 3}, 24), logits({1, 3, 4}, 12),
                            logits({3, 4}, 12), logits({24}, 24), logits({1, 2, 3, 4}, 24)})
    refuse({tokens23, wrong}, "expected (2, 3, V) as for tokens");
  refuse({tokens23, logits({2, 3, 0}, 0)}, "expected at least one logit a token");
  refuse({tokens23, logits({2, 3, 5}, 30)},
         "has 5 logits a token, expected 4 (vocab_size); it is a golden of another model");
  CHECK(read({tokens23, logits({2, 3, 5}, 30)}, "", 0).logits[0].shape()[1] == 5);
  CHECK_THROWS_WITH(read({tokens23, logits({2, 3, 3}, 18)}, "", 0), Contains("has token id 3"));
}

TEST_CASE("a trace file gives traces, and lm_head as logits", "[golden-reader]") {
  const Values tokens = {"tokens", Dtype::i64, {1, 2}, {1, 2}};
  const Values head = {"lm_head", Dtype::f32, {1, 2, 4}, counting(8)};
  const Values norm = {"model.norm", Dtype::f64, {1, 2, 3}, counting(6)};
  const Values chosen = {"model.layers.0.self_attn.indexer", Dtype::i32, {1, 2, 2}, {0, 1, 1, 0}};
  const Recording golden = read({tokens, head, norm, chosen});
  CHECK(golden.dtype == "fp32");
  CHECK(golden.logits.at(0)(1, 3) == 7.5);
  CHECK(golden.trace.entries().size() == 3);
  CHECK(golden.trace.entries().front().memory != nullptr);
  CHECK(golden.trace.entries().front().name == head.name);  // in alphabetical order
  const Recording copy = golden;
  CHECK(copy.trace.at("model.norm").values()(1, 2) == 5.5);
  CHECK(copy.trace.at(chosen.name).values()(1, 0) == 1);

  const Recording without = read({tokens, norm});
  CHECK(without.logits.empty());
  CHECK(without.columns.empty());
  CHECK(without.trace.entries().size() == 1);
  refuse({tokens, norm}, "has no logits in fp64; columns present: none", "fp64");

  const Recording first = read({tokens23, {"lm_head", Dtype::f64, {3, 4}, counting(12)}});
  CHECK(first.sequences.size() == 2);
  CHECK(first.logits.size() == 1);
  const Recording both = read({tokens, head, {"logits", Dtype::f64, {1, 2, 4}, counting(8)}});
  CHECK(both.columns == std::vector<std::string>{"fp64"});
  CHECK(both.trace.entries().size() == 1);
}

TEST_CASE("JSON lines are read", "[golden-reader]") {
  for (const std::string& text :
       {line1 + "\n" + line2 + "\n", line1 + "\r\n\n \n" + line2,
        "[" + line1 + "]\n[" + line2 + "]", "[" + line1 + ", " + line2 + "]\n"}) {
    INFO(text);
    const Recording golden = read_lines(text, "", 2);
    REQUIRE(golden.sequences.size() == 2);
    CHECK(golden.prompts == std::vector<std::string>{"a", "b"});
    CHECK(golden.sequences[0].tokens == std::vector<dsa::Token>{0, 1});
    CHECK(golden.logits[0](0, 1) == 2.5);
    CHECK(std::signbit(golden.logits[0](1, 0)));
    CHECK(golden.logits[1].shape() == dsa::Shape<2>{1, 2});
    CHECK(golden.dtype == "fp32");
  }
  CHECK(read_lines(line1, "fp32").columns == std::vector<std::string>{"fp32"});
  CHECK_THROWS_WITH(read_lines(line1, "fp64"),
                    "g.jsonl has no logits in fp64; columns present: fp32");
}

TEST_CASE("an error in JSON lines names the line and the row", "[golden-reader]") {
  const auto record = [](const std::string& tokens, const std::string& logits) {
    return line1 + "\n{\"tokens\":" + tokens + ",\"logits\":" + logits + "}";
  };
  refuse_lines(line1 + "\n{\"a\":", "g.jsonl, line 2 is not valid JSON");
  refuse_lines(line1 + "\n\n3", "g.jsonl, line 3 is no object");
  refuse_lines("[]", "g.jsonl, line 1 is an empty list");
  refuse_lines("[" + line1 + ",{}]", "g.jsonl, line 1, record 2 has no tokens");
  refuse_lines(R"({"tokens":[1]})", "line 1 has no logits");
  refuse_lines(R"({"prompt":3,"tokens":[1],"logits":[[1]]})", "a prompt that is no string");
  refuse_lines(record("[]", "[]"), "line 2 has no token ids");
  refuse_lines(record("[1.0]", "[[1,2]]"), "line 2 has \"1.0\" among its tokens");
  refuse_lines(record("[9223372036854775808]", "[[1,2]]"), "among its tokens, expected integers");
  refuse_lines(record("[2]", "[[1,2]]"), "line 2 has token id 2 at position 0, expected 0 to 1");
  refuse_lines(record("[-1]", "[[1,2]]"), "line 2 has token id -1");
  refuse_lines(record("[1]", "3"), "line 2 has no list in logits");
  refuse_lines(record("[1]", "[[1,2],[3,4]]"), "line 2 has 2 rows of logits for 1 tokens");
  refuse_lines(record("[1,0]", "[[1,2],[3]]"), "line 2, row 1 of logits has 1 numbers, expected 2");
  refuse_lines(record("[1,0]", "[[1,2],7]"), "line 2, row 1 of logits has no numbers");
  refuse_lines(record("[1]", "[[1,null]]"), "line 2, row 0 of logits holds \"null\"");
  refuse_lines(record("[1]", "[[1,NaN]]"), "g.jsonl, line 2 holds NaN or Infinity");
  refuse_lines(record("[1]", "[[-Infinity,1]]"), "g.jsonl, line 2 holds NaN or Infinity");
  refuse_lines(R"({"tokens":[0],"logits":[[]]})", "row 0 of logits has no numbers");
  refuse_lines(line1, "has 2 logits a token, expected 3 (vocab_size); it is a golden of another",
               3);
}

TEST_CASE("the format is told by the content", "[golden-reader]") {
  const dsa::test::Scratch scratch;
  dsa::write_text(scratch / "a.safetensors", line1 + "\n");
  CHECK(dsa::read_recording(scratch / "a.safetensors", "", 0).sequences.size() == 1);
  dsa::write_text(scratch / "empty", "");
  CHECK_THROWS_WITH(dsa::read_recording(scratch / "empty", "", 0), Contains("is empty, expected"));
  dsa::write_text(scratch / "text", "some prose, neither one nor the other");
  CHECK_THROWS_WITH(dsa::read_recording(scratch / "text", "", 0),
                    Contains("it is not a safetensors file"));

  // A header of 123 bytes: the file begins with '{'.
  std::string header = R"({"tokens":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                       R"("t":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})";
  header.resize(123, ' ');
  const std::string bytes = dsa::test::file_of(header, std::string(2, '\0'));
  REQUIRE(bytes[0] == '{');
  CHECK(dsa::parse_recording(dsa::test::bytes_of(bytes), "g", "", 0).trace.entries().size() == 1);
}

TEST_CASE("JSON lines make a round trip in fp32", "[golden-reader]") {
  const dsa::test::Scratch scratch;
  Recording golden;
  golden.sequences = {dsa::plain_sequence({0, 2}), dsa::masked_sequence({9, 1}, {0, 1})};
  golden.prompts = {"quote \" and \xC3\xA9\n", "b"};
  for (const double start : {0.1, 1.0}) {
    golden.logits.emplace_back(dsa::Shape<2>{2, 3});
    auto& logits = golden.logits.back();
    const std::vector<double> values = {start, -0.0, 1e30, 16777216.0, 1e-45, -3.5};
    for (Index i = 0; i < 6; ++i)
      logits.data()[i] =
          static_cast<double>(static_cast<float>(values[static_cast<std::size_t>(i)]));
  }
  dsa::write_jsonl(scratch / "g", golden);
  CHECK_THAT(dsa::read_text(scratch / "g"), Contains("[0.1,-0.0,1e+30]"));

  const Recording back = dsa::read_recording(scratch / "g", "", 3);
  CHECK(back.prompts == golden.prompts);
  REQUIRE(back.sequences.size() == 2);
  CHECK(back.sequences[0].tokens == golden.sequences[0].tokens);
  CHECK(back.sequences[1].tokens == std::vector<dsa::Token>{1});  // without its padding
  for (Index i = 0; i < 6; ++i) {
    CHECK(back.logits[0].data()[i] == golden.logits[0].data()[i]);
    CHECK(std::signbit(back.logits[0].data()[i]) == std::signbit(golden.logits[0].data()[i]));
  }
  CHECK(back.logits[1](0, 2) == -3.5);
}

TEST_CASE("what JSON lines cannot express is not written", "[golden-reader]") {
  const dsa::test::Scratch scratch;
  const auto refused = [&](const Recording& golden, const std::string& sentence) {
    CHECK_THROWS_WITH(dsa::write_jsonl(scratch / "g", golden), Contains(sentence));
    CHECK(scratch.files() == 0);
  };
  Recording golden;
  refused(golden, "0 logits for 0 sequences");
  golden.sequences = {dsa::plain_sequence({0, 1})};
  refused(golden, "0 logits for 1 sequences");
  golden.logits.emplace_back(dsa::Shape<2>{2, 2});
  golden.logits[0](1, 1) = std::nan("");
  refused(golden, "sequence 0 holds nan");
  golden.logits[0](1, 1) = 1e39;
  refused(golden, "which JSON cannot express in fp32");
  golden.logits[0](1, 1) = 0;
  golden.sequences = {dsa::packed_sequence({{0}, {1}})};
  refused(golden, "packs several documents");
  golden.sequences = {dsa::plain_sequence({0})};
  refused(golden, "2 rows of logits for 1 tokens");
  if (!std::filesystem::exists("/dev/full")) return dsa::test::skip("there is no /dev/full here");
  golden.sequences = {dsa::plain_sequence({0, 1})};
  scratch.full_disk_at(scratch / "g");
  refused(golden, "No space left on device");
}

TEST_CASE("no damage to a golden does more than throw an Error", "[golden-reader]") {
  const dsa::test::Scratch scratch;
  dsa::SafetensorsWriter writer(scratch / "g",
                                {{"tokens", Dtype::u8, {1, 2}}, {"logits", Dtype::f16, {1, 2, 2}}});
  const double values[] = {0, 1, 1, 2, 3, 4};
  writer.append_values(std::span(values).first(2));
  writer.append_values(std::span(values).last(4));
  writer.commit();
  for (const std::string& good : {dsa::read_text(scratch / "g"), line1 + "\n[" + line2 + "]"}) {
    const auto survives = [](const std::string& bytes) {
      try {
        const Recording golden = read_lines(bytes);
        for (const dsa::Trace::Entry& entry : golden.trace.entries()) entry.values();
        return true;
      } catch (const dsa::Error&) {
        return false;
      }
    };
    CHECK(survives(good));
    for (std::size_t n = 0; n < good.size(); ++n) survives(good.substr(0, n));
    int survivors = 0;
    for (std::size_t i = 0; i < good.size(); ++i)
      for (int byte = 0; byte < 256; ++byte) {
        std::string damaged = good;
        damaged[i] = static_cast<char>(byte);
        survivors += survives(damaged);
      }
    CHECK(survivors > 0);
  }
}
