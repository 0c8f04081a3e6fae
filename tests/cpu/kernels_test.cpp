// Kernels are compiled for instructions that this machine may not have: what their object files
// may hold; and the peaks they measure.
#include <array>
#include <cstdio>
#include <sstream>
#include <string>
#include <vector>

#include "optimized/cpu/ops/peaks.hpp"
#include "tests/catch.hpp"

namespace {

std::vector<std::string> lines_of(const std::string& command) {
  FILE* const pipe = popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  std::string text;
  std::array<char, 4096> block;
  while (std::size_t n = std::fread(block.data(), 1, block.size(), pipe))
    text.append(block.data(), n);
  REQUIRE(pclose(pipe) == 0);
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

}  // namespace

// The linker keeps one copy of a function that several objects define as weak (inline functions,
// templates). If it kept the one from an AVX-512 kernel, other code would crash on older machines.
TEST_CASE("kernels define no symbol that the linker may merge", "[cpu]") {
  std::istringstream objects(DSA_KERNEL_OBJECTS);
  int defined = 0;
  for (std::string object; std::getline(objects, object, ':');)
    for (const std::string& line : lines_of("nm --defined-only -f posix '" + object + "'")) {
      std::istringstream words(line);
      std::string symbol, type;
      words >> symbol >> type;
      if (symbol.starts_with("DW.ref.")) continue;  // a sanitizer's; no code, and alike in all
      INFO(object << " defines " << symbol << " as " << type);
      CHECK(std::string("VvWwu").find(type) == std::string::npos);
      ++defined;
    }
  CHECK(defined > 0);
}

TEST_CASE("the peaks of the machine are measured, of what has one", "[cpu]") {
  CHECK(dsa::cpu::matrix_peak({}, dsa::Dtype::f32) > 0);
  CHECK(dsa::cpu::matrix_peak({}, dsa::Dtype::bf16) > 0);
  CHECK(dsa::cpu::read_bandwidth({}) > 0);
  CHECK_THROWS_WITH(dsa::cpu::matrix_peak({}, dsa::Dtype::f16),
                    "the peak of matrix products is known for F32 and BF16, not F16");
}
