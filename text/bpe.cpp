#include "text/bpe.hpp"

#include <fmt/format.h>

#include <queue>

#include "core/check.hpp"
#include "text/utf8.hpp"

namespace dsa::text {
namespace {

constexpr Index most_tokens = Index{1} << 21;

bool stands_for_itself(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

/// The alphabet: for each byte its character.
std::array<char32_t, 256> make_alphabet() {
  std::array<char32_t, 256> alphabet{};
  char32_t next = 0x100;
  for (unsigned byte = 0; byte < 256; ++byte)
    alphabet[byte] = stands_for_itself(byte) ? char32_t{byte} : next++;
  return alphabet;
}

const std::array<char32_t, 256>& alphabet() {
  static const std::array<char32_t, 256> characters = make_alphabet();
  return characters;
}

constexpr char32_t end_of_alphabet = 0x144;

/// By character of the alphabet, the byte it stands for; -1: none.
const std::array<int, end_of_alphabet>& bytes_of_alphabet() {
  static const auto bytes = [] {
    std::array<int, end_of_alphabet> of_character;
    of_character.fill(-1);
    for (unsigned byte = 0; byte < 256; ++byte)
      of_character[alphabet()[byte]] = static_cast<int>(byte);
    return of_character;
  }();
  return bytes;
}

std::uint64_t pair_of(Token left, Token right) {
  return static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint64_t>(right);
}

/// "a b", or ["a", "b"].
std::pair<std::string, std::string> halves_of(const Json& merge, const Keys& model,
                                              const std::string& key) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string())
    return {merge[0].get<std::string>(), merge[1].get<std::string>()};
  const std::string text = merge.is_string() ? merge.get<std::string>() : "";
  const auto space = text.find(' ');
  if (space == text.npos || text.find(' ', space + 1) != text.npos)
    model.fail(key, "is " + shown(merge) + ", expected two tokens: \"a b\" or [\"a\", \"b\"]");
  return {text.substr(0, space), text.substr(space + 1)};
}

}  // namespace

std::string spelled(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) {
    const char32_t character = alphabet()[static_cast<unsigned char>(c)];
    if (character < 0x80) {
      text += static_cast<char>(character);
    } else {
      text += static_cast<char>(0xC0 | character >> 6);
      text += static_cast<char>(0x80 | (character & 0x3F));
    }
  }
  return text;
}

std::string unspelled(const std::string& spelling) {
  std::string bytes;
  for (const char32_t character : code_points(spelling)) {
    const int byte = character < end_of_alphabet ? bytes_of_alphabet()[character] : -1;
    if (byte < 0) return spelling;
    bytes += static_cast<char>(byte);
  }
  return bytes;
}

Bpe::Bpe(const Keys& model) {
  model.text_or("type", {"BPE"}, "BPE");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
    model.text_or(key, {""}, "");
  model.number_or("dropout", 0, 0, 0);
  ignore_merges_ = model.boolean_or("ignore_merges", false);
  fuse_unknown_ = model.boolean_or("fuse_unk", false);
  read_vocabulary(model);
  read_merges(model);
  if (const Json* unknown = model.find("unk_token")) {
    unknown_ = unknown->is_string() ? find(unknown->get<std::string>()) : std::nullopt;
    if (!unknown_) model.fail_expected("unk_token", "null or a token of model.vocab");
  }
  const bool fall_back = model.boolean_or("byte_fallback", false);
  for (unsigned byte = 0; byte < 256; ++byte) {
    const std::string spelling = spelled(std::string(1, static_cast<char>(byte)));
    of_byte_[byte] = find(spelling);
    if (!fall_back || of_byte_[byte]) continue;
    std::vector<Token> tokens;
    for (const char c : spelling)
      if (const auto token = find(fmt::format("<0x{:02X}>", static_cast<unsigned char>(c))))
        tokens.push_back(*token);
    if (tokens.size() == spelling.size()) fallback_[byte] = std::move(tokens);
  }
}

void Bpe::read_vocabulary(const Keys& model) {
  const Keys vocab = model.object("vocab");
  std::unordered_map<Token, const std::string*> names;
  for (const auto& [spelling, id] : model.find("vocab")->items()) {
    const Token token = vocab.integer(spelling, 0, most_tokens);
    const auto entry = vocabulary_.emplace(spelling, token).first;
    const auto [other, is_new] = names.emplace(token, &entry->first);
    if (!is_new) vocab.fail(spelling, "has the id of " + in_quotes(*other->second));
  }
}

void Bpe::read_merges(const Keys& model) {
  const Json* merges = model.find("merges");
  if (merges == nullptr || !merges->is_array()) model.fail_expected("merges", "a list");
  for (std::size_t rank = 0; rank < merges->size(); ++rank) {
    const std::string key = "merges[" + std::to_string(rank) + "]";
    const auto [left, right] = halves_of((*merges)[rank], model, key);
    const auto a = find(left), b = find(right), both = find(left + right);
    if (!a || !b || !both)
      model.fail(key, "is " + shown((*merges)[rank]) + ", but model.vocab lacks " +
                          in_quotes(!a   ? left
                                    : !b ? right
                                         : left + right));
    merges_[pair_of(*a, *b)] = {static_cast<std::uint32_t>(rank), *both};
  }
}

std::optional<Token> Bpe::find(const std::string& spelling) const {
  const auto found = vocabulary_.find(spelling);
  return found == vocabulary_.end() ? std::nullopt : std::optional(found->second);
}

const Bpe::Merge* Bpe::merge_of(Token left, Token right) const {
  const auto found = merges_.find(pair_of(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

/// One symbol a byte. As in HuggingFace, unknown bytes wait for the next known one, which shows
/// where fallback tokens lie between.
std::vector<Bpe::Symbol> Bpe::symbols_of(std::string_view word) const {
  std::vector<Symbol> symbols;
  const auto add = [&symbols](Token token) {
    const auto at = static_cast<std::ptrdiff_t>(symbols.size());
    symbols.push_back({token, at - 1, at + 1});
  };
  bool waiting = false;
  for (const char c : word) {
    const auto byte = static_cast<unsigned char>(c);
    if (of_byte_[byte]) {
      if (waiting) add(*unknown_);
      waiting = false;
      add(*of_byte_[byte]);
    } else if (fallback_[byte]) {
      for (const Token token : *fallback_[byte]) add(token);
    } else {
      require(unknown_.has_value(),
              fmt::format("tokenizer.json has no token for the byte 0x{:02X}, "
                          "nor an unk_token; the text cannot be encoded",
                          byte));
      if (waiting && !fuse_unknown_) add(*unknown_);
      waiting = true;
    }
  }
  if (waiting) add(*unknown_);
  if (!symbols.empty()) symbols.back().next = -1;
  return symbols;
}

/// Applies the merge of lowest rank, the leftmost among equals, until none applies. O(n log n).
void Bpe::merge_all(std::vector<Symbol>& symbols) const {
  struct Candidate {
    std::uint32_t rank;
    std::ptrdiff_t left;
    Token token;
    bool operator>(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : left > other.left;
    }
  };
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto at = [&symbols](std::ptrdiff_t i) -> Symbol& {
    return symbols[static_cast<std::size_t>(i)];
  };
  const auto consider = [&](std::ptrdiff_t left) {
    if (left < 0 || at(left).next < 0) return;
    if (const Merge* merge = merge_of(at(left).token, at(at(left).next).token))
      queue.push({merge->rank, left, merge->token});
  };
  for (std::size_t i = 0; i < symbols.size(); ++i) consider(static_cast<std::ptrdiff_t>(i));
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = at(best.left);
    if (left.gone || left.next < 0) continue;
    Symbol& right = at(left.next);
    const Merge* merge = merge_of(left.token, right.token);
    if (merge == nullptr || merge->token != best.token) continue;  // overtaken by another merge
    left.token = best.token;
    left.next = right.next;
    right.gone = true;
    if (left.next >= 0) at(left.next).previous = best.left;
    consider(left.previous);
    consider(best.left);
  }
}

void Bpe::encode(std::string_view word, std::vector<Token>& tokens) const {
  if (ignore_merges_)
    if (const auto whole = find(spelled(word))) return tokens.push_back(*whole);
  std::vector<Symbol> symbols = symbols_of(word);
  merge_all(symbols);
  for (const Symbol& symbol : symbols)
    if (!symbol.gone) tokens.push_back(symbol.token);
}

}  // namespace dsa::text
