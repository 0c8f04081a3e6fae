// verify/commands/golden_text.hpp — whether a golden's token ids are those of its text.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/recording.hpp"

namespace dsa::verify {

/// A remark on every sequence whose ids are not what the checkpoint's tokenizer makes of its text,
/// or one that says that they are. Empty where the file has no text or the checkpoint no
/// tokenizer.json. No judgement depends on it: logits are judged for the ids that the file has.
std::vector<std::string> remarks_on_text(const std::filesystem::path& checkpoint,
                                         const Recording& golden);

}  // namespace dsa::verify
