#include "verify/verdict.hpp"

#include <algorithm>

namespace dsa::verify {

std::string_view name_of(Outcome outcome) {
  switch (outcome) {
    case Outcome::pass:
      return "pass";
    case Outcome::fail:
      return "fail";
    case Outcome::inconclusive:
      return "inconclusive";
  }
  return "fail";
}

int exit_code(Outcome outcome) {
  switch (outcome) {
    case Outcome::pass:
      return 0;
    case Outcome::fail:
      return 1;
    case Outcome::inconclusive:
      return 3;
  }
  return 1;
}

Outcome worst_of(const std::vector<Verdict>& verdicts) {
  const auto any = [&](Outcome outcome) {
    return std::any_of(verdicts.begin(), verdicts.end(),
                       [&](const Verdict& v) { return v.outcome == outcome; });
  };
  if (any(Outcome::fail)) return Outcome::fail;
  // Nothing judged is nothing shown.
  return verdicts.empty() || any(Outcome::inconclusive) ? Outcome::inconclusive : Outcome::pass;
}

Index LogitsResult::explained() const {
  return std::count_if(rows.begin(), rows.end(), [](const RowResult& r) { return r.explained; });
}

Index LogitsResult::undecided() const {
  return std::count_if(rows.begin(), rows.end(), [](const RowResult& r) { return r.undecided; });
}

}  // namespace dsa::verify
