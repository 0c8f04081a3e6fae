// tests/definitions.hpp — which types a source defines, and under which qualified names.
//
// Two definitions of one name in one program are undefined behaviour that no compiler has to
// report: each file sees one of them, and the linker keeps one destructor for both.
#pragma once

#include <string>
#include <vector>

#include "tests/sources.hpp"

namespace dsa::test {

/// The qualified names of the classes, structures, unions and enumerations that `text` defines
/// where another file could define them too: outside functions and anonymous namespaces.
std::vector<std::string> defined_types(const std::string& text);

/// "NAME is defined in A and in B" for every type that two files define.
std::vector<std::string> second_definitions(const std::vector<Source>&);

}  // namespace dsa::test
