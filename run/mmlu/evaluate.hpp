// run/mmlu/evaluate.hpp — a model's answers to MMLU's questions, by log-likelihood.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "cli/progress.hpp"
#include "optimized/engine/session.hpp"
#include "run/mmlu/questions.hpp"
#include "text/tokenizer.hpp"

namespace dsa::run::mmlu {

struct Answer {
  std::array<double, choices> log_likelihood{};  // of " A" to " D" after the prompt
  int right = 0;

  int chosen() const;  // the likeliest, the first among equals
};

struct SubjectAnswers {
  std::string name, group;
  std::vector<Answer> answers;
};

struct Evaluation {
  std::vector<SubjectAnswers> subjects;
  Index tokens = 0, reused_tokens = 0;  // of all prompts; those whose rows were in the cache
  Index cut_prompts = 0;                // their beginning did not fit
};

/// Asks every question once. The choices are scored after one pass over the prompt, and a prompt's
/// beginning that the one before it had, such as the examples, is not run again.
/// A text is cut into tokens as a whole; the tokens behind the prompt's count are the choice's. A
/// prompt that is too long loses its beginning. Error: the tokenizer is another model's.
Evaluation evaluate(const std::vector<Subject>&, int shots, const text::Tokenizer&, Session&,
                    const cli::Progress&);

/// Of some subjects together. The mean is over questions, and its error that of a sample pooled
/// over the subjects, as lm-evaluation-harness has both.
struct Accuracy {
  Index questions = 0, correct = 0, subjects = 0;
  double squares = 0;  // sum over subjects of the squared deviations from their means

  void add(const SubjectAnswers&);
  double mean() const;
  std::optional<double> standard_error() const;  // none where every subject has one question
};

}  // namespace dsa::run::mmlu
