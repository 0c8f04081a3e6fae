// tests/core/safetensors_test.cpp — the format's rules one by one, round trips, and damaged files.
#include "core/safetensors.hpp"

#include <cmath>
#include <cstring>

#include "tests/bytes.hpp"
#include "tests/catch.hpp"
#include "tests/scratch.hpp"
#include "tests/skip.hpp"

using Catch::Matchers::Contains;
using dsa::Dtype;
using dsa::Index;
using dsa::SafetensorsFile;
using dsa::SafetensorsWriter;
using dsa::test::file_of;
using dsa::test::parse;

namespace {

const std::vector<std::string> all_dtypes = {
    "BOOL",        "F4",  "F6_E2M3", "F6_E3M2", "U8",   "I8",         "F8_E5M2", "F8_E4M3",
    "F8_E8M0",     "I16", "U16",     "F16",     "BF16", "I32",        "U32",     "F32",
    "F8_E4M3FNUZ", "C64", "F64",     "I64",     "U64",  "F8_E5M2FNUZ"};

std::string entry(const std::string& dtype, const std::string& shape, Index begin, Index end) {
  return "{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":[" +
         std::to_string(begin) + "," + std::to_string(end) + "]}";
}

void refuse(const std::string& bytes, const std::string& sentence) {
  CHECK_THROWS_WITH(parse(bytes), Contains(sentence));
}

/// The sentence for a header `text` before `data` bytes.
void refuse_header(const std::string& text, std::size_t data, const std::string& sentence) {
  INFO(text);
  refuse(file_of(text, std::string(data, '\0')), sentence);
}

}  // namespace

TEST_CASE("every dtype of the format makes a round trip", "[safetensors]") {
  const dsa::test::Scratch scratch;
  for (const std::string& name : all_dtypes) {
    const Dtype dtype = dsa::dtype_named(name).value();
    const auto bytes = static_cast<std::size_t>(8 * dsa::bits_of(dtype) / 8);
    std::vector<std::byte> data(bytes);
    for (std::size_t i = 0; i < bytes; ++i) data[i] = static_cast<std::byte>(37 * i + 1);
    SafetensorsWriter writer(scratch / "f.safetensors",
                             {{"odd", Dtype::u8, {1}}, {"x", dtype, {2, 4}}});
    writer.append(std::span(data).first(1));
    writer.append(std::span(data).first(1));
    writer.append(std::span(data).subspan(1));
    writer.commit();

    const auto file = SafetensorsFile::open(scratch / "f.safetensors");
    INFO(name);
    CHECK(file.at("x").dtype == dtype);
    CHECK(file.at("x").shape == std::vector<Index>{2, 4});
    REQUIRE(file.at("x").bytes() == static_cast<Index>(bytes));
    CHECK(std::memcmp(file.at("x").data, data.data(), bytes) == 0);
  }
}

TEST_CASE("values are encoded to the declared dtype", "[safetensors]") {
  const dsa::test::Scratch scratch;
  const std::vector<double> values = {0, 1, 2.75, 100, 7};
  for (const char* name :
       {"F64", "F32", "F16", "BF16", "I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64"}) {
    const Dtype dtype = dsa::dtype_named(name).value();
    SafetensorsWriter writer(scratch / "f.safetensors", {{"x", dtype, {5}}});
    writer.append_values(std::span(values).first(2));
    writer.append_values(std::span(values).subspan(2));
    writer.commit();
    const auto file = SafetensorsFile::open(scratch / "f.safetensors");
    std::vector<double> back(5);
    dsa::decode(dtype, file.at("x").data, 5, back.data());
    INFO(name);
    CHECK(back[2] == (name[0] == 'I' || name[0] == 'U' ? 2 : 2.75));
    CHECK(back[3] == 100);
  }
}

TEST_CASE("long tensors are encoded piece by piece", "[safetensors]") {
  const dsa::test::Scratch scratch;
  std::vector<double> values(20000);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>(i);
  SafetensorsWriter writer(scratch / "f.safetensors", {{"x", Dtype::f32, {200, 100}}});
  writer.append_values(values);
  writer.commit();
  const auto file = SafetensorsFile::open(scratch / "f.safetensors");
  std::vector<double> back(values.size());
  dsa::decode(Dtype::f32, file.at("x").data, 20000, back.data());
  CHECK(back == values);
}

TEST_CASE("integers that do not fit are refused", "[safetensors]") {
  const dsa::test::Scratch scratch;
  const auto refused = [&](Dtype dtype, double value) {
    SafetensorsWriter writer(scratch / "f.safetensors", {{"x", dtype, {1}}});
    CHECK_THROWS_WITH(writer.append_values({&value, 1}), Contains("cannot hold"));
  };
  refused(Dtype::u8, 256);
  refused(Dtype::u8, -1);
  refused(Dtype::i8, 128);
  refused(Dtype::i32, std::ldexp(1.0, 31));
  refused(Dtype::i64, std::ldexp(1.0, 63));
  refused(Dtype::u64, std::ldexp(1.0, 64));
  refused(Dtype::i64, std::nan(""));
  refused(Dtype::boolean, 2);
  const double value = 1;
  SafetensorsWriter writer(scratch / "f.safetensors", {{"x", Dtype::c64, {1}}});
  CHECK_THROWS_WITH(writer.append_values({&value, 1}), Contains("takes bytes only"));
}

TEST_CASE("scalars, empty tensors, empty files and metadata are allowed", "[safetensors]") {
  const dsa::test::Scratch scratch;
  SafetensorsWriter writer(
      scratch / "f.safetensors",
      {{"before", Dtype::f32, {0, 3}}, {"scalar", Dtype::f64, {}}, {"after", Dtype::f32, {0}}},
      {{"format", "pt"}, {"note", "\xC3\xA9"}});
  const double value = -0.0;
  writer.append_values({&value, 1});
  writer.commit();
  const auto file = SafetensorsFile::open(scratch / "f.safetensors");
  CHECK(file.tensors().size() == 3);
  CHECK(file.at("scalar").size() == 1);
  CHECK(file.at("before").bytes() == 0);
  CHECK(file.metadata().at("note") == "\xC3\xA9");
  CHECK((file.at("scalar").data - file.memory()->bytes().data()) % 8 == 0);

  CHECK(parse(file_of("{}", "")).tensors().empty());
  CHECK(parse(file_of("{}      ", "")).tensors().empty());
  CHECK_THROWS_WITH(parse(file_of("{}", "")).at("x"), "f has no tensor x; it has none at all");
}

TEST_CASE("tensors are found by name and ordered by offset", "[safetensors]") {
  const auto bytes = file_of(
      "{\"a\":" + entry("U8", "[2]", 3, 5) + ",\"b\":" + entry("U8", "[3]", 0, 3) + "}", "vwxyz");
  const auto file = parse(bytes);
  REQUIRE(file.tensors().size() == 2);
  CHECK(file.tensors()[0].name == "b");
  CHECK(file.find("a")->data[0] == std::byte{'y'});
  CHECK(file.find("c") == nullptr);
  CHECK_THROWS_WITH(file.at("c"), "f has no tensor c; it has b, a");
}

TEST_CASE("the header's size and beginning are checked", "[safetensors]") {
  refuse("", "f holds 0 bytes");
  refuse("1234567", "f holds 7 bytes; a safetensors file begins with 8");
  refuse(std::string(8, '\0'), "states a header of 0 bytes, expected 2 to 100000000");
  refuse(std::string("\1\0\0\0\0\0\0\0{", 9), "states a header of 1 bytes");
  refuse(std::string(8, '\xFF'), "states a header of 18446744073709551615 bytes");
  refuse(std::string("\x01\xE1\xF5\x05\0\0\0\0{}", 10), "states a header of 100000001 bytes");
  refuse(std::string("\3\0\0\0\0\0\0\0{}", 10), "a header of 3 bytes but holds only 2");
  refuse(file_of(" {}", ""), "header that does not begin with '{'");
  refuse(file_of("[]", ""), "header that does not begin with '{'");
  refuse(file_of("{} x", ""), "f: header is not valid JSON");
  refuse(file_of(std::string("{}\0", 3), ""), "f: header is not valid JSON");
  refuse(file_of("{\"\xFF\":1}", ""), "f: header is not valid JSON");
}

TEST_CASE("a tensor's description is checked", "[safetensors]") {
  const std::string good = entry("U8", "[1]", 0, 1);
  refuse_header("{\"a\":" + good + ",\"a\":" + good + "}", 1, R"(gives the key "a" twice)");
  refuse_header("{\"\":" + good + "}", 1, "a tensor without a name");
  refuse_header("{\"a\":3}", 0, R"(f: tensor "a" is described by 3, expected an object)");
  refuse_header(R"({"a":{"dtype":"U8","shape":[]}})", 1, "has no data_offsets");
  refuse_header(R"({"a":{"dtype":"U8","data_offsets":[0,1]}})", 1, "has no shape");
  refuse_header(R"({"a":{"shape":[],"data_offsets":[0,1]}})", 1, "has no dtype");
  refuse_header(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"z":0}})", 1,
                R"(has an unknown key "z")");
  refuse_header("{\"a\":" + entry("F31", "[1]", 0, 1) + "}", 1,
                R"(has dtype "F31", which the safetensors format does not know)");
  refuse_header(R"({"a":{"dtype":8,"shape":[],"data_offsets":[0,1]}})", 1, "has dtype 8");
  for (const char* shape :
       {"1", "[-1]", "[1.0]", "[\"1\"]", "null", "{}", "[[1]]", "[9223372036854775808]"})
    refuse_header("{\"a\":" + entry("U8", shape, 0, 1) + "}", 1,
                  std::string("has shape ") + shape + ", expected a list of non-negative integers");
  for (const char* offsets : {"[0]", "[0,1,2]", "[0,1.0]", "[-1,1]", "0", "[0,null]"})
    refuse_header(std::string(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":)") + offsets + "}}",
                  1, std::string("has data_offsets ") + offsets + ", expected two integers");
  refuse_header("{\"a\":" + entry("U8", "[1]", 1, 0) + "}", 1, "begins at byte 1 and ends before");
}

TEST_CASE("sizes are checked without overflow", "[safetensors]") {
  refuse_header("{\"a\":" + entry("F32", "[2]", 0, 4) + "}", 4,
                R"(tensor "a" has 4 bytes, expected 8 for F32 of shape (2))");
  refuse_header("{\"a\":" + entry("U8", "[4294967296,4294967296]", 0, 0) + "}", 0,
                "has shape (4294967296, 4294967296), whose size does not fit in 64 bits");
  refuse_header("{\"a\":" + entry("F64", "[2305843009213693952]", 0, 0) + "}", 0,
                "does not fit in 64 bits");
  refuse_header("{\"a\":" + entry("F4", "[3]", 0, 1) + "}", 1,
                "takes 12 bits (F4, shape (3)), expected whole bytes");
  refuse_header("{\"a\":" + entry("F6_E2M3", "[2]", 0, 2) + "}", 2, "takes 12 bits");
  CHECK(parse(file_of("{\"a\":" + entry("F6_E2M3", "[4]", 0, 3) + "}", "xyz")).at("a").bytes() ==
        3);
}

TEST_CASE("the data has no overlap, hole or rest", "[safetensors]") {
  const auto two = [](Index begin, Index end) {
    return "{\"a\":" + entry("U8", "[4]", 0, 4) +
           ",\"b\":" + entry("U8", "[" + std::to_string(end - begin) + "]", begin, end) + "}";
  };
  CHECK(parse(file_of(two(4, 6), std::string(6, 'x'))).tensors().size() == 2);
  refuse_header(two(3, 5), 6,
                R"(tensor "b" begins at byte 3, expected 4, right after tensor "a")"
                " (they overlap)");
  refuse_header(two(5, 7), 7, "expected 4, right after tensor \"a\" (there is a hole)");
  refuse_header(two(0, 2), 4, "(they overlap)");
  refuse_header("{\"a\":" + entry("U8", "[1]", 1, 2) + "}", 2,
                "begins at byte 1, expected 0, right after the beginning of the data");
  refuse_header(two(4, 6), 5,
                "f holds 5 bytes of data, expected 6, where tensor \"b\" ends; it "
                "was cut short");
  refuse_header(two(4, 6), 7, "f holds 7 bytes of data, expected 6");
  refuse_header("{}", 1, "f holds 1 bytes of data, expected 0");
}

TEST_CASE("metadata maps strings to strings", "[safetensors]") {
  CHECK(parse(file_of(R"({"__metadata__":{"a":"b"}})", "")).metadata().at("a") == "b");
  refuse_header(R"({"__metadata__":[]})", 0, "__metadata__ is [], expected an object of strings");
  refuse_header(R"({"__metadata__":null})", 0, "__metadata__ is null");
  refuse_header(R"({"__metadata__":{"a":1}})", 0, R"(__metadata__ has "a": 1, expected a string)");
  refuse_header(R"({"__metadata__":{"a":"1","a":"2"}})", 0, R"(gives the key "a" twice)");
}

TEST_CASE("no truncation and no wrong byte does more than throw an Error", "[safetensors]") {
  const std::string good =
      file_of("{\"__metadata__\":{\"k\":\"v\"},\"a\":" + entry("F4", "[2,3]", 0, 3) +
                  ",\"b\":" + entry("I16", "[1]", 3, 5) + "}  ",
              "12345");
  CHECK(parse(good).tensors().size() == 2);
  const auto survives = [](const std::string& bytes) {
    try {
      const auto file = parse(bytes);
      for (const auto& tensor : file.tensors())
        for (Index i = 0; i < tensor.bytes(); ++i) static_cast<void>(tensor.data[i]);
      return true;
    } catch (const dsa::Error&) {
      return false;
    }
  };
  for (std::size_t n = 0; n < good.size(); ++n) {
    INFO(n);
    CHECK_FALSE(survives(good.substr(0, n)));
  }
  int survivors = 0;
  for (std::size_t i = 0; i < good.size(); ++i)
    for (int byte = 0; byte < 256; ++byte) {
      std::string damaged = good;
      damaged[i] = static_cast<char>(byte);
      survivors += survives(damaged);
    }
  CHECK(survivors > 5 * 256);  // the data bytes at least
}

TEST_CASE("the writer counts the bytes it is given", "[safetensors]") {
  const dsa::test::Scratch scratch;
  const std::vector<double> values(4);
  const std::vector<std::byte> bytes(16);
  const auto path = scratch / "f.safetensors";
  {
    SafetensorsWriter writer(path, {{"a", Dtype::f32, {2}}, {"b", Dtype::f32, {1}}});
    CHECK_THROWS_WITH(writer.commit(), Contains("tensor \"a\" was given 0 of its 8 bytes"));
    CHECK_THROWS_WITH(writer.append_values(values),
                      Contains("tensor \"a\" (F32) has room for 2 more values, got 4"));
    CHECK_THROWS_WITH(writer.append(bytes), Contains("tensor \"a\" takes 8 bytes, got 16"));
    writer.append_values(std::span(values).first(2));
    writer.append(std::span(bytes).first(3));
    CHECK_THROWS_WITH(writer.commit(), Contains("tensor \"b\" was given 3 of its 4 bytes"));
    writer.append(std::span(bytes).first(1));
    CHECK_THROWS_WITH(writer.append(bytes), Contains("is complete, yet 16 bytes follow"));
    CHECK_THROWS_WITH(writer.append_values(values), Contains("is complete, yet 4 values follow"));
  }
  CHECK(scratch.files() == 0);
}

TEST_CASE("the writer refuses what it could not read back", "[safetensors]") {
  const dsa::test::Scratch scratch;
  const auto declare = [&](std::vector<SafetensorsWriter::Declaration> tensors) {
    SafetensorsWriter(scratch / "f.safetensors", std::move(tensors));
  };
  CHECK_THROWS_WITH(declare({{"a", Dtype::u8, {1}}, {"a", Dtype::u8, {1}}}),
                    Contains("tensor \"a\" is declared twice"));
  CHECK_THROWS_WITH(declare({{"", Dtype::u8, {1}}}), Contains("needs another name"));
  CHECK_THROWS_WITH(declare({{"__metadata__", Dtype::u8, {1}}}), Contains("needs another name"));
  CHECK_THROWS_WITH(declare({{"a", Dtype::u8, {-1}}}), Contains("expected no negative extent"));
  CHECK_THROWS_WITH(declare({{"a", Dtype::f4, {1}}}), Contains("expected whole bytes"));
  CHECK_THROWS_WITH(declare({{"a", Dtype::u8, {Index{1} << 40, Index{1} << 40}}}),
                    Contains("does not fit in 64 bits"));
  CHECK_THROWS_WITH(declare({{"\xFF", Dtype::u8, {1}}}), Contains("is not UTF-8"));
  CHECK_THROWS_WITH(declare({{std::string(100'000'000, 'x'), Dtype::u8, {0}}}),
                    Contains("write several files"));
  CHECK(scratch.files() == 0);
}

TEST_CASE("a full disk leaves no safetensors file", "[safetensors]") {
  if (!std::filesystem::exists("/dev/full")) return dsa::test::skip("there is no /dev/full here");
  const dsa::test::Scratch scratch;
  const auto path = scratch / "f.safetensors";
  for (const Index n : {Index{1}, Index{1} << 20}) {
    scratch.full_disk_at(path);
    const std::vector<double> values(static_cast<std::size_t>(n));
    const auto write = [&] {
      SafetensorsWriter writer(path, {{"x", Dtype::f64, {n}}});
      writer.append_values(values);
      writer.commit();
    };
    CHECK_THROWS_WITH(write(), "cannot write " + path.string() + ": No space left on device");
    CHECK(scratch.files() == 0);
  }
}
