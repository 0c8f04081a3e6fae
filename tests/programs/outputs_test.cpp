// tests/programs/outputs_test.cpp — what programs write never replaces what they were given.
#include <filesystem>

#include "tests/catch.hpp"
#include "tests/paths.hpp"
#include "tests/programs/programs.hpp"
#include "tests/scratch.hpp"

using Catch::Matchers::Contains;
using namespace dsa;
using namespace dsa::test;
namespace fs = std::filesystem;

namespace {

const fs::path sample = fs::path(source_dir()) / "data/samples/v2";

}  // namespace

TEST_CASE("a report never replaces what was read, nor another report", "[file][cli]") {
  const Scratch scratch;
  const fs::path golden = scratch / "golden", checkpoint = scratch / "checkpoint";
  fs::copy(sample / "logits.safetensors", golden);
  fs::copy(sample / "checkpoint", checkpoint);
  const std::string before = read_text(golden);
  const auto judging = [&](const fs::path& file, const std::string& more = "") {
    return "dsa-verify golden " + checkpoint.string() + " " + golden.string() +
           " --runs 1 --json " + file.string() + more;
  };
  CHECK_THAT(complaint(judging(golden)), Contains("is an input"));
  CHECK_THAT(complaint(judging(checkpoint / ".." / "golden")), Contains("is an input"));
  CHECK_THAT(complaint(judging(checkpoint / "config.json")),
             Contains("is a file of the checkpoint"));
  CHECK_THAT(complaint(judging(scratch / "a", " --html " + (scratch / "a").string())),
             Contains("named for two outputs"));
  CHECK_THAT(complaint(judging(golden / "a")), Contains("Not a directory"));
  CHECK_THAT(complaint(judging(checkpoint)), Contains("Is a directory"));
  CHECK_THAT(complaint(judging(scratch / "no" / "a")), Contains("No such file"));
  CHECK(read_text(golden) == before);
  for (int time = 0; time < 2; ++time) CHECK(run(judging(checkpoint / "report.json")).status == 0);
  CHECK(run(judging("/dev/null", " --html /dev/null")).status == 0);
}

TEST_CASE("no output replaces what it is made from", "[file][run]") {
  const Scratch scratch;
  const fs::path checkpoint = scratch / "checkpoint", tokens = scratch / "t.jsonl";
  fs::copy(sample / "checkpoint", checkpoint);
  write_text(tokens, "[1, 2, 3]");
  const std::string logits =
      "dsa-run logits " + checkpoint.string() + " --tokens " + tokens.string() + " -o ";
  CHECK_THAT(complaint(logits + tokens.string()), Contains("is an input"));
  const fs::path weights = checkpoint / "model.safetensors";
  CHECK_THAT(complaint(logits + weights.string()), Contains("is a file of the checkpoint"));
  CHECK(run("dsa-run inspect " + checkpoint.string()).status == 0);
  CHECK_THAT(complaint("dsa-run inspect " + checkpoint.string() + " --json " +
                       (checkpoint / "config.json").string()),
             Contains("is a file of the checkpoint"));
  CHECK_THAT(complaint("dsa-run jsonl " + weights.string() + " " + weights.string()),
             Contains("is an input"));
  CHECK(read_text(tokens) == "[1, 2, 3]");
}
