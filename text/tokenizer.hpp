// text/tokenizer.hpp — tokenizer.json of a byte-level BPE: text to token ids and back.
#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/added_tokens.hpp"
#include "text/bpe.hpp"
#include "text/pretokenizer.hpp"

namespace dsa::text {

/// The tokenizers of DeepSeek-V3/V3.2, GLM and their like, with HuggingFace's ids:
///   normalizer      null, NFC, a Sequence of these
///   pre_tokenizer   ByteLevel, or a Sequence of Split, Digits and, at its end, ByteLevel
///   model           BPE in ByteLevel's alphabet, without dropout and affixes
///   post_processor  null, ByteLevel, TemplateProcessing, a Sequence of these
///   decoder         ByteLevel
/// Anything else is an Error that names the key and what is supported. truncation and padding are
/// not applied. One Tokenizer serves one thread at a time.
class Tokenizer {
 public:
  /// DIR/tokenizer.json.
  static Tokenizer read(const std::filesystem::path& dir);
  /// `what` begins every sentence, e.g. "DIR/tokenizer.json".
  Tokenizer(const Json& tokenizer, const std::string& what);

  /// An Error names the offset of a byte that is not UTF-8. `with_template`: also the tokens that
  /// the post_processor puts around a text.
  std::vector<Token> encode(std::string_view text, bool with_template) const;

  /// An Error names an id out of range. Ids in range without a token (gaps) stand for nothing.
  std::string decode(std::span<const Token> tokens, bool skip_special) const;

  /// The bytes of one token, perhaps a part of a character: see Utf8Stream. Empty for a gap.
  const std::string& bytes_of(Token) const;
  bool is_special(Token) const;
  /// The added token or word of the vocabulary spelled so.
  std::optional<Token> find(const std::string& spelling) const;
  /// The largest id and one.
  Index size() const { return static_cast<Index>(entries_.size()); }

 private:
  struct Entry {
    std::string bytes;
    bool special = false;
  };

  const Entry& entry_of(Token) const;
  void read_normalizer(const Keys& normalizer);
  void read_post_processor(const Keys& processor);
  void read_template(const Keys& processor);
  void read_added_tokens(const Keys& tokenizer);
  void encode_words(std::string_view text, std::vector<Token>& tokens) const;

  std::string what_;
  bool nfc_ = false;
  PreTokenizer pre_tokenizer_;
  Bpe model_;
  AddedTokens raw_, normalized_;  // looked for before and after normalisation
  std::unordered_map<std::string, Token> added_;
  std::vector<Entry> entries_;                        // by id
  std::optional<std::vector<Token>> before_, after_;  // of TemplateProcessing
};

}  // namespace dsa::text
