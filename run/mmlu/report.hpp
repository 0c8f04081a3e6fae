// run/mmlu/report.hpp — an evaluation as a table and as JSON.
#pragma once

#include "core/json.hpp"
#include "run/mmlu/evaluate.hpp"

namespace dsa::run::mmlu {

/// A line a subject, a group and for all.
std::string as_text(const Evaluation&);

/// {"all": {"accuracy", "standard_error", "questions", "correct"}, "groups": {NAME: the same},
/// "subjects": {NAME: the same and "group", "answers": [{"log_likelihoods": [4 numbers], "chosen",
/// "right"}]}, "prompts": {"tokens", "reused_tokens", "cut"}}.
Json as_json(const Evaluation&);

}  // namespace dsa::run::mmlu
