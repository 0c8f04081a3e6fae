// core/json.hpp — strict JSON: nlohmann-json, which also refuses a key given twice.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "core/json_fwd.hpp"

namespace dsa {

/// Parses one JSON document. Errors (syntax, a duplicate key, nesting deeper than 64) are one
/// sentence that begins with `what`, e.g. "config.json of DIR".
Json parse_json(std::string_view text, const std::string& what);

/// A string from a file, for a message: in quotes, control characters and non-ASCII escaped, a
/// very long one cut short.
std::string in_quotes(std::string_view);

Json read_json(const std::filesystem::path& file);

}  // namespace dsa
