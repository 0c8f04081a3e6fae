// verify/names/name_map.hpp — whose tensor is what: from the names of another framework to ours.
//
// A name map is a text file, a line a tensor (verify/names/pattern.hpp):
//   PATTERN -> NAME              decoder.layers.{layer}.mlp -> model.layers.{layer}.mlp
//   PATTERN -> NAME | ADAPTERS   ... | sequence-first, rope-half     (verify/names/layout.hpp)
// Those of verify/names/ are part of the program. docs/localise.md.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/config.hpp"
#include "core/recording.hpp"
#include "verify/names/layout.hpp"

namespace dsa::verify {

class NameMap {
 public:
  /// `what`: a file, or the name of one of ours, such as "megatron". Error: neither.
  static NameMap open(const std::string& what);

  /// `source` begins every Error: "source:12: ...".
  static NameMap parse(const std::string& text, const std::string& source);

  /// Traces under the reference's names and in its layout. What no pattern fits keeps its name.
  /// lm_head becomes the logits where the file has none. Error: two tensors become the same.
  void apply(Recording&, const Config&) const;

 private:
  struct Line {
    int number;
    std::string pattern, name;
    std::vector<Adapter> adapters;
  };
  std::string source_;
  std::vector<Line> lines_;
};

/// read_recording, through a name map unless `names` is empty.
Recording read_named(const std::filesystem::path&, const std::string& dtype, const Config&,
                     const std::string& names);

}  // namespace dsa::verify
