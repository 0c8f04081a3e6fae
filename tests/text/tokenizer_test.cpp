// tests/text/tokenizer_test.cpp — token ids as HuggingFace's; what is refused, in a sentence.
#include "text/tokenizer.hpp"

#include "core/file.hpp"
#include "tests/catch.hpp"
#include "tests/paths.hpp"
#include "text/utf8.hpp"

using Catch::Matchers::Contains;
using namespace dsa;
using namespace dsa::test;
namespace fs = std::filesystem;

namespace {

const fs::path samples = fs::path(source_dir()) / "data/text";
constexpr const char* names[] = {"deepseek", "glm", "qwen", "gpt2", "odd", "unknown"};

text::Tokenizer sample(const std::string& name) { return text::Tokenizer::read(samples / name); }

Json json_of(const std::string& name) { return read_json(samples / name / "tokenizer.json"); }

/// The sentence with which a tokenizer.json is refused.
std::string refusal(const Json& tokenizer) {
  try {
    text::Tokenizer(tokenizer, "T");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

/// The deepseek sample with one place changed.
std::string refusal(const std::string& pointer, const Json& value) {
  Json tokenizer = json_of("deepseek");
  tokenizer[Json::json_pointer(pointer)] = value;
  return refusal(tokenizer);
}

std::string refusal_of_regex(const std::string& pattern) {
  return refusal("/pre_tokenizer/pretokenizers/0/pattern/Regex", pattern);
}

std::vector<std::string> words(const Json& pre_tokenizer, const std::string& utf8) {
  std::vector<std::string> found;
  text::PreTokenizer(Keys(pre_tokenizer, "T"), "T").for_each_word(utf8, [&](std::string_view word) {
    found.emplace_back(word);
  });
  return found;
}

}  // namespace

TEST_CASE("ids and text are HuggingFace's", "[text]") {
  for (const char* name : names) {
    const text::Tokenizer tokenizer = sample(name);
    const Json cases = read_json(samples / name / "cases.json");
    CHECK(cases.size() > 150);
    for (const Json& c : cases) {
      const auto& utf8 = c["text"].get_ref<const std::string&>();
      INFO(name << ": " << in_quotes(utf8));
      const auto ids = c["ids"].get<std::vector<Token>>();
      CHECK(tokenizer.encode(utf8, false) == ids);
      CHECK(tokenizer.encode(utf8, true) ==
            c.value("with_template", c["ids"]).get<std::vector<Token>>());
      const std::string decoded = c.value("decoded", utf8);
      CHECK(tokenizer.decode(ids, false) == decoded);
      CHECK(tokenizer.decode(ids, true) == c.value("skipped", decoded));
    }
  }
}

TEST_CASE("streamed text is decoded text, and never half a character", "[text]") {
  for (const char* name : names) {
    const text::Tokenizer tokenizer = sample(name);
    for (const Json& c : read_json(samples / name / "cases.json")) {
      text::Utf8Stream stream;
      std::string streamed;
      const auto ids = c["ids"].get<std::vector<Token>>();
      for (const Token id : ids) {
        const std::string part = stream.push(tokenizer.bytes_of(id));
        CHECK_NOTHROW(text::require_utf8(part, "a part"));
        streamed += part;
      }
      CHECK(streamed + stream.finish() == tokenizer.decode(ids, false));
    }
  }
}

TEST_CASE("bytes that are no UTF-8 become U+FFFD by maximal subparts", "[text]") {
  // Unicode 15, section 3.9, tables 3-8 to 3-11; X is U+FFFD.
  const std::pair<std::string, std::string> cases[] = {
      {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", "XXXXXXXXA"},
      {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", "XXXXXXXXA"},
      {"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", "XXXXXAXXB"},
      {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", "XXXXA"},
      {"\xF4\x8F\xBF\xBF\xF0\x90\x80", "\xF4\x8F\xBF\xBFX"}};
  for (auto [bytes, expected] : cases) {
    for (std::size_t at; (at = expected.find('X')) != expected.npos;)
      expected.replace(at, 1, "\xEF\xBF\xBD");
    text::Utf8Stream whole, single;
    const std::string at_once = whole.push(bytes);
    CHECK(at_once + whole.finish() == expected);
    std::string by_byte;
    for (const char c : bytes) by_byte += single.push(std::string(1, c));
    CHECK(by_byte + single.finish() == expected);
  }
}

TEST_CASE("text that is not UTF-8 is refused at its byte", "[text]") {
  const text::Tokenizer tokenizer = sample("deepseek");
  const std::pair<const char*, const char*> cases[] = {{"ab\xFF", "byte 2 of 3"},
                                                       {"\xC3", "byte 0 of 1"},
                                                       {"\xC3\xA9\xED\xA0\x80", "byte 2 of 5"},
                                                       {"a\xF4\x90\x80\x80", "byte 1 of 5"},
                                                       {"\xC0\x80", "byte 0 of 2"}};
  for (const auto& [utf8, where] : cases)
    CHECK_THROWS_WITH(tokenizer.encode(utf8, true), Contains(where) && Contains("not UTF-8"));
}

TEST_CASE("ids out of range are refused", "[text]") {
  const text::Tokenizer tokenizer = sample("deepseek");
  for (const Token id : {Token{-1}, Token{tokenizer.size()}, Token{1} << 40}) {
    const std::vector<Token> ids = {5, id};
    CHECK_THROWS_WITH(tokenizer.decode(ids, false),
                      Contains("token id " + std::to_string(id) + " is out of range") &&
                          Contains("from 0 to " + std::to_string(tokenizer.size() - 1)));
  }
}

TEST_CASE("a tokenizer of another kind is refused by the key that says so", "[text]") {
  const auto names_key = [](const std::string& sentence, const std::string& key,
                            const std::string& supported) {
    CHECK_THAT(sentence, Catch::Matchers::StartsWith("T: ") && Contains("\"" + key + "\"") &&
                             Contains(supported));
  };
  names_key(refusal("/model/type", "WordPiece"), "model.type", "\"BPE\"");
  names_key(refusal("/model/dropout", 0.1), "model.dropout", "0");
  names_key(refusal("/model/continuing_subword_prefix", "##"), "model.continuing_subword_prefix",
            "\"\"");
  names_key(refusal("/model/merges/3", "a b c"), "model.merges[3]", "two tokens");
  names_key(refusal("/model/merges/3", Json{"a", "\u0141"}), "model.merges[3]", "lacks");
  names_key(refusal("/model/vocab/new", 5), "model.vocab.new", "has the id of");
  names_key(refusal("/model/vocab/new", -1), "model.vocab.new", "an integer from 0");
  names_key(refusal("/model/unk_token", "nothing"), "model.unk_token", "a token of model.vocab");
  names_key(refusal("/normalizer", {{"type", "Lowercase"}}), "normalizer.type", "\"NFC\"");
  names_key(refusal("/normalizer", {{"type", "Sequence"}, {"normalizers", {{{"type", "NFKC"}}}}}),
            "normalizer.normalizers[0].type", "\"NFC\"");
  names_key(refusal("/pre_tokenizer", {{"type", "Metaspace"}}), "pre_tokenizer.type",
            "\"ByteLevel\": transformers 5 saves");
  names_key(refusal("/pre_tokenizer/pretokenizers/1/type", "Whitespace"),
            "pre_tokenizer.pretokenizers[1].type", "\"Split\"");
  names_key(refusal("/pre_tokenizer/pretokenizers/3/type", "Digits"),
            "pre_tokenizer.pretokenizers[3].type", "\"ByteLevel\"");
  names_key(refusal("/pre_tokenizer/pretokenizers/0/behavior", "Shuffled"),
            "pre_tokenizer.pretokenizers[0].behavior", "\"Isolated\"");
  names_key(refusal("/post_processor", {{"type", "BertProcessing"}}), "post_processor.type",
            "\"TemplateProcessing\"");
  names_key(refusal("/decoder", {{"type", "Metaspace"}}), "decoder.type", "\"ByteLevel\"");
  names_key(refusal("/decoder", nullptr), "decoder", "a JSON object");
  names_key(refusal("/added_tokens/0/id", 77), "added_tokens[0].id", "gives");
  names_key(refusal("/added_tokens/3/id", 639), "added_tokens[3].id", "given twice");
  CHECK_THAT(refusal(Json::array()), Contains("expected a JSON object"));
}

TEST_CASE("expressions that PCRE2 would read otherwise are refused", "[text]") {
  CHECK(refusal_of_regex(R"([^\s\p{L}]+(?!\S)|(?i:'s)|[\[\]a-z]++|\d{1,3}|x{2,}?)").empty());
  for (const char* pattern : {R"(\w+)", R"(\bx)", R"(\h)", R"([[a]b])", R"([a&&b])", R"(^x)",
                              R"(x$)", R"(x{1,2}+)", R"(x{,2})", R"(\p{Han})", R"(\p{^L})",
                              R"(\pL)", R"((?x) a)", R"((*F)x)", R"([]a])", R"(\1)"})
    CHECK_THAT(refusal_of_regex(pattern), Contains("is not supported; supported are"));
  for (const char* pattern : {R"((x)", R"([a)", R"(\)", R"(*)", R"([b-a])"})
    CHECK_THAT(refusal_of_regex(pattern), Contains("is malformed"));
  CHECK_THAT(refusal_of_regex(""), Contains("not empty"));
}

TEST_CASE("white space is Unicode's, without U+180E", "[text]") {
  const Json spaces = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"}, {"pattern", {{"Regex", "\\s"}}}, {"behavior", "Removed"}},
        {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
  CHECK(words(spaces,
              "a\xC2\x85"
              "b\xE3\x80\x80"
              "c d\v\xE1\xA0\x8E"
              "e") == std::vector<std::string>{"a", "b", "c", "d",
                                               "\xE1\xA0\x8E"
                                               "e"});
}

TEST_CASE("an empty alphabet is refused when a byte is met", "[text]") {
  Json tokenizer = json_of("unknown");
  tokenizer["model"]["unk_token"] = nullptr;
  CHECK_THROWS_WITH(text::Tokenizer(tokenizer, "T").encode("ab\n", false), Contains("byte 0x0A"));
}
