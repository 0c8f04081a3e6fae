// run/mmlu/questions.hpp — MMLU as its authors released it, and the prompt that asks it.
//
//   DIR/dev/SUBJECT_dev.csv    examples for the prompt
//   DIR/test/SUBJECT_test.csv  questions
//
// Rows: question, four choices, the letter of the right one; no header. The layout is that of
// Hendrycks et al., "Measuring Massive Multitask Language Understanding" (2021). The prompt is that
// of the task `mmlu` of lm-evaluation-harness 0.4.13, to the character.
#pragma once

#include <array>
#include <filesystem>
#include <string>
#include <vector>

namespace dsa::run::mmlu {

constexpr int choices = 4;  // A to D

struct Question {
  std::string text;
  std::array<std::string, choices> choice;
  int answer = 0;  // index of the right choice
};

struct Subject {
  std::string name;   // "abstract_algebra"
  std::string group;  // "stem", "other", "social_sciences" or "humanities"
  std::vector<Question> dev, test;
};

/// The subjects `names`, or all that DIR/test has, in alphabetical order. At most `limit` questions
/// of each, where limit > 0. Error: a folder or a file that is missing, a subject that MMLU does
/// not have, a row that is none, fewer than `shots` examples.
std::vector<Subject> read_subjects(const std::filesystem::path& dir,
                                   const std::vector<std::string>& names, int shots, int limit);

/// The text before " A", " B", " C" or " D": the first `shots` examples with their answers, then
/// the question.
std::string prompt(const Subject&, const Question&, int shots);

char letter(int choice);

}  // namespace dsa::run::mmlu
