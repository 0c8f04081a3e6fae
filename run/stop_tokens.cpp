#include "run/stop_tokens.hpp"

#include <limits>

#include "core/keys.hpp"

namespace dsa::run {
namespace {

/// `eos_token_id` of one file, an id or a list of them; none if the file or the key is not there.
std::vector<Token> stop_tokens(const std::filesystem::path& file) {
  if (!std::filesystem::exists(file)) return {};
  const Json config = read_json(file);
  const Keys keys(config, file.string());
  const Json* eos = keys.find("eos_token_id");
  if (eos == nullptr) return {};
  std::vector<Token> tokens;
  for (const Json& id : eos->is_array() ? *eos : Json::array({*eos})) {
    if (!id.is_number_unsigned() || id > std::numeric_limits<Token>::max())
      keys.fail_expected("eos_token_id", "a token id or a list of them");
    tokens.push_back(id.get<Token>());
  }
  return tokens;
}

}  // namespace

std::vector<Token> stop_tokens_of(const std::filesystem::path& checkpoint, text::ChatFormat chat,
                                  const text::Tokenizer& tokenizer) {
  auto tokens = stop_tokens(checkpoint / "generation_config.json");
  if (tokens.empty()) tokens = stop_tokens(checkpoint / "config.json");
  if (chat != text::ChatFormat::none) tokens.push_back(text::end_of_answer(chat, tokenizer));
  return tokens;
}

}  // namespace dsa::run
