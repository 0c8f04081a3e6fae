#include "run/generate.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <istream>
#include <limits>

#include "core/check.hpp"
#include "core/keys.hpp"
#include "run/stop_tokens.hpp"
#include "text/utf8.hpp"

namespace dsa::run {
namespace {

// A signal handler can reach nothing but a global.
volatile std::sig_atomic_t interrupt_seen = 0;

/// While it lives, the first Ctrl-C is noted (the second ends the program), and writing to a closed
/// pipe is an error instead of the program's end.
class Signals {
 public:
  Signals() {
    interrupt_seen = 0;
    struct sigaction note {};
    note.sa_handler = [](int) { interrupt_seen = 1; };
    note.sa_flags = static_cast<int>(SA_RESETHAND);  // no SA_RESTART: a read from the terminal ends
    sigaction(SIGINT, &note, &interrupt_);
    struct sigaction ignore {};
    ignore.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &ignore, &pipe_);
  }
  ~Signals() {
    sigaction(SIGINT, &interrupt_, nullptr);
    sigaction(SIGPIPE, &pipe_, nullptr);
  }
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

 private:
  struct sigaction interrupt_ {
  }, pipe_{};
};

/// At once, so that the reader sees it: stdout is a pipe as often as a terminal.
void put(std::string_view text) {
  if (text.empty()) return;
  errno = 0;
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  if (!written || std::fflush(stdout) != 0)
    throw Error(std::string("cannot write the text to stdout: ") + std::strerror(errno));
}

std::string statistics(const text::Generated& result) {
  const auto rate = [](Index tokens, double seconds) {
    return fmt::format("{} token{}, {:.3g} a second", tokens, tokens == 1 ? "" : "s",
                       static_cast<double>(tokens) / std::max(seconds, 1e-9));
  };
  const Index fed = result.prompt_tokens - result.reused_tokens;
  const char* end = result.end == text::Generated::End::stop     ? "the model ended its text"
                    : result.end == text::Generated::End::length ? "the most that was allowed"
                                                                 : "interrupted";
  return fmt::format("prompt {}{}; then {} ({})\n", rate(fed, result.prompt_seconds),
                     result.reused_tokens > 0
                         ? fmt::format(" ({} more were in the cache)", result.reused_tokens)
                         : "",
                     rate(static_cast<Index>(result.tokens.size()), result.seconds), end);
}

/// One prompt after another, by one model.
class Run {
 public:
  Run(const GenerateJob& job, const LoadModel& load)
      : job_(job),
        tokenizer_(text::Tokenizer::read(job.checkpoint)),
        chat_(chat_of(job)),
        options_{job.sampling, job.max_tokens, stop_tokens_of(job.checkpoint, chat_, tokenizer_)},
        session_(load()),
        generator_(*session_, tokenizer_, options_) {
    if (!job.system.empty()) messages_.push_back({text::Message::Role::system, job.system});
  }

  /// Answers one text. False: interrupted.
  bool answer(const std::string& prompt) {
    std::vector<Token> tokens;
    if (chat_ == text::ChatFormat::none) {
      tokens = tokenizer_.encode(prompt, true);
    } else {
      messages_.push_back({text::Message::Role::user, prompt});
      tokens = tokenizer_.encode(text::render(chat_, messages_, job_.think), false);
    }
    const auto result = generator_.run(tokens, put, [] { return interrupt_seen != 0; });
    put("\n");
    std::fputs(statistics(result).c_str(), stderr);
    messages_.push_back(
        {text::Message::Role::assistant, text::answer_of(text_of(result.tokens), job_.think)});
    return result.end != text::Generated::End::interrupted;
  }

 private:
  static text::ChatFormat chat_of(const GenerateJob& job) {
    const auto chat = job.chat ? *job.chat : text::chat_format_of(job.checkpoint);
    require(
        chat != text::ChatFormat::none || !(job.interactive || job.think || !job.system.empty()),
        "--interactive, --think and --system need a chat format; give --chat v3.1 or v3.2");
    return chat;
  }

  /// Special tokens too: the end of the thinking may be one.
  std::string text_of(std::vector<Token> tokens) const {
    std::erase_if(tokens, [this](Token token) { return token >= tokenizer_.size(); });
    return tokenizer_.decode(tokens, false);
  }

  const GenerateJob& job_;
  text::Tokenizer tokenizer_;
  text::ChatFormat chat_;
  text::GenerationOptions options_;  // known to be right before the model is loaded
  std::unique_ptr<Session> session_;
  text::Generator generator_;
  std::vector<text::Message> messages_;
};

}  // namespace

int generate(const GenerateJob& job, const LoadModel& load, std::istream& in) {
  text::require_utf8(job.prompt, "the prompt");
  text::require_utf8(job.system, "the system message");
  Run run(job, load);
  const Signals signals;
  bool goes_on = true;
  if (!job.interactive) {
    goes_on = run.answer(job.prompt);
  } else {
    std::string line;
    while (goes_on && std::fputs("> ", stderr) >= 0 && std::getline(in, line))
      if (!line.empty()) goes_on = run.answer(line);
    goes_on = goes_on && interrupt_seen == 0;
  }
  if (goes_on) return 0;
  std::fputs("dsa-run: interrupted\n", stderr);
  return 130;
}

std::string tokenize(const std::filesystem::path& checkpoint, const std::string& text) {
  return Json(text::Tokenizer::read(checkpoint).encode(text, true)).dump() + "\n";
}

std::string detokenize(const std::filesystem::path& checkpoint, const std::string& ids) {
  const Json list = parse_json(ids, "the list of token ids");
  require(list.is_array(), "the token ids are " + shown(list) + ", expected a list such as [1, 2]");
  std::vector<Token> tokens;
  for (const Json& id : list) {
    require(id.is_number_unsigned() && id < std::numeric_limits<Token>::max(),
            "the list of token ids holds " + shown(id) + ", expected integers from 0");
    tokens.push_back(id.get<Token>());
  }
  return text::Tokenizer::read(checkpoint).decode(tokens, false);
}

}  // namespace dsa::run
