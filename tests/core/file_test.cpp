// tests/core/file_test.cpp — files: what is written is read back, and a failed write leaves
// nothing.
#include "core/file.hpp"

#include <unistd.h>

#include "core/check.hpp"
#include "core/sha256.hpp"
#include "tests/catch.hpp"
#include "tests/resident.hpp"
#include "tests/scratch.hpp"
#include "tests/skip.hpp"

using Catch::Matchers::Contains;
namespace fs = std::filesystem;

TEST_CASE("text is written under its final name only once complete", "[file]") {
  const dsa::test::Scratch scratch;
  const fs::path path = scratch / "text";
  {
    dsa::OutputFile file(path);
    file.write("one ");
    file.write("two");
    CHECK_FALSE(fs::exists(path));
    file.commit();
  }
  CHECK(dsa::read_text(path) == "one two");
  CHECK_FALSE(fs::exists(path.string() + ".partial"));

  dsa::write_text(path, "");
  CHECK(dsa::read_text(path).empty());
}

TEST_CASE("an output file that is not committed leaves what was there", "[file]") {
  const dsa::test::Scratch scratch;
  dsa::write_text(scratch / "kept", "before");
  { dsa::OutputFile(scratch / "kept").write("after"); }
  CHECK(dsa::read_text(scratch / "kept") == "before");
  CHECK(scratch.files() == 1);
}

TEST_CASE("a full disk is an error that leaves no file", "[file]") {
  if (!fs::exists("/dev/full")) return dsa::test::skip("there is no /dev/full here");
  const dsa::test::Scratch scratch;
  const fs::path path = scratch / "full";
  SECTION("noticed when little is written, in commit") {
    scratch.full_disk_at(path);
    dsa::OutputFile file(path);
    file.write("a few bytes");
    CHECK_THROWS_WITH(file.commit(), "cannot write " + path.string() + ": No space left on device");
    CHECK(scratch.files() == 0);
  }
  SECTION("noticed when much is written, in write") {
    scratch.full_disk_at(path);
    dsa::OutputFile file(path);
    CHECK_THROWS_WITH(file.write(std::string(1 << 20, 'x')), Contains("No space left on device"));
    CHECK_THROWS_AS(file.write("more"), dsa::Error);
    CHECK_THROWS_AS(file.commit(), dsa::Error);
    CHECK(scratch.files() == 0);
  }
}

TEST_CASE("files that cannot be written or read are named", "[file]") {
  const dsa::test::Scratch scratch;
  const std::string missing = (scratch / "no" / "such").string();
  CHECK_THROWS_WITH(dsa::OutputFile(missing),
                    "cannot write " + missing + ": No such file or directory");
  CHECK_THROWS_WITH(dsa::read_text(missing),
                    "cannot read " + missing + ": No such file or directory");
  CHECK_THROWS_WITH(dsa::MappedFile::open(missing), Contains("No such file or directory"));

  const std::string directory = scratch.path().string();
  CHECK_THROWS_WITH(dsa::read_text(directory), "cannot read " + directory + ": Is a directory");
  CHECK_THROWS_WITH(dsa::MappedFile::open(directory), Contains("Is a directory"));
  CHECK_THROWS_WITH(dsa::MappedFile::open("/dev/null"), Contains("it is not a regular file"));

  fs::create_directory(scratch / "taken");
  dsa::write_text(scratch / "taken" / "inside", "x");
  CHECK_THROWS_WITH(dsa::write_text(scratch / "taken", "text"), Contains("cannot write"));
  CHECK(scratch.files() == 1);
}

TEST_CASE("a mapped file outlives its name", "[file]") {
  const dsa::test::Scratch scratch;
  dsa::write_text(scratch / "bytes", "abc");
  const auto file = dsa::MappedFile::open(scratch / "bytes");
  fs::remove(scratch / "bytes");
  REQUIRE(file->bytes().size() == 3);
  CHECK(file->bytes()[2] == std::byte{'c'});

  dsa::write_text(scratch / "empty", "");
  CHECK(dsa::MappedFile::open(scratch / "empty")->bytes().empty());
}

TEST_CASE("a mapped file gives its pages back and is read again", "[file]") {
  const dsa::test::Scratch scratch;
  std::string text(std::size_t{1} << 20, ' ');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('a' + i % 23);
  dsa::write_text(scratch / "text", text);
  const auto file = dsa::MappedFile::open(scratch / "text");
  const auto seen = [&] {
    return std::string_view(reinterpret_cast<const char*>(file->bytes().data()),
                            file->bytes().size());
  };
  CHECK(seen() == text);
  CHECK(dsa::test::resident_bytes(scratch / "text") == dsa::Index{1} << 20);
  file->release();
  CHECK(dsa::test::resident_bytes(scratch / "text") == 0);
  CHECK(seen() == text);

  dsa::write_text(scratch / "empty", "");
  dsa::MappedFile::open(scratch / "empty")->release();
}

// FIPS 180-2, appendix B: the digests of nothing, "abc" and 56 characters.
TEST_CASE("sha256 agrees with the standard's examples", "[file]") {
  const auto of = [](std::string_view text) {
    return dsa::sha256(std::as_bytes(std::span(text.data(), text.size())));
  };
  CHECK(of("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(of("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");

  const dsa::test::Scratch scratch;
  dsa::write_text(scratch / "abc", "abc");
  CHECK(dsa::sha256_of_file(scratch / "abc") == of("abc"));
}
