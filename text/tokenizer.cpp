#include "text/tokenizer.hpp"

#include "core/check.hpp"
#include "text/utf8.hpp"

namespace dsa::text {
namespace {

constexpr Index highest_id = Index{1} << 21;

/// The entries of a list of objects under `key`.
std::vector<Keys> elements_of(const Keys& object, std::string_view key) {
  const Json* list = object.find(key);
  if (list == nullptr || !list->is_array()) object.fail_expected(key, "a list");
  std::vector<Keys> elements;
  for (std::size_t i = 0; i < list->size(); ++i) elements.push_back(object.element(key, i));
  return elements;
}

std::string text_of(const Keys& object, std::string_view key) {
  const Json* text = object.find(key);
  if (text == nullptr || !text->is_string()) object.fail_expected(key, "a text");
  return text->get<std::string>();
}

}  // namespace

Tokenizer Tokenizer::read(const std::filesystem::path& dir) {
  const auto file = dir / "tokenizer.json";
  return {read_json(file), file.string()};
}

Tokenizer::Tokenizer(const Json& tokenizer, const std::string& what)
    : what_(what),
      pre_tokenizer_(Keys(tokenizer, what).object("pre_tokenizer"), what),
      model_(Keys(tokenizer, what).object("model")) {
  const Keys keys(tokenizer, what);
  keys.object("decoder").text("type", {"ByteLevel"});
  if (keys.has("normalizer")) read_normalizer(keys.object("normalizer"));
  const auto put = [this](Token id, Entry entry) {
    if (id >= size()) entries_.resize(static_cast<std::size_t>(id) + 1);
    entries_[static_cast<std::size_t>(id)] = std::move(entry);
  };
  for (const auto& [spelling, id] : model_.vocabulary()) put(id, {unspelled(spelling), false});
  if (keys.has("added_tokens")) read_added_tokens(keys);
  if (keys.has("post_processor")) read_post_processor(keys.object("post_processor"));
}

void Tokenizer::read_normalizer(const Keys& normalizer) {
  if (normalizer.text("type", {"NFC", "Sequence"}) == "NFC") {
    nfc_ = true;
    return;
  }
  for (const Keys& step : elements_of(normalizer, "normalizers")) read_normalizer(step);
}

void Tokenizer::read_added_tokens(const Keys& tokenizer) {
  for (const Keys& entry : elements_of(tokenizer, "added_tokens")) {
    AddedToken token;
    token.id = entry.integer("id", 0, highest_id);
    token.content = text_of(entry, "content");
    if (token.content.empty()) continue;
    token.special = entry.boolean_or("special", false);
    token.normalized = entry.boolean_or("normalized", !token.special);
    token.single_word = entry.boolean_or("single_word", false);
    token.lstrip = entry.boolean_or("lstrip", false);
    token.rstrip = entry.boolean_or("rstrip", false);
    const auto in_model = model_.find(token.content);
    if (in_model && *in_model != token.id)
      entry.fail("id", "is " + std::to_string(token.id) + ", but model.vocab gives " +
                           in_quotes(token.content) + " the id " + std::to_string(*in_model));
    if (token.id >= size()) entries_.resize(static_cast<std::size_t>(token.id) + 1);
    Entry& known = entries_[static_cast<std::size_t>(token.id)];
    if (!added_.emplace(token.content, token.id).second || (!in_model && !known.bytes.empty()))
      entry.fail("id", "is " + std::to_string(token.id) + " for " + in_quotes(token.content) +
                           ", but one of the two is given twice");
    if (token.normalized && nfc_) token.content = nfc(token.content);
    known = {unspelled(token.content), token.special};
    (token.normalized ? normalized_ : raw_).add(std::move(token));
  }
}

void Tokenizer::read_post_processor(const Keys& processor) {
  const std::string type = processor.text("type", {"ByteLevel", "TemplateProcessing", "Sequence"});
  if (type == "TemplateProcessing") read_template(processor);
  if (type != "Sequence") return;  // ByteLevel moves offsets, which nobody asks for here
  for (const Keys& step : elements_of(processor, "processors")) read_post_processor(step);
}

void Tokenizer::read_template(const Keys& processor) {
  if (before_) processor.fail("type", "is \"TemplateProcessing\" twice, expected one");
  before_.emplace();
  for (const Keys& part : elements_of(processor, "single")) {
    if (part.has("Sequence")) {
      if (after_) processor.fail("single", "has the text twice, expected it once");
      after_.emplace();
      continue;
    }
    const std::string name = text_of(part.object("SpecialToken"), "id");
    const Keys special = processor.object("special_tokens").object(name);
    const Json* ids = special.find("ids");
    if (ids == nullptr || !ids->is_array()) special.fail_expected("ids", "a list of token ids");
    for (const Json& id : *ids) {
      if (!id.is_number_unsigned() || id >= size())
        special.fail_expected("ids", "token ids below " + std::to_string(size()));
      (after_ ? *after_ : *before_).push_back(id.get<Token>());
    }
  }
  if (!after_)
    processor.fail_expected("single", "a list with the text, {\"Sequence\": ...}, in it");
}

void Tokenizer::encode_words(std::string_view text, std::vector<Token>& tokens) const {
  std::string composed;
  if (nfc_) text = composed = nfc(text);
  for (const Section& section : normalized_.sections_of(text)) {
    if (section.token)
      tokens.push_back(*section.token);
    else
      pre_tokenizer_.for_each_word(section.text,
                                   [&](std::string_view word) { model_.encode(word, tokens); });
  }
}

std::vector<Token> Tokenizer::encode(std::string_view text, bool with_template) const {
  require_utf8(text, "the text");
  std::vector<Token> tokens;
  if (with_template && before_) tokens = *before_;
  for (const Section& section : raw_.sections_of(text)) {
    if (section.token)
      tokens.push_back(*section.token);
    else
      encode_words(section.text, tokens);
  }
  if (with_template && after_) tokens.insert(tokens.end(), after_->begin(), after_->end());
  return tokens;
}

const Tokenizer::Entry& Tokenizer::entry_of(Token token) const {
  require(token >= 0 && token < size(), "token id " + std::to_string(token) + " is out of range; " +
                                            what_ + " has ids from 0 to " +
                                            std::to_string(size() - 1));
  return entries_[static_cast<std::size_t>(token)];
}

const std::string& Tokenizer::bytes_of(Token token) const { return entry_of(token).bytes; }

bool Tokenizer::is_special(Token token) const { return entry_of(token).special; }

std::optional<Token> Tokenizer::find(const std::string& spelling) const {
  const auto found = added_.find(spelling);
  return found == added_.end() ? model_.find(spelling) : std::optional(found->second);
}

std::string Tokenizer::decode(std::span<const Token> tokens, bool skip_special) const {
  std::string bytes;
  for (const Token token : tokens) {
    const Entry& entry = entry_of(token);
    if (!skip_special || !entry.special) bytes += entry.bytes;
  }
  Utf8Stream stream;
  const std::string text = stream.push(bytes);
  return text + stream.finish();
}

}  // namespace dsa::text
