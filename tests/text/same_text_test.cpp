// tests/text/same_text_test.cpp — ids beside the text that they were made of.
#include "text/same_text.hpp"

#include "tests/catch.hpp"
#include "tests/paths.hpp"

using Catch::Matchers::Contains;
using namespace dsa;
using namespace dsa::test;

namespace {

text::Tokenizer sample(const std::string& name) {
  return text::Tokenizer::read(std::filesystem::path(source_dir()) / "data/text" / name);
}

const std::string hello = "hello brave new world";

}  // namespace

TEST_CASE("ids of a text are known, framed, behind special tokens, and with more after them",
          "[text]") {
  for (const char* name : {"deepseek", "glm", "gpt2"}) {
    const text::Tokenizer tokenizer = sample(name);
    std::vector<Token> ids = tokenizer.encode(hello, false);
    INFO(name);
    CHECK(text::difference_from_text(tokenizer, hello, ids).empty());
    CHECK(text::difference_from_text(tokenizer, hello, tokenizer.encode(hello, true)).empty());
    ids.push_back(7);
    CHECK(text::difference_from_text(tokenizer, hello, ids).empty());
  }
  const text::Tokenizer glm = sample("glm");
  std::vector<Token> twice = {602, 602};  // <sop><sop>
  for (const Token id : glm.encode(hello, false)) twice.push_back(id);
  CHECK(text::difference_from_text(glm, hello, twice).empty());
}

TEST_CASE("the first id that is not the text's is told", "[text]") {
  const text::Tokenizer tokenizer = sample("deepseek");
  std::vector<Token> ids = tokenizer.encode(hello, false);
  const Token right = ids[3];
  ids[3] = 0;
  CHECK(text::difference_from_text(tokenizer, hello, ids) ==
        "token 3 is 0, and tokenizer.json makes " + std::to_string(right) + " of the text there");
  ids.resize(2);
  CHECK_THAT(text::difference_from_text(tokenizer, hello, ids), Contains("end after 2 tokens"));
  CHECK_THAT(text::difference_from_text(tokenizer, hello, {}), Contains("end after 0 tokens"));
}

TEST_CASE("a tokenizer that lost the spaces is named", "[text]") {
  const text::Tokenizer tokenizer = sample("deepseek");
  const std::vector<Token> ids = tokenizer.encode("hellobravenewworld", false);
  CHECK_THAT(text::difference_from_text(tokenizer, hello, ids), Contains("45488"));
}
