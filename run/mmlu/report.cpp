#include "run/mmlu/report.hpp"

#include <fmt/format.h>

#include <map>

namespace dsa::run::mmlu {
namespace {

Accuracy of_one(const SubjectAnswers& subject) {
  Accuracy accuracy;
  accuracy.add(subject);
  return accuracy;
}

std::map<std::string, Accuracy> of_groups(const Evaluation& evaluation) {
  std::map<std::string, Accuracy> groups;
  for (const SubjectAnswers& s : evaluation.subjects) groups[s.group].add(s);
  return groups;
}

Accuracy of_all(const Evaluation& evaluation) {
  Accuracy accuracy;
  for (const SubjectAnswers& s : evaluation.subjects) accuracy.add(s);
  return accuracy;
}

std::string line(const std::string& name, const Accuracy& a) {
  const auto error = a.standard_error();
  return fmt::format("{:<38} {:>6.4f} {:>9}  {} of {}\n", name, a.mean(),
                     error ? fmt::format("+- {:.4f}", *error) : "", a.correct, a.questions);
}

Json accuracy_json(const Accuracy& a) {
  const auto error = a.standard_error();
  return {{"accuracy", a.mean()},
          {"standard_error", error ? Json(*error) : Json()},
          {"questions", a.questions},
          {"correct", a.correct}};
}

}  // namespace

std::string as_text(const Evaluation& evaluation) {
  std::string text;
  for (const SubjectAnswers& s : evaluation.subjects) text += line(s.name, of_one(s));
  text += '\n';
  for (const auto& [name, accuracy] : of_groups(evaluation)) text += line(name, accuracy);
  text += line("all", of_all(evaluation));
  if (evaluation.cut_prompts > 0)
    text += fmt::format("{} prompts were too long for the model and lost their beginning\n",
                        evaluation.cut_prompts);
  return text;
}

Json as_json(const Evaluation& evaluation) {
  Json groups = Json::object(), subjects = Json::object();
  for (const auto& [name, accuracy] : of_groups(evaluation)) groups[name] = accuracy_json(accuracy);
  for (const SubjectAnswers& s : evaluation.subjects) {
    Json subject = accuracy_json(of_one(s));
    subject["group"] = s.group;
    subject["answers"] = Json::array();
    for (const Answer& a : s.answers)
      subject["answers"].push_back({{"log_likelihoods", a.log_likelihood},
                                    {"chosen", std::string(1, letter(a.chosen()))},
                                    {"right", std::string(1, letter(a.right))}});
    subjects[s.name] = std::move(subject);
  }
  return {{"all", accuracy_json(of_all(evaluation))},
          {"groups", groups},
          {"subjects", subjects},
          {"prompts",
           {{"tokens", evaluation.tokens},
            {"reused_tokens", evaluation.reused_tokens},
            {"cut", evaluation.cut_prompts}}}};
}

}  // namespace dsa::run::mmlu
