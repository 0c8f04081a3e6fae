#include "text/pretokenizer.hpp"

#include <algorithm>

#include "core/check.hpp"

namespace dsa::text {
namespace {

constexpr std::string_view gpt2_words =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

}  // namespace

PreTokenizer::PreTokenizer(const Keys& pre_tokenizer, const std::string& what) {
  const std::string key = what + ": pre_tokenizer";
  const Json* type = pre_tokenizer.find("type");
  require(
      type == nullptr || *type != "Metaspace",
      what +
          ": \"pre_tokenizer.type\" is \"Metaspace\", expected \"Sequence\" or \"ByteLevel\": "
          "transformers 5 saves "
          "DeepSeek's tokenizer so, and loses the spaces (huggingface/transformers#45488); take "
          "tokenizer.json of the release");
  if (pre_tokenizer.text("type", {"Sequence", "ByteLevel"}) == "ByteLevel") {
    add(pre_tokenizer, key, true);
    return;
  }
  const Json* steps = pre_tokenizer.find("pretokenizers");
  if (steps == nullptr || !steps->is_array() || steps->empty())
    pre_tokenizer.fail_expected("pretokenizers", "a list of Split, Digits and, last, ByteLevel");
  for (std::size_t i = 0; i < steps->size(); ++i)
    add(pre_tokenizer.element("pretokenizers", i),
        key + ".pretokenizers[" + std::to_string(i) + "]", i + 1 == steps->size());
}

void PreTokenizer::add(const Keys& step, const std::string& what, bool last) {
  if (last) {
    step.text("type", {"ByteLevel"});
    add_prefix_space_ = step.boolean_or("add_prefix_space", true);
    if (step.boolean_or("use_regex", true))
      byte_level_ = {Regex(gpt2_words, what), Behavior::isolated, false};
    return;
  }
  if (step.text("type", {"Split", "Digits"}) == "Split") return add_split(step, what);
  const bool individual = step.boolean_or("individual_digits", false);
  splits_.push_back(
      {Regex("\\p{N}", what), individual ? Behavior::isolated : Behavior::contiguous, false});
}

void PreTokenizer::add_split(const Keys& step, const std::string& what) {
  const Keys pattern = step.object("pattern");
  const char* kind = pattern.has("String") ? "String" : "Regex";
  const Json* text = pattern.find(kind);
  if (text == nullptr || !text->is_string() || text->get_ref<const std::string&>().empty())
    pattern.fail_expected(kind, "a text that is not empty");
  const auto& expression = text->get_ref<const std::string&>();
  const std::string behavior = step.text(
      "behavior", {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"});
  splits_.push_back(
      {kind == std::string("String") ? Regex::literal(expression, what) : Regex(expression, what),
       behavior == "Removed"              ? Behavior::removed
       : behavior == "Isolated"           ? Behavior::isolated
       : behavior == "MergedWithPrevious" ? Behavior::merged_with_previous
       : behavior == "MergedWithNext"     ? Behavior::merged_with_next
                                          : Behavior::contiguous,
       step.boolean_or("invert", false)});
}

/// Matches, and what lies between them. An empty match cuts, unless it follows the last match: as
/// the Rust bindings of Oniguruma iterate.
std::vector<PreTokenizer::Piece> PreTokenizer::pieces_of(std::string_view text,
                                                         const Split& split) {
  std::vector<Piece> pieces;
  std::size_t done = 0, from = 0;
  while (from <= text.size()) {
    const auto match = split.pattern.find(text, from);
    if (!match) break;
    if (match->begin == match->end && match->end == done && !pieces.empty()) {
      ++from;
      while (from < text.size() && (static_cast<unsigned char>(text[from]) & 0xC0) == 0x80) ++from;
      continue;
    }
    if (match->begin > done) pieces.push_back({done, match->begin, split.invert});
    pieces.push_back({match->begin, match->end, !split.invert});
    done = from = match->end;
  }
  if (done < text.size()) pieces.push_back({done, text.size(), split.invert});
  merge(pieces, split.behavior);
  std::erase_if(pieces, [](const Piece& piece) { return piece.begin == piece.end; });
  return pieces;
}

/// `matches` is what the behaviour treats as the delimiter.
void PreTokenizer::merge(std::vector<Piece>& pieces, Behavior behavior) {
  if (behavior == Behavior::isolated) return;
  if (behavior == Behavior::removed) {
    std::erase_if(pieces, [](const Piece& piece) { return piece.matches; });
    return;
  }
  const bool backwards = behavior == Behavior::merged_with_next;
  if (backwards) std::reverse(pieces.begin(), pieces.end());
  std::vector<Piece> merged;
  bool previous = false;
  for (const Piece& piece : pieces) {
    const bool joins =
        behavior == Behavior::contiguous ? piece.matches == previous : piece.matches && !previous;
    previous = piece.matches;
    if (!joins || merged.empty())
      merged.push_back(piece);
    else if (backwards)
      merged.back().begin = piece.begin;
    else
      merged.back().end = piece.end;
  }
  if (backwards) std::reverse(merged.begin(), merged.end());
  pieces = std::move(merged);
}

void PreTokenizer::apply(std::size_t step, std::string_view text, const Emit& word) const {
  if (step < splits_.size()) {
    for (const Piece& piece : pieces_of(text, splits_[step]))
      apply(step + 1, text.substr(piece.begin, piece.end - piece.begin), word);
    return;
  }
  std::string prefixed;
  if (add_prefix_space_ && !text.starts_with(' ')) {
    prefixed = " " + std::string(text);
    text = prefixed;
  }
  if (!byte_level_) return word(text);
  for (const Piece& piece : pieces_of(text, *byte_level_))
    word(text.substr(piece.begin, piece.end - piece.begin));
}

void PreTokenizer::for_each_word(std::string_view utf8, const Emit& word) const {
  if (!utf8.empty()) apply(0, utf8, word);
}

}  // namespace dsa::text
