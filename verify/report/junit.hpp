// verify/report/junit.hpp — JUnit XML of checks that are not those of logits.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "verify/verdict.hpp"

namespace dsa::verify {

struct JunitCase {
  std::string group, name;  // classname and name
  Outcome outcome = Outcome::pass;
  std::string problem;  // of what is no pass
};

/// The cases of one verdict; the verdict itself is the last case.
struct JunitSuite {
  std::string name;
  std::vector<std::pair<std::string, std::string>> properties;  // before those of the receipt
  std::vector<JunitCase> cases;
  Outcome outcome = Outcome::inconclusive;
  std::string why;
  Receipt receipt;
};

std::string to_junit(const JunitSuite&);

}  // namespace dsa::verify
