#include "verify/names/parameter_map.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "core/safetensors.hpp"
#include "verify/built_in_names.hpp"

namespace dsa::verify {
namespace {

Index volume(const std::vector<Index>& shape) {
  Index n = 1;
  for (const Index extent : shape) n *= extent;
  return n;
}

/// Numbers i along `axis`.
Numbered slice(const Numbered& x, std::size_t axis, Index i) {
  Numbered out{x.shape, {}};
  out.shape.erase(out.shape.begin() + static_cast<std::ptrdiff_t>(axis));
  Index before = 1, after = 1;
  for (std::size_t a = 0; a < x.shape.size(); ++a)
    (a < axis ? before : after) *= a == axis ? 1 : x.shape[a];
  for (Index b = 0; b < before; ++b) {
    const auto from = x.values.begin() + (b * x.shape[axis] + i) * after;
    out.values.insert(out.values.end(), from, from + after);
  }
  return out;
}

/// (in, out..) to (out, in); false where the axes do not part so.
bool transpose_kernel(Numbered& x, const std::vector<Index>& shape) {
  const Index rows = shape[0], columns = volume(shape) / shape[0];
  Index leading = 1;
  std::size_t axis = 0;
  while (axis < x.shape.size() && leading < columns) leading *= x.shape[axis++];
  if (leading != columns || volume(x.shape) != rows * columns) return false;
  std::vector<double> values(x.values.size());
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < columns; ++c)
      values[static_cast<std::size_t>(r * columns + c)] =
          x.values[static_cast<std::size_t>(c * rows + r)];
  x = {shape, std::move(values)};
  return true;
}

/// The first or the last rows; false where there are not as many.
bool take_rows(Numbered& x, Index rows, bool first) {
  if (x.shape.empty() || x.shape[0] < rows) return false;
  const Index width = volume(x.shape) / x.shape[0];
  const auto from = x.values.begin() + (first ? 0 : (x.shape[0] - rows) * width);
  x.values = std::vector<double>(from, from + rows * width);
  x.shape[0] = rows;
  return true;
}

}  // namespace

struct ParameterMap::Piece {
  Numbers numbers;
  Numbered content;
};

ParameterMap ParameterMap::open(const std::string& what) {
  const MapText map = open_map(what, built_in_parameter_names);
  return parse(map.text, map.source);
}

ParameterMap::Adapter ParameterMap::adapter_named(const std::string& word) {
  using Kind = Adapter::Kind;
  const std::pair<const char*, Kind> plain[] = {
      {"kernel", Kind::kernel}, {"first-rows", Kind::first_rows}, {"last-rows", Kind::last_rows}};
  for (const auto& [name, kind] : plain)
    if (word == name) return {kind};
  for (const auto& [name, kind] : {std::pair("layers(", Kind::layers), {"experts(", Kind::experts}})
    if (word.starts_with(name) && word.ends_with(")")) {
      const std::string axis = word.substr(std::string(name).size());
      if (axis.size() == 2 && axis[0] >= '0' && axis[0] <= '9')
        return {kind, static_cast<std::size_t>(axis[0] - '0')};
    }
  throw Error("there is no adapter \"" + word +
              "\" of parameters; there are layers(AXIS), experts(AXIS), kernel, first-rows and "
              "last-rows");
}

ParameterMap ParameterMap::parse(const std::string& text, const std::string& source) {
  ParameterMap map;
  map.source_ = source;
  for_each_line(text, source, [&](const MapLine& line) {
    Line parsed{line.number, line.pattern, line.name, {}};
    for (const std::string& word : line.adapters) parsed.adapters.push_back(adapter_named(word));
    const auto told = [&](const char* placeholder, Adapter::Kind kind) {
      const auto along = std::count_if(parsed.adapters.begin(), parsed.adapters.end(),
                                       [&](const Adapter& a) { return a.kind == kind; });
      const bool once = (line.pattern.find(placeholder) != std::string::npos) + along == 1;
      return once ||
             (along == 0 &&
              line.name.find(
                  std::string(placeholder).substr(0, std::string(placeholder).size() - 1)) ==
                  std::string::npos);
    };
    require(told("{layer}", Adapter::Kind::layers),
            "\"" + line.name + "\" needs its layer from the pattern or from layers(AXIS)");
    require(told("{expert}", Adapter::Kind::experts),
            "\"" + line.name + "\" needs its expert from the pattern or from experts(AXIS)");
    map.lines_.push_back(std::move(parsed));
  });
  return map;
}

/// One piece for every layer and expert along an axis.
std::vector<ParameterMap::Piece> ParameterMap::split(Piece whole,
                                                     const std::vector<Adapter>& adapters) {
  std::vector<Piece> pieces = {std::move(whole)};
  for (const Adapter& a : adapters) {
    if (a.kind != Adapter::Kind::layers && a.kind != Adapter::Kind::experts) continue;
    std::vector<Piece> finer;
    for (const Piece& piece : pieces) {
      require(a.axis < piece.content.shape.size(),
              fmt::format("there is no axis {} in {}", a.axis, shape_text(piece.content.shape)));
      for (Index i = 0; i < piece.content.shape[a.axis]; ++i) {
        finer.push_back({piece.numbers, slice(piece.content, a.axis, i)});
        Numbers& numbers = finer.back().numbers;
        (a.kind == Adapter::Kind::layers ? numbers.layer : numbers.expert) = i;
      }
    }
    pieces = std::move(finer);
  }
  return pieces;
}

void ParameterMap::adapt(Piece& piece, const std::vector<Adapter>& adapters,
                         const std::vector<Index>& shape) {
  for (const Adapter& a : adapters) {
    const std::vector<Index> found = piece.content.shape;
    const bool fits = a.kind == Adapter::Kind::kernel ? transpose_kernel(piece.content, shape)
                      : a.kind == Adapter::Kind::first_rows || a.kind == Adapter::Kind::last_rows
                          ? take_rows(piece.content, shape[0], a.kind == Adapter::Kind::first_rows)
                          : true;
    require(fits, fmt::format("{} does not hold a parameter of shape {}", shape_text(found),
                              shape_text(shape)));
  }
  require(piece.content.shape == shape,
          fmt::format("its shape is {}, expected {}", shape_text(piece.content.shape),
                      shape_text(shape)));
}

std::map<std::string, std::vector<double>> ParameterMap::parts_of(const std::string& name,
                                                                  const Numbered& stored,
                                                                  const Config& config,
                                                                  const Shapes& shapes) const {
  std::string slashed = name;
  std::replace(slashed.begin(), slashed.end(), '-', '/');
  std::map<std::string, std::vector<double>> parts;
  std::size_t taken = 0;
  for (const Line& line : lines_) {
    std::optional<Numbers> numbers = match(line.pattern, name);
    if (!numbers) numbers = match(line.pattern, slashed);
    if (!numbers) continue;
    try {
      for (Piece& piece : split({*numbers, stored}, line.adapters)) {
        const std::string parameter = with_numbers(line.name, piece.numbers, config);
        const auto shape = shapes.find(parameter);
        require(shape != shapes.end(), "the model has no parameter " + parameter);
        adapt(piece, line.adapters, shape->second);
        taken += piece.content.values.size();
        require(parts.emplace(parameter, std::move(piece.content.values)).second,
                "two lines take " + parameter + " from it");
      }
    } catch (const Error& e) {
      throw Error(fmt::format("{} of shape {} cannot be read by {}:{}: {}", name,
                              shape_text(stored.shape), source_, line.number, e.what()));
    }
  }
  require(parts.empty() || taken == stored.values.size(),
          fmt::format("{} of shape {} has {} numbers, and {} takes {} of them", name,
                      shape_text(stored.shape), stored.values.size(), source_, taken));
  return parts;
}

}  // namespace dsa::verify
