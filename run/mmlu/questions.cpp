#include "run/mmlu/questions.hpp"

#include <algorithm>
#include <map>
#include <set>

#include "core/check.hpp"
#include "core/file.hpp"
#include "core/json.hpp"
#include "run/mmlu/csv.hpp"
#include "text/utf8.hpp"

namespace dsa::run::mmlu {
namespace {

namespace fs = std::filesystem;

/// As lm-evaluation-harness groups them.
const std::map<std::string, std::vector<std::string>> groups = {
    {"stem",
     {"abstract_algebra", "anatomy", "astronomy", "college_biology", "college_chemistry",
      "college_computer_science", "college_mathematics", "college_physics", "computer_security",
      "conceptual_physics", "electrical_engineering", "elementary_mathematics",
      "high_school_biology", "high_school_chemistry", "high_school_computer_science",
      "high_school_mathematics", "high_school_physics", "high_school_statistics",
      "machine_learning"}},
    {"other",
     {"business_ethics", "clinical_knowledge", "college_medicine", "global_facts", "human_aging",
      "management", "marketing", "medical_genetics", "miscellaneous", "nutrition",
      "professional_accounting", "professional_medicine", "virology"}},
    {"social_sciences",
     {"econometrics", "high_school_geography", "high_school_government_and_politics",
      "high_school_macroeconomics", "high_school_microeconomics", "high_school_psychology",
      "human_sexuality", "professional_psychology", "public_relations", "security_studies",
      "sociology", "us_foreign_policy"}},
    {"humanities",
     {"formal_logic", "high_school_european_history", "high_school_us_history",
      "high_school_world_history", "international_law", "jurisprudence", "logical_fallacies",
      "moral_disputes", "moral_scenarios", "philosophy", "prehistory", "professional_law",
      "world_religions"}}};

std::string group_of(const std::string& subject) {
  for (const auto& [group, members] : groups)
    if (std::find(members.begin(), members.end(), subject) != members.end()) return group;
  throw Error(in_quotes(subject) +
              " is none of MMLU's 57 subjects, expected a name such as abstract_algebra");
}

Question question_of(const CsvRow& row, const std::string& what) {
  const std::string where = what + ": line " + std::to_string(row.line);
  require(row.fields.size() == choices + 2,
          where + " has " + std::to_string(row.fields.size()) +
              " columns, expected 6: the question, four choices and the answer's letter");
  const std::string& answer = row.fields.back();
  require(answer.size() == 1 && answer[0] >= 'A' && answer[0] < 'A' + choices,
          where + " has the answer " + in_quotes(answer) + ", expected A, B, C or D");
  Question q;
  q.text = row.fields.front();
  std::copy_n(row.fields.begin() + 1, choices, q.choice.begin());
  q.answer = answer[0] - 'A';
  return q;
}

std::vector<Question> read_questions(const fs::path& file) {
  const std::string text = read_text(file);
  text::require_utf8(text, file.string());
  std::vector<Question> questions;
  for (const CsvRow& row : parse_csv(text, file.string()))
    questions.push_back(question_of(row, file.string()));
  require(!questions.empty(), file.string() + " has no rows, expected at least one question");
  return questions;
}

std::vector<std::string> subjects_in(const fs::path& test) {
  require(fs::is_directory(test), test.string() +
                                      " is no directory, expected MMLU's folder with "
                                      "test/SUBJECT_test.csv and dev/SUBJECT_dev.csv");
  constexpr std::string_view ending = "_test.csv";
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(test)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(ending)) names.insert(name.substr(0, name.size() - ending.size()));
  }
  require(!names.empty(), test.string() + " has no file SUBJECT_test.csv, expected one a subject");
  return {names.begin(), names.end()};
}

/// What Python's str.strip() takes away, for that is in the task's template.
bool is_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

std::size_t bytes_of(char32_t c) { return c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4; }

std::string stripped(const std::string& utf8) {
  const std::u32string all = text::code_points(utf8);
  std::size_t begin = 0, end = utf8.size();
  auto first = all.begin(), last = all.end();
  for (; first != last && is_space(*first); ++first) begin += bytes_of(*first);
  for (; last != first && is_space(last[-1]); --last) end -= bytes_of(last[-1]);
  return utf8.substr(begin, end - begin);
}

std::string asked(const Question& q) {
  std::string text = stripped(q.text);
  for (int i = 0; i < choices; ++i)
    text += std::string("\n") + letter(i) + ". " + q.choice[static_cast<std::size_t>(i)];
  return text + "\nAnswer:";
}

}  // namespace

char letter(int choice) { return static_cast<char>('A' + choice); }

std::vector<Subject> read_subjects(const fs::path& dir, const std::vector<std::string>& names,
                                   int shots, int limit) {
  require(std::set(names.begin(), names.end()).size() == names.size(),
          "--subjects names a subject twice; name each once");
  std::vector<Subject> subjects;
  for (const std::string& name : names.empty() ? subjects_in(dir / "test") : names) {
    Subject s{name, group_of(name), {}, read_questions(dir / "test" / (name + "_test.csv"))};
    if (shots > 0) s.dev = read_questions(dir / "dev" / (name + "_dev.csv"));
    require(static_cast<int>(s.dev.size()) >= shots,
            (dir / "dev" / (name + "_dev.csv")).string() + " has " + std::to_string(s.dev.size()) +
                " examples, but --shots asks for " + std::to_string(shots));
    if (limit > 0 && limit < static_cast<int>(s.test.size()))
      s.test.resize(static_cast<std::size_t>(limit));
    subjects.push_back(std::move(s));
  }
  return subjects;
}

std::string prompt(const Subject& subject, const Question& question, int shots) {
  std::string topic = subject.name;
  std::replace(topic.begin(), topic.end(), '_', ' ');
  std::string text =
      "The following are multiple choice questions (with answers) about " + topic + ".\n\n";
  for (int i = 0; i < shots; ++i) {
    const Question& example = subject.dev[static_cast<std::size_t>(i)];
    text += asked(example) + " " + letter(example.answer) + "\n\n";
  }
  return text + asked(question);
}

}  // namespace dsa::run::mmlu
