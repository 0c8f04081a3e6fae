// optimized/train/pipeline/toml.hpp — a TOML file as JSON values with their lines.
#pragma once

#include <string>
#include <vector>

#include "core/json.hpp"

namespace dsa::train {

struct TomlEntry {
  std::string section;  // "run"; empty: before the first section
  int stage = -1;       // of [[stage]]: which one
  std::string key;
  Json value;
  int line = 0;
};

struct TomlFile {
  std::vector<TomlEntry> entries;
  int stages = 0;
};

/// Errors begin "NAME:LINE: ". A table inside a section, a list of lists and a date are refused.
TomlFile parse_toml(const std::string& text, const std::string& name);

/// One value as it stands behind an equals sign; what is no TOML value is a text.
Json toml_value(const std::string& text);

/// The value as TOML writes it.
std::string to_toml(const Json& value);

}  // namespace dsa::train
