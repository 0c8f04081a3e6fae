#include "core/patterns.hpp"

#include <algorithm>
#include <regex>

#include "core/check.hpp"
#include "core/json.hpp"

namespace dsa {

void check_patterns(const std::vector<std::string>& patterns, const std::string& what) {
  for (const std::string& pattern : patterns) {
    try {
      const std::regex checked(pattern);
    } catch (const std::regex_error&) {
      throw Error(what + " holds " + in_quotes(pattern) + ", which is not a regular expression");
    }
  }
}

bool any_matches(const std::vector<std::string>& patterns, const std::string& name) {
  return std::any_of(patterns.begin(), patterns.end(), [&](const std::string& pattern) {
    return std::regex_search(name, std::regex(pattern));
  });
}

}  // namespace dsa
