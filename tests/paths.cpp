#include "tests/paths.hpp"

namespace dsa::test {

std::string source_dir() { return DSA_SOURCE_DIR; }
std::string binary_dir() { return DSA_BINARY_DIR; }

}  // namespace dsa::test
