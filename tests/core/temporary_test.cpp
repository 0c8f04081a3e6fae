// tests/core/temporary_test.cpp — what a signal finds half-written is gone.
#include "core/temporary.hpp"

#include "core/check.hpp"
#include "core/checkpoint_writer.hpp"
#include "core/file.hpp"
#include "tests/catch.hpp"
#include "tests/scratch.hpp"

namespace fs = std::filesystem;
using namespace dsa;

TEST_CASE("an interrupt removes what is not finished, and nothing else", "[file]") {
  const test::Scratch scratch;
  write_text(scratch / "done", "kept");
  OutputFile file(scratch / "file");
  file.write("half");
  const std::vector<std::byte> row(40);
  CheckpointWriter checkpoint(scratch / "model", {{"a", Dtype::f32, {2, 10}}}, 1 << 20);
  checkpoint.append(row);
  const TemporaryDirectory folder;
  write_text(folder.path() / "inside", "text");
  CHECK(fs::exists(scratch / "file.partial"));
  CHECK(fs::exists(scratch / "model.partial"));

  { const auto nobody_writes_now = remove_temporaries(); }
  CHECK_FALSE(fs::exists(scratch / "file.partial"));
  CHECK_FALSE(fs::exists(scratch / "model.partial"));
  CHECK_FALSE(fs::exists(folder.path()));
  CHECK(read_text(scratch / "done") == "kept");
  CHECK(scratch.files() == 1);
}

TEST_CASE("what is finished is nobody's to remove", "[file]") {
  const test::Scratch scratch;
  write_text(scratch / "file", "whole");
  { const auto nobody_writes_now = remove_temporaries(); }
  CHECK(read_text(scratch / "file") == "whole");
}

TEST_CASE("a path that somebody else made is not remembered", "[file]") {
  const test::Scratch scratch;
  fs::create_directory(scratch / "theirs.partial");
  write_text(scratch / "theirs.partial/inside", "x");
  CHECK_THROWS_AS(OutputFile(scratch / "theirs"), Error);
  CHECK_THROWS_AS(CheckpointWriter(scratch / "theirs", {{"a", Dtype::f32, {1}}}, 100), Error);
  { const auto nobody_writes_now = remove_temporaries(); }
  CHECK(read_text(scratch / "theirs.partial/inside") == "x");
}
