// verify/names/layout.hpp — a tensor of somebody's dump, laid out as the reference has it.
//
// Elements are moved, never rounded: the dtype stays. Selections become subscripts in I32.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/config.hpp"
#include "core/recording.hpp"

namespace dsa::verify {

/// A tensor with bytes of its own.
struct OwnTensor : StoredTensor {
  std::vector<std::byte> bytes;
};

/// The tensor and the file that an adapter works on.
struct LayoutContext {
  std::string name;  // the reference's, of what the tensor becomes
  const Config& config;
  Index sequences, tokens;  // of the file: B, S
};

using Adapter = std::function<void(OwnTensor&, const LayoutContext&)>;

/// The adapter of a word in a name map, such as "rope-half" or "first(kv_lora_rank)"; docs/
/// localise.md lists them. Error: there is none of that name, or its argument is missing or
/// unknown.
Adapter adapter_named(const std::string& word);

/// A copy of `stored`, adapted, as (T, width) of the first sequence.
Trace::Entry laid_out(const StoredTensor& stored, const std::vector<Adapter>&,
                      const LayoutContext&);

}  // namespace dsa::verify
