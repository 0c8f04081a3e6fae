#include "optimized/train/pipeline/toml.hpp"

#include <toml++/toml.h>

#include <cmath>

#include "core/check.hpp"

namespace dsa::train {
namespace {

int line_of(const toml::node& node) { return static_cast<int>(node.source().begin.line); }

[[noreturn]] void fail(const std::string& name, int line, const std::string& sentence) {
  throw Error(name + ":" + std::to_string(line) + ": " + sentence);
}

Json value_of(const toml::node& node, const std::string& name, const std::string& key) {
  if (const auto* x = node.as_integer()) return x->get();
  if (const auto* x = node.as_floating_point()) return x->get();
  if (const auto* x = node.as_boolean()) return x->get();
  if (const auto* x = node.as_string()) return x->get();
  const auto* list = node.as_array();
  if (list == nullptr)
    fail(name, line_of(node),
         key + " is a table or a date, expected a number, a text, true, false or a list of these");
  Json values = Json::array();
  for (const toml::node& entry : *list) {
    if (entry.is_array()) fail(name, line_of(entry), key + " is a list of lists, expected a list");
    values.push_back(value_of(entry, name, key));
  }
  return values;
}

void read_section(const toml::table& table, const std::string& section, int stage,
                  const std::string& name, TomlFile& file) {
  for (const auto& [key, node] : table) {
    const std::string word(key.str());
    file.entries.push_back(
        {section, stage, word, value_of(node, name, section + "." + word), line_of(node)});
  }
}

}  // namespace

TomlFile parse_toml(const std::string& text, const std::string& name) {
  toml::table root;
  try {
    root = toml::parse(text);
  } catch (const toml::parse_error& error) {
    fail(name, static_cast<int>(error.source().begin.line),
         "this is not TOML: " + std::string(error.description()));
  }
  TomlFile file;
  for (const auto& [key, node] : root) {
    const std::string section(key.str());
    if (const auto* table = node.as_table()) {
      if (section == "stage")
        fail(name, line_of(node), "[stage] is one table, expected [[stage]], one a stage");
      read_section(*table, section, -1, name, file);
    } else if (const auto* tables = node.as_array(); tables && tables->is_array_of_tables()) {
      if (section != "stage")
        fail(name, line_of(node), "[[" + section + "]] is unknown, only [[stage]] is a list");
      for (const toml::node& entry : *tables)
        read_section(*entry.as_table(), section, file.stages++, name, file);
    } else {
      file.entries.push_back({"", -1, section, value_of(node, name, section), line_of(node)});
    }
  }
  return file;
}

Json toml_value(const std::string& text) {
  try {
    const toml::table table = toml::parse("x = " + text);
    if (table.size() == 1) return value_of(*table.get("x"), "the command line", text);
  } catch (const toml::parse_error&) {
    return text;
  }
  return text;
}

std::string to_toml(const Json& value) {
  if (value.is_array()) {
    std::string all;
    for (const Json& x : value) all += (all.empty() ? "" : ", ") + to_toml(x);
    return "[" + all + "]";
  }
  if (value.is_number_float() && !std::isfinite(value.get<double>())) return "nan";
  return value.dump();  // JSON's numbers, texts and booleans are TOML's
}

}  // namespace dsa::train
