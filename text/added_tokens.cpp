#include "text/added_tokens.hpp"

#include <algorithm>

namespace dsa::text {
namespace {

bool continues(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

/// The character that ends before byte `at`; empty at the start of the text.
std::string_view before(std::string_view utf8, std::size_t at) {
  std::size_t begin = at;
  while (begin > 0 && continues(utf8[--begin])) continue;
  return utf8.substr(begin, at - begin);
}

/// The character that begins at byte `at`; empty at the end of the text.
std::string_view after(std::string_view utf8, std::size_t at) {
  std::size_t end = at;
  while (end < utf8.size() && (end == at || continues(utf8[end]))) ++end;
  return utf8.substr(at, end - at);
}

bool is(const Regex& set, std::string_view character) {
  return !character.empty() && set.find(character, 0).has_value();
}

}  // namespace

void AddedTokens::add(AddedToken token) {
  auto& bucket = by_first_byte_[static_cast<unsigned char>(token.content[0])];
  const auto shorter = std::find_if(
      bucket.begin(), bucket.end(),
      [&token](const AddedToken& other) { return other.content.size() < token.content.size(); });
  bucket.insert(shorter, std::move(token));
}

const AddedToken* AddedTokens::find(std::string_view utf8, std::size_t at) const {
  for (const AddedToken& token : by_first_byte_[static_cast<unsigned char>(utf8[at])])
    if (utf8.substr(at).starts_with(token.content)) return &token;
  return nullptr;
}

bool AddedTokens::is_apart(std::string_view utf8, std::size_t begin, std::size_t end) const {
  return !is(word_, before(utf8, begin)) && !is(word_, after(utf8, end));
}

std::vector<Section> AddedTokens::sections_of(std::string_view utf8) const {
  std::vector<Section> sections;
  std::size_t done = 0;
  for (std::size_t at = 0; at < utf8.size();) {
    const AddedToken* token = find(utf8, at);
    if (token == nullptr) {
      ++at;
      continue;
    }
    std::size_t begin = at, end = at + token->content.size();
    at = end;
    if (token->single_word && !is_apart(utf8, begin, end)) continue;
    if (token->lstrip)
      while (begin > done && is(space_, before(utf8, begin))) begin -= before(utf8, begin).size();
    if (token->rstrip)
      while (is(space_, after(utf8, end))) end += after(utf8, end).size();
    if (begin > done) sections.push_back({std::nullopt, utf8.substr(done, begin - done)});
    sections.push_back({token->id, utf8.substr(begin, end - begin)});
    done = end;
  }
  if (done < utf8.size()) sections.push_back({std::nullopt, utf8.substr(done)});
  return sections;
}

}  // namespace dsa::text
