// core/patterns.hpp — regular expressions that are searched in the names of parameters.
#pragma once

#include <string>
#include <vector>

namespace dsa {

/// Error, which begins with `what`: one of them is no regular expression.
void check_patterns(const std::vector<std::string>& patterns, const std::string& what);

/// Some pattern occurs in the name.
bool any_matches(const std::vector<std::string>& patterns, const std::string& name);

}  // namespace dsa
