// run/mmlu/csv.hpp — comma-separated values as pandas and Python's csv module write them (RFC
// 4180).
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace dsa::run::mmlu {

struct CsvRow {
  int line = 0;  // of its first character, from 1
  std::vector<std::string> fields;
};

/// A field in quotes may hold commas, line breaks and quotes written twice; a quote inside a plain
/// field is a character like any other. Lines end in LF or CRLF; empty lines are left out. Error,
/// which begins with `what` and names the line: a quote that is never closed, or text behind the
/// closing one.
std::vector<CsvRow> parse_csv(std::string_view text, const std::string& what);

}  // namespace dsa::run::mmlu
