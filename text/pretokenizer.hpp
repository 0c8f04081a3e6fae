// text/pretokenizer.hpp — cuts text into the words that BPE merges within.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/keys.hpp"
#include "text/regex.hpp"

namespace dsa::text {

/// tokenizer.json's "pre_tokenizer": ByteLevel, or a Sequence of Split, Digits and, at its end,
/// ByteLevel. Words are handed out as bytes; ByteLevel's mapping of bytes to characters is undone
/// where the vocabulary is read (text/bpe.hpp).
class PreTokenizer {
 public:
  /// `pre_tokenizer`: the object under the key. Errors begin with `what`, the file, and name what
  /// is not supported.
  PreTokenizer(const Keys& pre_tokenizer, const std::string& what);

  using Emit = std::function<void(std::string_view)>;
  /// Calls `word` with the words of UTF-8 text, in order; none is empty.
  void for_each_word(std::string_view utf8, const Emit& word) const;

 private:
  enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };
  struct Split {
    Regex pattern;
    Behavior behavior;
    bool invert;
  };
  struct Piece {
    std::size_t begin, end;
    bool matches;
  };

  void add(const Keys& step, const std::string& what, bool last);
  void add_split(const Keys& step, const std::string& what);
  static std::vector<Piece> pieces_of(std::string_view text, const Split&);
  static void merge(std::vector<Piece>&, Behavior);
  void apply(std::size_t step, std::string_view text, const Emit& word) const;

  std::vector<Split> splits_;
  bool add_prefix_space_ = false;
  std::optional<Split> byte_level_;  // GPT-2's expression, where use_regex asks for it
};

}  // namespace dsa::text
