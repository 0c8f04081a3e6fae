#include "core/trace_names.hpp"

#include <charconv>

namespace dsa {
namespace {

constexpr std::string_view layers = "model.layers.";

/// The layer, and where in the name its digits end; -1 outside the layers.
struct Numbered {
  Index layer = -1;
  std::size_t end = 0;
};

Numbered numbered(std::string_view name) {
  if (!name.starts_with(layers)) return {};
  const char *begin = name.data() + layers.size(), *end = name.data() + name.size();
  Index layer = 0;
  const auto [at, error] = std::from_chars(begin, end, layer);
  if (error != std::errc{} || layer < 0 || (at != end && *at != '.')) return {};
  return {layer, static_cast<std::size_t>(at - name.data())};
}

}  // namespace

std::string layer_name(Index l) { return std::string(layers) + std::to_string(l); }

std::string in_layer(Index l, std::string_view name) {
  return layer_name(l) + "." + std::string(name);
}

Index layer_of(std::string_view name) { return numbered(name).layer; }

std::string_view within_layer(std::string_view name) {
  const Numbered n = numbered(name);
  return n.layer < 0 || n.end == name.size() ? std::string_view() : name.substr(n.end + 1);
}

bool is_selection(std::string_view name) { return within_layer(name) == names::indexer; }

bool is_routing(std::string_view name) {
  const std::string_view rest = within_layer(name);
  return rest == names::gate_experts || rest == names::gate_groups;
}

bool is_decision(std::string_view name) { return is_selection(name) || is_routing(name); }

bool is_indexer_part(std::string_view name) {
  return within_layer(name).starts_with(names::indexer);
}

std::string sibling(std::string_view name, std::string_view other) {
  const Numbered n = numbered(name);
  return n.layer < 0 ? std::string(name) : in_layer(n.layer, other);
}

}  // namespace dsa
