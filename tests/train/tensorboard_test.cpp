#include "optimized/train/pipeline/tensorboard.hpp"

#include "core/file.hpp"
#include "tests/catch.hpp"
#include "tests/scratch.hpp"

using namespace dsa;
using namespace dsa::train;

namespace {

std::string bytes(std::initializer_list<int> values) {
  std::string text;
  for (const int value : values) text += static_cast<char>(value);
  return text;
}

}  // namespace

TEST_CASE("CRC-32C has the values of RFC 3720", "[train]") {
  CHECK(crc32c("123456789") == 0xE3069283u);
  CHECK(crc32c(std::string(32, '\0')) == 0x8A9136AAu);
  CHECK(crc32c(std::string(32, '\xFF')) == 0x62A8AB43u);
}

TEST_CASE("events are the bytes that protobuf writes", "[train]") {
  // 1.0 is 00 00 00 00 00 00 F0 3F; 0.5f is 00 00 00 3F.
  CHECK(version_event(1.0) ==
        bytes({0x09, 0, 0, 0, 0, 0, 0, 0xF0, 0x3F, 0x1A, 13}) + "brain.Event:2");
  CHECK(scalar_event(1.0, 300, "lr", 0.5f) ==
        bytes({0x09, 0,    0,    0,   0,    0, 0, 0xF0, 0x3F,  // wall_time
               0x10, 0xAC, 0x02,                               // step 300
               0x2A, 11,   0x0A, 9,                            // summary, value
               0x0A, 2,    'l',  'r', 0x15, 0, 0, 0,    0x3F}));
}

TEST_CASE("a record is length, its checksum, bytes, their checksum", "[train]") {
  const std::string record = tf_record("123456789");
  REQUIRE(record.size() == 8 + 4 + 9 + 4);
  CHECK(record.substr(0, 8) == bytes({9, 0, 0, 0, 0, 0, 0, 0}));
  CHECK(record.substr(12, 9) == "123456789");
  // ((crc >> 15) | (crc << 17)) + 0xa282ead8 of 0xE3069283
  CHECK(masked_crc32c("123456789") == 0xC78AB0E5u);
  CHECK(record.substr(21) == bytes({0xE5, 0xB0, 0x8A, 0xC7}));
}

TEST_CASE("a file of events begins with the version", "[train]") {
  const test::Scratch scratch;
  TensorBoard board(scratch.path(), 12, "x");
  board.add(12, 1, "loss", 2);
  board.flush();
  CHECK(read_text(scratch / "events.out.tfevents.0000000012.x") ==
        tf_record(version_event(12)) + tf_record(scalar_event(12, 1, "loss", 2)));
}
