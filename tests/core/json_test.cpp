// tests/core/json_test.cpp — JSON is strict, and every refusal is one sentence.
#include "core/json.hpp"

#include "core/check.hpp"
#include "core/file.hpp"
#include "tests/catch.hpp"
#include "tests/scratch.hpp"

using Catch::Matchers::Contains;
using Catch::Matchers::StartsWith;
using dsa::parse_json;

namespace {

std::string nested(int depth) {
  const auto n = static_cast<std::size_t>(depth);
  return std::string(n, '[') + std::string(n, ']');
}

}  // namespace

TEST_CASE("JSON values arrive as written", "[json]") {
  const auto value = parse_json(R"( {"a": [1, -2, 0.1, true, null, "x\u00e9"], "b": {}} )", "t");
  CHECK(value["a"][1] == -2);
  CHECK(value["a"][2] == 0.1);
  CHECK(value["a"][5] == "x\xC3\xA9");
  CHECK(value["b"].is_object());
  CHECK(parse_json("18446744073709551615", "t").get<std::uint64_t>() == UINT64_MAX);
}

TEST_CASE("a key given twice is refused at any depth", "[json]") {
  CHECK_THROWS_WITH(parse_json(R"({"a": 1, "a": 1})", "config.json"),
                    R"(config.json gives the key "a" twice)");
  CHECK_THROWS_WITH(parse_json(R"({"x": [{"b": {}, "c": 0, "b": {}}]})", "f"),
                    R"(f gives the key "b" twice)");
  CHECK_THROWS_WITH(parse_json(R"({"a": 1, "\u0061": 1})", "f"), R"(f gives the key "a" twice)");
  CHECK_NOTHROW(parse_json(R"({"a": {"a": [{"a": 1}, {"a": 1}]}})", "f"));
}

TEST_CASE("nesting is limited to 64 levels", "[json]") {
  CHECK_NOTHROW(parse_json(nested(64), "f"));
  CHECK_THROWS_WITH(parse_json(nested(65), "f"), "f is nested deeper than 64 levels");
  CHECK_THROWS_WITH(parse_json(std::string(1000000, '['), "f"),
                    "f is nested deeper than 64 levels");
}

TEST_CASE("what is not JSON is refused in one printable line", "[json]") {
  const std::string long_junk = "\"" + std::string(1000000, 'x');
  for (const std::string& text : std::vector<std::string>{
           "", " ", "{", "[1,]", "{\"a\"}", "{'a': 1}", "1 2", "{} x", "nul", "01", "1e999",
           "\"\x80\"", "\"a\nb\"", std::string("\0", 1), std::string("{}\0{", 4),
           "\"\xED\xA0\x80\"", "// a\n1", long_junk, "\xEF\xBB"}) {
    std::string message;
    try {
      parse_json(text, "file.json");
    } catch (const dsa::Error& error) {
      message = error.what();
    }
    INFO(message);
    CHECK_THAT(message, StartsWith("file.json is not valid JSON: "));
    CHECK(message.size() < 400);
    for (const char c : message) CHECK((c >= 0x20 && c < 0x7F));
  }
  CHECK_THROWS_WITH(parse_json("{\"a\": 1,\n 2}", "f"), Contains("line 2, column 2"));
}

TEST_CASE("Python's NaN and Infinity are refused by name", "[json]") {
  for (const char* text : {"[NaN]", "[1, Infinity]", "{\"a\": -Infinity}"})
    CHECK_THROWS_WITH(parse_json(text, "f"),
                      Contains("f holds NaN or Infinity") && Contains("which JSON does not have"));
  CHECK(parse_json("\"NaN\"", "f") == "NaN");
}

TEST_CASE("a JSON file is named in its errors", "[json]") {
  const dsa::test::Scratch scratch;
  const std::string path = (scratch / "a.json").string();
  dsa::write_text(path, "{\"k\": 3}");
  CHECK(dsa::read_json(path)["k"] == 3);
  dsa::write_text(path, "{");
  CHECK_THROWS_WITH(dsa::read_json(path), StartsWith(path + " is not valid JSON"));
  CHECK_THROWS_WITH(dsa::read_json(path + "x"), StartsWith("cannot read " + path + "x"));
}

TEST_CASE("text from files is quoted for messages", "[json]") {
  CHECK(dsa::in_quotes("a\n\"b") == R"("a\n\"b")");
  CHECK(dsa::in_quotes("\xFF") == R"("\ufffd")");
  CHECK(dsa::in_quotes(std::string(1000, 'x')).size() == 205);
}
