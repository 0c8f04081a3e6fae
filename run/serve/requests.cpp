#include "run/serve/requests.hpp"

#include <algorithm>
#include <limits>

#include "core/check.hpp"
#include "core/keys.hpp"

namespace dsa::run::serve {
namespace {

constexpr Index largest = std::numeric_limits<Index>::max();
constexpr const char* what = "the request";

/// Keys of OpenAI's API whose default asks for nothing. Any other value is refused: an answer must
/// not look like one to a question that was not asked.
void require_neutral(const Keys& keys) {
  const auto allow = [&](const char* key, const std::vector<Json>& neutral) {
    const Json* value = keys.find(key);
    if (value != nullptr && std::find(neutral.begin(), neutral.end(), *value) == neutral.end())
      keys.fail(key, "is " + shown(*value) + ", which this server does not offer; leave it out");
  };
  allow("n", {1});
  allow("best_of", {1});
  allow("presence_penalty", {0});
  allow("frequency_penalty", {0});
  allow("logit_bias", {Json::object()});
  allow("suffix", {""});
  allow("tools", {Json::array()});
  for (const char* silent : {"user", "metadata", "store"}) keys.find(silent);
}

std::string string_at(const Keys& keys, const char* key, const std::string& expected) {
  const Json* value = keys.find(key);
  if (value == nullptr || !value->is_string()) keys.fail_expected(key, expected);
  return value->get<std::string>();
}

std::vector<std::string> stop_strings(const Keys& keys) {
  const Json* value = keys.find("stop");
  if (value == nullptr) return {};
  std::vector<std::string> stop;
  for (const Json& text : value->is_array() ? *value : Json::array({*value})) {
    if (!text.is_string() || text.get_ref<const std::string&>().empty())
      keys.fail_expected("stop", "a text or a list of texts, none of them empty");
    stop.push_back(text.get<std::string>());
  }
  return stop;
}

void read_common(const Keys& keys, Common& common) {
  if (keys.has("model")) common.model = string_at(keys, "model", "a name");
  common.max_tokens = keys.maybe_integer("max_tokens", 0, largest);
  common.sampling.temperature = keys.number_or("temperature", 0, 100, 1);
  common.sampling.top_p = keys.number_or("top_p", 0, 1, 1);
  common.sampling.seed =
      static_cast<std::uint64_t>(keys.maybe_integer("seed", 0, largest).value_or(0));
  common.stop = stop_strings(keys);
  common.stream = keys.boolean_or("stream", false);
  if (keys.has("stream_options"))
    common.stream_usage = keys.object("stream_options").boolean_or("include_usage", false);
  require_neutral(keys);
}

void require_all_used(const Keys& keys) {
  for (const std::string& key : keys.unused())
    throw Error(std::string(what) + ": " + in_quotes(key) +
                " is not known to this server; leave it out");
}

bool are_ids(const Json& list) {
  return list.is_array() && !list.empty() &&
         std::all_of(list.begin(), list.end(),
                     [](const Json& id) { return id.is_number_unsigned() && id < largest; });
}

Prompt prompt_of(const Json& value, const Keys& keys) {
  if (value.is_string()) return value.get<std::string>();
  if (!are_ids(value))
    keys.fail("prompt", "has an element " + shown(value) + ", expected a text or token ids");
  return value.get<std::vector<Token>>();
}

std::vector<Prompt> prompts_of(const Keys& keys) {
  const Json* value = keys.find("prompt");
  const bool is_list = value != nullptr && value->is_array() && !value->empty();
  if (value == nullptr || (!value->is_string() && !is_list))
    keys.fail_expected("prompt", "a text, a list of texts, token ids or lists of token ids");
  if (value->is_string() || are_ids(*value)) return {prompt_of(*value, keys)};
  std::vector<Prompt> prompts;
  for (const Json& one : *value) prompts.push_back(prompt_of(one, keys));
  return prompts;
}

/// A text, or a list of parts of type "text".
std::string content_of(const Keys& message) {
  const Json* content = message.find("content");
  if (content != nullptr && content->is_string()) return content->get<std::string>();
  if (content == nullptr || !content->is_array())
    message.fail_expected("content", "a text or a list of parts of type text");
  std::string text;
  for (std::size_t i = 0; i < content->size(); ++i) {
    const Keys part = message.element("content", i);
    part.text("type", {"text"});
    text += string_at(part, "text", "a text");
  }
  return text;
}

text::Message message_of(const Keys& message) {
  using Role = text::Message::Role;
  const std::string role = message.text("role", {"system", "developer", "user", "assistant"});
  message.find("name");
  const std::string content = content_of(message);
  require_all_used(message);
  return {role == "user"        ? Role::user
          : role == "assistant" ? Role::assistant
                                : Role::system,
          content};
}

}  // namespace

CompletionRequest completion_request(const std::string& body) {
  const Json json = parse_json(body, what);
  const Keys keys(json, what);
  CompletionRequest request;
  read_common(keys, request);
  request.prompts = prompts_of(keys);
  request.echo = keys.boolean_or("echo", false);
  if (const auto n = keys.maybe_integer("logprobs", 0, 20))
    request.likeliest = static_cast<int>(*n);
  require_all_used(keys);
  return request;
}

ChatRequest chat_request(const std::string& body) {
  const Json json = parse_json(body, what);
  const Keys keys(json, what);
  ChatRequest request;
  read_common(keys, request);
  if (const auto n = keys.maybe_integer("max_completion_tokens", 0, largest))
    request.max_tokens = n;
  const auto likeliest = keys.maybe_integer("top_logprobs", 0, 20);
  if (keys.boolean_or("logprobs", false))
    request.likeliest = static_cast<int>(likeliest.value_or(0));
  else if (likeliest)
    keys.fail("top_logprobs", "is given without logprobs; add \"logprobs\": true");
  const Json* messages = keys.find("messages");
  if (messages == nullptr || !messages->is_array() || messages->empty())
    keys.fail_expected("messages", "a list of at least one message");
  for (std::size_t i = 0; i < messages->size(); ++i)
    request.messages.push_back(message_of(keys.element("messages", i)));
  require_all_used(keys);
  return request;
}

}  // namespace dsa::run::serve
