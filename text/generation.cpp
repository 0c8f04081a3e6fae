#include "text/generation.hpp"

#include <algorithm>
#include <chrono>

#include "core/check.hpp"
#include "text/utf8.hpp"

namespace dsa::text {
namespace {

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace

void require_same_vocabulary(const Tokenizer& tokenizer, const Config& config) {
  require(tokenizer.size() <= config.vocab_size,
          "tokenizer.json has ids up to " + std::to_string(tokenizer.size() - 1) +
              ", but the model's vocab_size is " + std::to_string(config.vocab_size) +
              "; they do not belong together");
}

Generator::Generator(Session& session, const Tokenizer& tokenizer, GenerationOptions options)
    : session_(session), tokenizer_(tokenizer), options_(std::move(options)) {
  require_same_vocabulary(tokenizer, session.engine().config());
}

bool Generator::stops(Token token) const {
  return std::find(options_.stop.begin(), options_.stop.end(), token) != options_.stop.end();
}

/// Feeds what the model has not seen of the prompt: at least the last token, for its logits.
View<const float, 1> Generator::feed(std::span<const Token> prompt, Generated& result) {
  const auto differs = std::mismatch(prompt.begin(), prompt.end() - 1, seen_.begin(), seen_.end());
  const auto same = static_cast<std::size_t>(differs.first - prompt.begin());
  if (same < seen_.size()) session_.keep(static_cast<Index>(same));
  const auto logits = session_.append(prompt.subspan(same));
  seen_.assign(prompt.begin(), prompt.end());
  result.reused_tokens = static_cast<Index>(same);
  return logits;
}

Generated Generator::run(std::span<const Token> prompt, const Emit& emit,
                         const std::function<bool()>& interrupted) {
  const auto length = static_cast<Index>(prompt.size());
  require(length > 0, "the prompt is empty; give a text of at least one token");
  const Index longest = session_.longest();
  require(length < longest, "the prompt has " + std::to_string(length) +
                                " tokens; with what follows it the model takes " +
                                std::to_string(longest));
  Generated result;
  result.prompt_tokens = length;
  const Stopwatch prompt_watch;
  auto logits = feed(prompt, result);
  result.prompt_seconds = prompt_watch.seconds();

  const Stopwatch watch;
  Utf8Stream stream;
  const Index most = std::min(options_.max_tokens, longest - length);
  while (static_cast<Index>(result.tokens.size()) < most) {
    if (interrupted()) {
      result.end = Generated::End::interrupted;
      break;
    }
    const Token next = sample(logits, options_.sampling, drawn_++);
    if (stops(next)) {
      result.end = Generated::End::stop;
      break;
    }
    result.tokens.push_back(next);
    // Ids beyond the tokenizer's pad the model's vocabulary: they have no text.
    if (next < tokenizer_.size() && !tokenizer_.is_special(next))
      emit(stream.push(tokenizer_.bytes_of(next)));
    if (static_cast<Index>(result.tokens.size()) == most) break;
    logits = session_.append({&next, 1});
    seen_.push_back(next);
  }
  emit(stream.finish());
  result.seconds = watch.seconds();
  return result;
}

}  // namespace dsa::text
