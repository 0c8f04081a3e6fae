// optimized/train/pipeline/keys.hpp — every key of a training configuration, once.
//
// A key is "section.name"; the keys of the section "stage" exist once a stage. What a key may hold
// is data here: reading, overriding, printing and comparing configurations know no key by name.
#pragma once

#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.hpp"

namespace dsa::train {

struct Key {
  /// word: one of `words`. A list may be given as its only element.
  enum class Kind { integer, number, boolean, text, word, texts, numbers, integers };

  std::string name;  // "stage.lr"
  Kind kind = Kind::text;
  Json fallback;  // an object: by the stage's kind, "" for the others
  std::string about;
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  std::vector<std::string> words = {};
  bool changes_numbers = true;  // false: a run may be resumed with another value
};

const std::vector<Key>& all_keys();
const Key* find_key(std::string_view name);

/// The key that is spelled most like it, for the sentence about an unknown one.
std::string nearest_key(std::string_view name);

/// "integer", "number in [0, 1]", "one of warmup or sparse".
std::string expected_of(const Key&);

/// The value if it is one of the key's (an integer where a number is expected becomes one); an
/// Error that begins with `where`: "needle.toml:12: stage.lr is NaN, expected a number ...".
Json checked(const Key&, const Json& value, const std::string& where);

/// The fallback, for a key of a stage that of the stage's kind.
Json fallback_of(const Key&, const std::string& stage_kind);

}  // namespace dsa::train
