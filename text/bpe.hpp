// text/bpe.hpp — byte pair encoding over the 256 bytes.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/keys.hpp"
#include "core/recording.hpp"

namespace dsa::text {

/// tokenizer.json's "model" of type BPE whose vocabulary is written in ByteLevel's alphabet:
/// printable Latin-1 stands for itself, the other bytes for U+0100 and up (GPT-2's encoder.py).
class Bpe {
 public:
  /// `model`: the object under the key. Errors name what is malformed or not supported.
  explicit Bpe(const Keys& model);

  /// Appends the tokens of one word (any bytes). An Error names a byte without a token.
  void encode(std::string_view word, std::vector<Token>& tokens) const;

  /// The token spelled so in tokenizer.json, in ByteLevel's alphabet.
  std::optional<Token> find(const std::string& spelling) const;
  const std::unordered_map<std::string, Token>& vocabulary() const { return vocabulary_; }

 private:
  struct Merge {
    std::uint32_t rank;
    Token token;
  };
  struct Symbol {
    Token token;
    std::ptrdiff_t previous, next;  // places in the word; -1: none
    bool gone = false;              // merged into the symbol before it
  };

  void read_vocabulary(const Keys& model);
  void read_merges(const Keys& model);
  const Merge* merge_of(Token left, Token right) const;
  std::vector<Symbol> symbols_of(std::string_view word) const;
  void merge_all(std::vector<Symbol>&) const;

  std::unordered_map<std::string, Token> vocabulary_;
  std::unordered_map<std::uint64_t, Merge> merges_;  // by left << 32 | right
  std::array<std::optional<Token>, 256> of_byte_;
  std::array<std::optional<std::vector<Token>>, 256> fallback_;  // <0x..> tokens; byte_fallback
  std::optional<Token> unknown_;
  bool fuse_unknown_ = false, ignore_merges_ = false;
};

/// Bytes in ByteLevel's alphabet, as UTF-8.
std::string spelled(std::string_view bytes);

/// The bytes that a spelling stands for; a spelling with other characters stands for itself.
std::string unspelled(const std::string& spelling);

}  // namespace dsa::text
