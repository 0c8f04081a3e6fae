#include "verify/commands/golden_text.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "core/check.hpp"
#include "text/same_text.hpp"

namespace dsa::verify {
namespace {

constexpr std::size_t most_shown = 3;

std::vector<Token> without_padding(const Sequence& sequence) {
  std::vector<Token> tokens;
  for (std::size_t t = 0; t < sequence.tokens.size(); ++t)
    if (sequence.documents[t] >= 0) tokens.push_back(sequence.tokens[t]);
  return tokens;
}

std::vector<std::string> compared(const text::Tokenizer& tokenizer, const Recording& golden) {
  std::vector<std::string> remarks;
  std::size_t told = 0, different = 0;
  for (std::size_t b = 0; b < golden.texts.size(); ++b) {
    if (golden.texts[b].empty()) continue;
    ++told;
    const std::string how = text::difference_from_text(tokenizer, golden.texts[b],
                                                       without_padding(golden.sequences[b]));
    if (how.empty() || ++different > most_shown) continue;
    remarks.push_back(
        fmt::format("the tokens of sequence {} are not those of its text: {}", b, how));
  }
  if (different > most_shown)
    remarks.push_back(fmt::format("nor are those of {} sequences more", different - most_shown));
  if (different == 0)
    remarks.push_back(fmt::format("the tokens of {} are those of {} by the checkpoint's tokenizer",
                                  told == 1 ? "the sequence" : fmt::format("{} sequences", told),
                                  told == 1 ? "its text" : "their texts"));
  return remarks;
}

}  // namespace

std::vector<std::string> remarks_on_text(const std::filesystem::path& checkpoint,
                                         const Recording& golden) {
  const bool has_text = std::any_of(golden.texts.begin(), golden.texts.end(),
                                    [](const std::string& text) { return !text.empty(); });
  if (!has_text || !std::filesystem::exists(checkpoint / "tokenizer.json")) return {};
  try {
    return compared(text::Tokenizer::read(checkpoint), golden);
  } catch (const Error& e) {
    return {std::string("the tokens were not compared with the text: ") + e.what()};
  }
}

}  // namespace dsa::verify
