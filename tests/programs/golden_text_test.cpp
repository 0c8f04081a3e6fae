// tests/programs/golden_text_test.cpp — `dsa-verify golden` where the golden tells its text.
#include <fmt/format.h>

#include "tests/models.hpp"
#include "tests/programs/programs.hpp"
#include "text/tokenizer.hpp"

using Catch::Matchers::Contains;
using namespace dsa;
using namespace dsa::test;
namespace fs = std::filesystem;

namespace {

/// Sample v3 with a tokenizer beside it.
fs::path checkpoint_with_tokenizer(const Scratch& scratch) {
  const fs::path checkpoint = scratch / "checkpoint";
  fs::copy(sample("v3") / "checkpoint", checkpoint, fs::copy_options::recursive);
  fs::copy(fs::path(source_dir()) / "data/text/qwen/tokenizer.json", checkpoint);
  return checkpoint;
}

/// A line as MaxText's checker has it, with the logits of nobody.
std::string line_of(const std::string& text, const std::vector<Token>& tokens, Index V) {
  const Json row = Json(std::vector<double>(static_cast<std::size_t>(V), 0.25));
  return Json{{"prompt", text},
              {"tokens", tokens},
              {"logits", std::vector<Json>(tokens.size(), row)}}
             .dump() +
         "\n";
}

}  // namespace

TEST_CASE("a golden's ids are held against its text", "[cli]") {
  const Scratch scratch;
  const fs::path checkpoint = checkpoint_with_tokenizer(scratch);
  const Index V = read_config(checkpoint).vocab_size;
  const std::string text = "3Qx7Zk";
  std::vector<Token> ids = text::Tokenizer::read(checkpoint).encode(text, false);
  REQUIRE(ids.size() > 3);
  for (const Token id : ids) REQUIRE(id < V);
  const fs::path golden = scratch / "golden.jsonl", json = scratch / "verdict.json";
  const auto notes = [&](const std::vector<Token>& tokens) {
    write_text(golden, line_of(text, tokens, V));
    const Outcome result = run("dsa-verify golden " + checkpoint.string() + " " + golden.string() +
                               " --runs 2 --json " + json.string());
    CHECK(result.status == 1);  // of the logits; no text decides
    return read_json(json)["notes"].dump();
  };
  CHECK_THAT(notes(ids), Contains("those of its text by the checkpoint's tokenizer"));
  ids[2] = ids[2] == 5 ? 6 : 5;
  CHECK_THAT(notes(ids),
             Contains("the tokens of sequence 0 are not those of its text: token 2 is"));
}
