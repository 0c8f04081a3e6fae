// TOML as the JSON that it could have been, so that one reader checks both.
#include <toml++/toml.h>

#include "core/check.hpp"
#include "core/file.hpp"
#include "core/json.hpp"
#include "experiments/sweep/sweep_file.hpp"

namespace dsa::sweep {
namespace {

Json json_of(const toml::node& node, const std::string& what) {
  if (const auto* table = node.as_table()) {
    Json out = Json::object();
    for (const auto& [key, value] : *table) out[std::string(key.str())] = json_of(value, what);
    return out;
  }
  if (const auto* array = node.as_array()) {
    Json out = Json::array();
    for (const toml::node& value : *array) out.push_back(json_of(value, what));
    return out;
  }
  if (const auto text = node.as_string()) return text->get();
  if (const auto integer = node.as_integer()) return integer->get();
  if (const auto real = node.as_floating_point()) return real->get();
  if (const auto truth = node.as_boolean()) return truth->get();
  throw Error(what + ": line " + std::to_string(node.source().begin.line) +
              " has a date or a time, and no key takes one; write a text, a number or a list");
}

}  // namespace

Json read_toml(const std::filesystem::path& file) {
  const std::string what = file.filename().string();
  const std::string text = read_text(file);
  try {
    return json_of(toml::parse(text), what);
  } catch (const toml::parse_error& error) {
    throw Error(what + ": line " + std::to_string(error.source().begin.line) +
                " is no TOML: " + std::string(error.description()));
  }
}

}  // namespace dsa::sweep
