#include "run/mmlu/evaluate.hpp"

#include <algorithm>
#include <cmath>
#include <span>

#include "core/check.hpp"
#include "text/generation.hpp"
#include "text/sampling.hpp"

namespace dsa::run::mmlu {
namespace {

/// Logits behind any beginning of a text, with what the last text shares left in the cache.
class Reader {
 public:
  explicit Reader(Session& session) : session_(session) {}

  /// Sum of the log-probabilities of tokens[first, ..), each given all before it; first > 0.
  double log_likelihood(std::span<const Token> tokens, std::size_t first) {
    double sum = 0;
    for (std::size_t at = first; at < tokens.size(); ++at) {
      const auto logits = after(tokens.first(at));
      sum += double{logits(tokens[at])} - text::log_sum_exp(logits);
    }
    return sum;
  }

  Index reused() const { return reused_; }

 private:
  View<const float, 1> after(std::span<const Token> begin) {
    if (std::equal(begin.begin(), begin.end(), seen_.begin(), seen_.end())) return logits_;
    // The last token is always fed: its logits are wanted.
    const auto differs = std::mismatch(begin.begin(), begin.end() - 1, seen_.begin(), seen_.end());
    const auto same = static_cast<std::size_t>(differs.first - begin.begin());
    seen_.clear();  // where append() fails
    session_.keep(static_cast<Index>(same));
    logits_ = session_.append(begin.subspan(same));
    seen_.assign(begin.begin(), begin.end());
    reused_ += static_cast<Index>(same);
    return logits_;
  }

  Session& session_;
  std::vector<Token> seen_;  // by the session
  View<const float, 1> logits_;
  Index reused_ = 0;
};

class Examination {
 public:
  Examination(const text::Tokenizer& tokenizer, Session& session, Evaluation& result)
      : tokenizer_(tokenizer), longest_(session.longest()), reader_(session), result_(result) {}

  Answer ask(const std::string& prompt, int right) {
    const std::vector<Token> before = tokenizer_.encode(prompt, true);
    Answer answer{{}, right};
    bool is_cut = false;
    for (int i = 0; i < choices; ++i) {
      std::vector<Token> all = tokenizer_.encode(prompt + " " + letter(i), true);
      const std::size_t excess = all.size() - std::min(all.size(), longest_tokens());
      const std::size_t first = std::min(before.size(), all.size() - 1);
      require(first > excess, "the model takes " + std::to_string(longest_) +
                                  " tokens, too few for a question of MMLU");
      is_cut = is_cut || excess > 0;
      answer.log_likelihood[static_cast<std::size_t>(i)] =
          reader_.log_likelihood(std::span(all).subspan(excess), first - excess);
    }
    result_.tokens += static_cast<Index>(before.size());
    result_.cut_prompts += is_cut ? 1 : 0;
    result_.reused_tokens = reader_.reused();
    return answer;
  }

 private:
  std::size_t longest_tokens() const { return static_cast<std::size_t>(longest_); }

  const text::Tokenizer& tokenizer_;
  Index longest_;
  Reader reader_;
  Evaluation& result_;
};

}  // namespace

int Answer::chosen() const {
  return static_cast<int>(std::max_element(log_likelihood.begin(), log_likelihood.end()) -
                          log_likelihood.begin());
}

Evaluation evaluate(const std::vector<Subject>& subjects, int shots,
                    const text::Tokenizer& tokenizer, Session& session,
                    const cli::Progress& progress) {
  text::require_same_vocabulary(tokenizer, session.engine().config());
  std::size_t of = 0;
  for (const Subject& s : subjects) of += s.test.size();
  Evaluation result;
  Examination examination(tokenizer, session, result);
  int done = 0;
  for (const Subject& s : subjects) {
    SubjectAnswers& answers = result.subjects.emplace_back(SubjectAnswers{s.name, s.group, {}});
    for (const Question& question : s.test) {
      answers.answers.push_back(examination.ask(prompt(s, question, shots), question.answer));
      if (progress) progress("questions", ++done, static_cast<int>(of));
    }
  }
  return result;
}

void Accuracy::add(const SubjectAnswers& s) {
  const auto n = static_cast<Index>(s.answers.size());
  const Index right = std::count_if(s.answers.begin(), s.answers.end(),
                                    [](const Answer& a) { return a.chosen() == a.right; });
  const double share = static_cast<double>(right) / static_cast<double>(n);
  questions += n;
  correct += right;
  subjects += 1;
  squares += static_cast<double>(n) * share * (1 - share);
}

double Accuracy::mean() const {
  return static_cast<double>(correct) / static_cast<double>(questions);
}

std::optional<double> Accuracy::standard_error() const {
  if (questions == subjects) return {};
  return std::sqrt(squares / static_cast<double>(questions - subjects) /
                   static_cast<double>(questions));
}

}  // namespace dsa::run::mmlu
