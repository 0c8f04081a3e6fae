// verify/report/values.hpp — numbers, texts, colours and the last line: written here once, for the
// report of every command.
#pragma once

#include <concepts>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.hpp"
#include "verify/verdict.hpp"

namespace dsa::verify {

/// JSON has no NaN and no infinities: they are the strings "NaN", "Infinity" and "-Infinity".
Json json_of(double);
Json json_of(const std::optional<double>&);  // null: there is none
template <std::integral T>
Json json_of(T) = delete;  // an integer is JSON already, to its last digit

/// JSON is UTF-8, and a path need not be: other bytes become U+FFFD.
Json json_of(std::string_view);
Json json_of(const std::vector<std::string>&);

/// In the colour of the outcome (ANSI), if `colour`.
std::string coloured(const std::string& text, Outcome, bool colour);

/// "FAIL: why", in one or more lines: what a report that is no pass begins with, and an empty text
/// for one that is.
std::string opening_line(Outcome, const std::string& why, bool colour);

/// "PASS: why -> exit 0": what every report ends with.
std::string closing_line(Outcome, const std::string& why, bool colour);

/// Breaks a sentence into lines of a page, each indented by `indent` spaces; the first begins with
/// `mark`.
std::string wrapped(const std::string& text, std::size_t indent, const std::string& mark = "");

constexpr std::size_t page_width = 118;

}  // namespace dsa::verify
