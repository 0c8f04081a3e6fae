// text/chat.hpp — a conversation as the text that DeepSeek's models were trained on.
//
// V3.1 and V3.2 begin <｜begin▁of▁sentence｜>; a user's turn is <｜User｜>TEXT<｜Assistant｜> and,
// for the model to answer, </think>, or <think> where it is to think first; an answer ends
// <｜end▁of▁sentence｜>. What was thought before earlier answers is left out: these stand after
// </think>. They differ in system messages (V3.1: all of them in front, separated by a blank line;
// V3.2: where they are) and in users' turns that nobody answered (V3.1: no
// <｜Assistant｜></think>). Tools are not offered. Sources: chat_template of
// deepseek-ai/DeepSeek-V3.1 (tokenizer_config.json) and encoding/encoding_dsv32.py of
// deepseek-ai/DeepSeek-V3.2.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "text/tokenizer.hpp"

namespace dsa::text {

enum class ChatFormat { none, v3_1, v3_2 };

/// "none", "v3.1" or "v3.2"; an Error lists them.
ChatFormat chat_format_named(std::string_view);

/// The format of a checkpoint's family, told by config.json's model_type and, for deepseek_v3, by
/// a chat template that knows of thinking. Error: it cannot be told.
ChatFormat chat_format_of(const std::filesystem::path& checkpoint);

struct Message {
  enum class Role { system, user, assistant } role;
  std::string content;
};

/// The prompt for the next answer. The last message must be a user's. Format none: an Error.
std::string render(ChatFormat, std::span<const Message>, bool think);

/// What remains of a model's output in later turns: the answer after </think>; nothing of an output
/// that was cut off while it thought.
std::string answer_of(std::string_view output, bool think);

/// The token that ends an answer. An Error if the tokenizer lacks one of the format's tokens, which
/// would then be sent as plain text.
Token end_of_answer(ChatFormat, const Tokenizer&);

}  // namespace dsa::text
