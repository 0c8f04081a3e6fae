#include "text/chat.hpp"

#include <algorithm>

#include "core/check.hpp"
#include "core/file.hpp"

namespace dsa::text {
namespace {

using Role = Message::Role;

constexpr const char* begin = "<｜begin▁of▁sentence｜>";
constexpr const char* end = "<｜end▁of▁sentence｜>";
constexpr const char* user = "<｜User｜>";
constexpr const char* assistant = "<｜Assistant｜>";
constexpr const char* thinking = "<think>";
constexpr const char* thought = "</think>";

std::string render_v3_1(std::span<const Message> messages, bool think) {
  std::string text = begin;
  bool first = true;
  for (const Message& message : messages)
    if (message.role == Role::system) {
      text += (first ? "" : "\n\n") + message.content;
      first = false;
    }
  bool asked = false;
  for (const Message& message : messages) {
    if (message.role == Role::user) text += user + message.content;
    if (message.role == Role::assistant) {
      if (asked) text += std::string(assistant) + thought;
      const auto at = message.content.find(thought);
      text += at == std::string::npos
                  ? message.content
                  : message.content.substr(at + std::string_view(thought).size());
      text += end;
    }
    if (message.role != Role::system) asked = message.role == Role::user;
  }
  return text + assistant + (think ? thinking : thought);
}

std::string render_v3_2(std::span<const Message> messages, bool think) {
  std::string text = begin;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const auto& [role, content] = messages[i];
    if (role == Role::system) text += content;
    if (role == Role::assistant) text += content + end;
    if (role == Role::user)
      text += user + content + assistant + (think && i + 1 == messages.size() ? thinking : thought);
  }
  return text;
}

/// Whether the checkpoint brings a Jinja template with a switch for thinking, as V3.1 does; V3's
/// and R1's have none.
bool template_knows_thinking(const std::filesystem::path& checkpoint) {
  const auto file = checkpoint / "tokenizer_config.json",
             jinja = checkpoint / "chat_template.jinja";
  std::string text;
  if (std::filesystem::exists(jinja)) text = read_text(jinja);
  if (std::filesystem::exists(file)) {
    const Json config = read_json(file);
    if (config.is_object() && config.contains("chat_template"))
      text += config["chat_template"].dump();
  }
  return text.find("thinking") != std::string::npos;
}

}  // namespace

ChatFormat chat_format_named(std::string_view name) {
  if (name == "none") return ChatFormat::none;
  if (name == "v3.1") return ChatFormat::v3_1;
  if (name == "v3.2") return ChatFormat::v3_2;
  throw Error("the chat format is " + in_quotes(name) + ", expected none, v3.1 or v3.2");
}

ChatFormat chat_format_of(const std::filesystem::path& checkpoint) {
  const auto file = checkpoint / "config.json";
  const Json config = read_json(file);
  const std::string type = config.is_object() && config.value("model_type", Json()).is_string()
                               ? config["model_type"].get<std::string>()
                               : "";
  if (type == "deepseek_v32") return ChatFormat::v3_2;
  if (type == "deepseek_v3" && template_knows_thinking(checkpoint)) return ChatFormat::v3_1;
  throw Error(file.string() + " does not tell the chat format (model_type " + in_quotes(type) +
              "); give --chat v3.1 or v3.2, or --chat none to send the text as it is");
}

std::string render(ChatFormat format, std::span<const Message> messages, bool think) {
  require(format != ChatFormat::none, "there is no conversation without a chat format");
  require(!messages.empty() && messages.back().role == Role::user,
          "the last message of a conversation must be the user's");
  return format == ChatFormat::v3_1 ? render_v3_1(messages, think) : render_v3_2(messages, think);
}

std::string answer_of(std::string_view output, bool think) {
  if (!think) return std::string(output);
  const auto at = output.find(thought);
  if (at == output.npos) return "";
  return std::string(output.substr(at + std::string_view(thought).size()));
}

Token end_of_answer(ChatFormat format, const Tokenizer& tokenizer) {
  require(format != ChatFormat::none, "there is no conversation without a chat format");
  for (const char* token : {begin, user, assistant, thinking, thought, end})
    require(tokenizer.find(token).has_value(),
            std::string("tokenizer.json has no token ") + token +
                ", which the chat format needs; --chat none sends the text as it is");
  return *tokenizer.find(end);
}

}  // namespace dsa::text
