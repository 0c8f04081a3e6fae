// verify/names/parameter_map.hpp — whose parameter is what, in files of gradients and of training.
//
// The lines are those of a name map (verify/names/pattern.hpp), of parameters: a tensor may hold
// several, along axes or one above the other. Adapters, of tensors as the adapters before left
// them:
//   layers(a), experts(a)    axis a counts layers, or experts; it goes
//   kernel                   (in, out..) of JAX becomes (out, in)
//   first-rows, last-rows    as many rows as the parameter has, from either end
// Those of verify/names/parameters/ are part of the program. docs/judging_training.md.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/config.hpp"
#include "verify/names/pattern.hpp"

namespace dsa::verify {

/// Numbers with the shape that they have in a file.
struct Numbered {
  std::vector<Index> shape;
  std::vector<double> values;
};

class ParameterMap {
 public:
  using Shapes = std::map<std::string, std::vector<Index>>;

  /// `what`: a file, or the name of one of ours, such as "maxtext". Error: neither.
  static ParameterMap open(const std::string& what);

  /// `source` begins every Error: "source:12: ...".
  static ParameterMap parse(const std::string& text, const std::string& source);

  /// The parameters that the tensor `name` holds, by our names; none: no line fits it. Dashes in
  /// `name` may be slashes in a pattern. Error: a parameter that `shapes` lacks, a shape that does
  /// not give it, numbers that no line takes.
  std::map<std::string, std::vector<double>> parts_of(const std::string& name, const Numbered&,
                                                      const Config&, const Shapes& shapes) const;

 private:
  struct Adapter {
    enum class Kind { layers, experts, kernel, first_rows, last_rows } kind;
    std::size_t axis = 0;
  };
  struct Line {
    int number;
    std::string pattern, name;
    std::vector<Adapter> adapters;
  };
  struct Piece;

  static Adapter adapter_named(const std::string& word);
  static std::vector<Piece> split(Piece, const std::vector<Adapter>&);
  static void adapt(Piece&, const std::vector<Adapter>&, const std::vector<Index>& shape);

  std::string source_;
  std::vector<Line> lines_;
};

}  // namespace dsa::verify
