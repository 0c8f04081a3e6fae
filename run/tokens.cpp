#include "run/tokens.hpp"

#include <algorithm>
#include <sstream>

#include "core/recording_jsonl.hpp"

namespace dsa::run {
namespace {

/// Adds what one JSON value holds: a sequence, or several.
void add_sequences(const Json& value, const std::string& what,
                   std::vector<std::vector<Token>>& sequences) {
  if (value.is_object()) {
    require(value.contains("tokens"), what + " has no tokens, expected a list of token ids");
    sequences.push_back(token_ids(value["tokens"], what));
  } else if (value.is_array() && std::any_of(value.begin(), value.end(), [](const Json& entry) {
               return entry.is_structured();
             })) {
    for (std::size_t i = 0; i < value.size(); ++i) {
      const std::string which = what + ", sequence " + std::to_string(i);
      if (value[i].is_object())
        add_sequences(value[i], which, sequences);
      else
        sequences.push_back(token_ids(value[i], which));
    }
  } else {
    sequences.push_back(token_ids(value, what));
  }
}

std::vector<std::vector<Token>> parse_sequences(const std::string& text, const std::string& what) {
  std::vector<std::vector<Token>> sequences;
  if (Json::accept(text)) {
    add_sequences(parse_json(text, what), what, sequences);
    return sequences;
  }
  std::istringstream lines(text);
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string which = what + ", line " + std::to_string(number);
    add_sequences(parse_json(line, which), which, sequences);
  }
  return sequences;
}

}  // namespace

std::vector<Sequence> read_tokens(const std::filesystem::path& path, Index vocab_size) {
  if (!is_json(MappedFile::open(path)->bytes())) {
    const Recording golden = read_recording(path, "", 0);
    for (std::size_t b = 0; b < golden.sequences.size(); ++b)
      check_tokens(golden.sequences[b].tokens, vocab_size,
                   path.string() + ": sequence " + std::to_string(b));
    return golden.sequences;
  }
  std::vector<Sequence> sequences;
  for (std::vector<Token>& tokens : parse_sequences(read_text(path), path.string())) {
    check_tokens(tokens, vocab_size,
                 path.string() + ": sequence " + std::to_string(sequences.size()));
    sequences.push_back(plain_sequence(std::move(tokens)));
  }
  return sequences;
}

}  // namespace dsa::run
