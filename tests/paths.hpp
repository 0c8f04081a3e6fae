// tests/paths.hpp — where the sources and the programs under test lie.
#pragma once

#include <string>

namespace dsa::test {

std::string source_dir();  // of the repository
std::string binary_dir();  // of dsa-verify, dsa-run, ...

}  // namespace dsa::test
