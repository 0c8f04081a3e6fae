#include "optimized/train/commands/overrides.hpp"

#include "core/check.hpp"

namespace dsa::train {
namespace {

/// A flag begins with a hyphen and no number: -1 is a value.
bool is_flag(const std::string& word) {
  return word.size() > 1 && word[0] == '-' && (word[1] < '0' || word[1] > '9') && word[1] != '.';
}

bool is_override(const std::string& word) { return word.find('=') != word.npos; }

}  // namespace

Words words_of(const std::vector<std::string>& words) {
  Words sorted;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (is_flag(word)) {
      const std::string name = word.substr(word.find_first_not_of('-'));
      const bool has_value = !is_override(name) && i + 1 < words.size() && !is_flag(words[i + 1]) &&
                             !is_override(words[i + 1]) && !words[i + 1].ends_with(".toml");
      sorted.overrides.push_back(
          is_override(name) ? name : name + "=" + (has_value ? words[++i] : "true"));
    } else if (is_override(word)) {
      sorted.overrides.push_back(word);
    } else {
      require(sorted.config.empty(), "two configurations are named, " + sorted.config + " and " +
                                         word + "; an override is section.key=value");
      sorted.config = word;
    }
  }
  return sorted;
}

}  // namespace dsa::train
