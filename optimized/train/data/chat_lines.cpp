#include "optimized/train/data/chat_lines.hpp"

#include "core/check.hpp"

namespace dsa::train {
namespace {

using Role = text::Message::Role;

std::string text_under(const Json& message, const char* key, const char* other,
                       const std::string& what) {
  for (const char* name : {key, other})
    if (message.is_object() && message.contains(name) && message[name].is_string())
      return message[name].get<std::string>();
  throw Error(what + ": a message has no \"" + key + "\" that is a text");
}

Role role_named(const std::string& name, const std::string& what) {
  if (name == "system") return Role::system;
  if (name == "user" || name == "human") return Role::user;
  if (name == "assistant" || name == "gpt") return Role::assistant;
  throw Error(what + ": a message is of " + in_quotes(name) +
              ", expected system, user (human) or assistant (gpt)");
}

}  // namespace

std::vector<Turn> turns_of(const Json& line, const std::string& what) {
  const Json* messages = nullptr;
  for (const char* key : {"messages", "conversations"})
    if (line.is_object() && line.contains(key) && line[key].is_array()) messages = &line[key];
  require(messages != nullptr,
          what +
              " has no list \"messages\", expected {\"messages\": [{\"role\": \"user\", "
              "\"content\": \"...\"}, ...]}");
  std::vector<Turn> turns;
  for (const Json& message : *messages) {
    Turn turn;
    turn.message = {role_named(text_under(message, "role", "from", what), what),
                    text_under(message, "content", "value", what)};
    const Json train = message.value("train", Json(true));
    require(train.is_boolean(),
            what + ": \"train\" is " + train.dump() + ", expected true or false");
    turn.trained = train.get<bool>();
    turns.push_back(std::move(turn));
  }
  return turns;
}

}  // namespace dsa::train
