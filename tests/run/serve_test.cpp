// dsa-run serve in this process: what is answered, by a tiny model.
#include <future>

#include "core/file.hpp"
#include "run/serve/api.hpp"
#include "tests/catch.hpp"
#include "tests/run/http_client.hpp"
#include "tests/run/speaker.hpp"
#include "text/generation.hpp"

using Catch::Matchers::Contains;
using namespace dsa;
using namespace dsa::test;
using namespace dsa::run::serve;

namespace {

struct Served {
  Speaker speaker;
  Scheduler scheduler;
  Api api;
  HttpServer server;

  explicit Served(const std::string& key = "", text::ChatFormat chat = text::ChatFormat::v3_2)
      : scheduler(speaker.engine(), {4, 40}, {}),
        api({"tiny", key, chat, 50, 44, 7}, *speaker.tokenizer, scheduler),
        server(
            "127.0.0.1", 0, {10000, 60}, [this](const HttpRequest& r) { return api.answer(r); },
            http_error) {}

  HttpAnswer post(const std::string& path, const Json& body) const {
    return ask(server.port(), "POST", path, body.dump());
  }
  HttpAnswer complete(const Json& body) const { return post("/v1/completions", body); }

  /// What text::Generator says, which dsa-run generate prints.
  std::string said(const std::string& prompt, Index max_tokens) const {
    Session session(speaker.engine());
    text::Generator generator(session, *speaker.tokenizer, {{}, max_tokens, {}});
    std::string text;
    generator.run(
        speaker.tokenizer->encode(prompt, true), [&](std::string_view more) { text += more; },
        [] { return false; });
    return text;
  }
};

std::vector<Json> events(const std::string& body) {
  std::vector<Json> all;
  std::istringstream lines(body);
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with("data: {")) all.push_back(Json::parse(line.substr(6)));
  return all;
}

}  // namespace

TEST_CASE("every token of an echoed prompt has its log-probability", "[serve]") {
  const Served served;
  const std::string prompt = "Hello 深度, how far is it?";
  const auto answer = served.complete({{"prompt", prompt},
                                       {"max_tokens", 3},
                                       {"temperature", 0},
                                       {"echo", true},
                                       {"logprobs", 2},
                                       {"model", "tiny"}});
  REQUIRE(answer.status == 200);
  const Json choice = answer.json()["choices"][0], scored = choice["logprobs"];
  const auto tokens = served.speaker.tokenizer->encode(prompt, true);
  CHECK(choice["text"].get<std::string>() == prompt + served.said(prompt, 3));
  REQUIRE(scored["tokens"].size() == tokens.size() + 3);
  CHECK(scored["token_logprobs"][0].is_null());
  CHECK(scored["top_logprobs"][0].is_null());

  const auto rows = served.speaker.log_probabilities(tokens);
  std::string text;
  for (std::size_t t = 1; t < tokens.size(); ++t) {
    const double got = scored["token_logprobs"][t];
    CHECK(got == rows[t - 1][static_cast<std::size_t>(tokens[t])]);
    double best = -1e300;
    for (const auto& [token, value] : scored["top_logprobs"][t].items())
      best = std::max(best, value.get<double>());
    CHECK(best == *std::max_element(rows[t - 1].begin(), rows[t - 1].end()));
  }
  const double first = scored["token_logprobs"][tokens.size()];
  CHECK(first == *std::max_element(rows.back().begin(), rows.back().end()));
  CHECK(answer.json()["usage"]["total_tokens"] == tokens.size() + 3);
}

TEST_CASE("offsets of tokens are characters of the text", "[serve]") {
  const Served served;
  const auto answer =
      served.complete({{"prompt", "a深b 度"}, {"max_tokens", 0}, {"echo", true}, {"logprobs", 0}});
  const Json choice = answer.json()["choices"][0], scored = choice["logprobs"];
  CHECK(choice["text"] == "a深b 度");
  CHECK(choice["finish_reason"] == "length");
  int named = 0;
  for (std::size_t t = 0; t < scored["tokens"].size(); ++t) {
    const std::string token = scored["tokens"][t];
    if (token == "a") named += scored["text_offset"][t] == 0;
    if (token == "b") named += scored["text_offset"][t] == 2;
  }
  CHECK(named == 2);
}

TEST_CASE("streamed and whole answers are what generate says", "[serve]") {
  const Served served;
  const std::string want = served.said("hello", 20);
  Json body = {{"prompt", "hello"}, {"max_tokens", 20}, {"temperature", 0}};
  CHECK(served.complete(body).json()["choices"][0]["text"] == want);
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  const auto streamed = served.complete(body);
  CHECK_THAT(streamed.head, Contains("text/event-stream"));
  CHECK(streamed.body.ends_with("data: [DONE]\n\n"));
  std::string text;
  const auto pieces = events(streamed.body);
  REQUIRE(pieces.size() > 3);
  for (const Json& piece : pieces)
    for (const Json& choice : piece["choices"]) text += choice["text"].get<std::string>();
  CHECK(text == want);
  CHECK(pieces[pieces.size() - 2]["choices"][0]["finish_reason"] == "length");
  CHECK(pieces.back()["usage"]["completion_tokens"] == 20);

  // A string that ends the text, in the middle of it and perhaps of a token.
  const auto begins_character = [&](std::size_t at) {
    return (static_cast<unsigned char>(want[at]) & 0xC0) != 0x80;
  };
  std::size_t from = want.size() / 2, to = from + 1;
  while (!begins_character(from)) --from;
  while (to < want.size() && !begins_character(to)) ++to;
  const std::string stop = want.substr(from, to - from);
  body["stop"] = {stop, "\x01 never"};
  text.clear();
  for (const Json& piece : events(served.complete(body).body))
    for (const Json& choice : piece["choices"]) text += choice["text"].get<std::string>();
  CHECK(text == want.substr(0, want.find(stop)));
}

TEST_CASE("a conversation is answered as its text would be", "[serve]") {
  const Served served;
  const std::vector<text::Message> messages = {{text::Message::Role::system, "Rules"},
                                               {text::Message::Role::user, "hello"}};
  const std::string prompt = text::render(text::ChatFormat::v3_2, messages, false);
  const auto tokens = served.speaker.tokenizer->encode(prompt, false);
  const Json want =
      served.complete({{"prompt", tokens}, {"max_tokens", 12}, {"temperature", 0}}).json();
  Json body = {{"messages", Json::parse(R"([{"role": "system", "content": "Rules"},
                  {"role": "user", "content": [{"type": "text", "text": "hello"}]}])")},
               {"max_completion_tokens", 12},
               {"temperature", 0},
               {"logprobs", true},
               {"top_logprobs", 2}};
  const Json got = served.post("/v1/chat/completions", body).json();
  CHECK(got["object"] == "chat.completion");
  CHECK(got["choices"][0]["message"]["role"] == "assistant");
  CHECK(got["choices"][0]["message"]["content"] == want["choices"][0]["text"]);
  REQUIRE(got["choices"][0]["logprobs"]["content"].size() == 12);
  CHECK(got["choices"][0]["logprobs"]["content"][0]["top_logprobs"].size() == 2);

  body["stream"] = true;
  std::string text;
  const auto pieces = events(served.post("/v1/chat/completions", body).body);
  for (const Json& piece : pieces)
    text += piece["choices"][0]["delta"].value("content", std::string());
  CHECK(text == want["choices"][0]["text"]);
  CHECK(pieces.front()["choices"][0]["delta"]["role"] == "assistant");
  CHECK(pieces.back()["choices"][0]["finish_reason"] == "length");
}

TEST_CASE("requests that share passes get what they would get alone", "[serve]") {
  const Served served;
  const auto body = [](int i) {
    return Json{{"prompt", std::string(static_cast<std::size_t>(5 * i), 'x') + " and then?"},
                {"max_tokens", 10 + i},
                {"temperature", i % 3 == 0 ? 0.0 : 1.0},
                {"seed", i},
                {"logprobs", 1},
                {"echo", i % 2 == 0}};
  };
  constexpr int n = 12;
  std::vector<Json> alone;
  for (int i = 0; i < n; ++i) alone.push_back(served.complete(body(i)).json()["choices"]);
  std::vector<std::future<HttpAnswer>> together;
  for (int i = 0; i < n; ++i)
    together.push_back(std::async(std::launch::async, [&, i] { return served.complete(body(i)); }));
  for (int i = 0; i < n; ++i) {
    const HttpAnswer answer = together[static_cast<std::size_t>(i)].get();
    REQUIRE(answer.status == 200);
    CHECK(answer.json()["choices"] == alone[static_cast<std::size_t>(i)]);
  }
  CHECK(served.scheduler.load().running == 0);
}

TEST_CASE("a prompt that begins as another did is not computed again", "[serve]") {
  const Served served;
  const auto tokens_of = [&](const std::string& prompt) {
    const Json json = served.complete({{"prompt", prompt}, {"temperature", 0}}).json();
    return std::pair(json["choices"][0]["text"].get<std::string>(),
                     json["usage"]["prompt_tokens_details"]["cached_tokens"].get<Index>());
  };
  const std::string begin = "the beginning that both have, and it is long; ";
  CHECK(tokens_of(begin + "one").second == 0);
  const auto [text, cached] = tokens_of(begin + "two");
  CHECK(cached > 10);
  CHECK(text == served.said(begin + "two", 16));
}

TEST_CASE("several prompts of one request, as texts and as ids", "[serve]") {
  const Served served;
  const auto ids = served.speaker.tokenizer->encode("hello", true);
  const Json texts =
      served.complete({{"prompt", {"hello", "bye"}}, {"temperature", 0}}).json()["choices"];
  REQUIRE(texts.size() == 2);
  CHECK(texts[1]["index"] == 1);
  CHECK(texts[0]["text"] == served.said("hello", 16));
  CHECK(texts[1]["text"] == served.said("bye", 16));
  const Json lists =
      served.complete({{"prompt", {ids, {1, 2}}}, {"temperature", 0}}).json()["choices"];
  REQUIRE(lists.size() == 2);
  CHECK(lists[0]["text"] == texts[0]["text"]);
}

TEST_CASE("what cannot be answered is refused in one sentence", "[serve]") {
  const Served served;
  const auto refused = [&](const HttpAnswer& answer, int status, const std::string& because) {
    INFO(answer.body);
    CHECK(answer.status == status);
    const Json error = answer.json().at("error");
    CHECK_THAT(error["message"].get<std::string>(), Contains(because));
    CHECK(error["type"].is_string());
  };
  const auto bad = [&](const std::string& body, const std::string& because) {
    refused(ask(served.server.port(), "POST", "/v1/completions", body), 400, because);
  };
  bad("", "the request");
  bad("{\"prompt\": ", "the request");
  bad("[]", "expected a JSON object");
  bad("{}", "\"prompt\" is missing, expected a text");
  bad(R"({"prompt": ""})", "the prompt is empty");
  bad(R"({"prompt": []})", "\"prompt\" is []");
  bad(R"({"prompt": [1, "a"]})", "has an element 1, expected a text or token ids");
  bad(R"({"prompt": [650]})", "token id 650, expected ids below 650");
  bad(R"({"prompt": [-1]})", "has an element -1");
  bad(R"({"prompt": "a", "max_tokens": 51})", "expected at most 50");
  bad(R"({"prompt": "a", "max_tokens": -1})", "\"max_tokens\" is -1");
  bad(R"({"prompt": "a", "temperature": "hot"})", "\"temperature\" is \"hot\"");
  bad(R"({"prompt": "a", "logprobs": 21})", "\"logprobs\" is 21");
  bad(R"({"prompt": "a", "stop": [""]})", "\"stop\" is [\"\"]");
  bad(R"({"prompt": "a", "n": 2})", "\"n\" is 2, which this server does not offer");
  bad(R"({"prompt": "a", "nonsense": 1})", "\"nonsense\" is not known");
  bad(R"({"prompt": "a", "prompt": "b"})", "prompt");
  bad("{\"prompt\": \"\xFF\"}", "the request");
  refused(served.complete({{"prompt", "a"}, {"model", "other"}}), 404, "there is no model");
  refused(served.complete({{"prompt", std::vector<std::string>(45, "a")}}), 400, "at most 44");
  refused(served.post("/v1/chat/completions", {{"messages", Json::array()}}), 400, "messages");
  refused(served.post("/v1/chat/completions",
                      Json::parse(R"({"messages": [{"role": "tool", "content": "x"}]})")),
          400, "role\" is \"tool\"");
  refused(served.post("/v1/chat/completions",
                      Json::parse(R"({"messages": [{"role": "assistant", "content": "x"}]})")),
          400, "must be the user's");
  refused(served.post("/v1/embeddings", {}), 404, "there is no path");
  refused(ask(served.server.port(), "GET", "/v1/completions"), 405, "expected POST");
  refused(ask(served.server.port(), "DELETE", "/v1/models"), 405, "expected GET");
  refused(served.complete({{"prompt", std::string(20000, 'a')}}), 413, "--max-body");
  CHECK(ask(served.server.port(), "GET", "/health").status == 200);  // it goes on
}

TEST_CASE("without the key only the server's health is told", "[serve]") {
  const Served served("secret", text::ChatFormat::none);
  const int port = served.server.port();
  CHECK(ask(port, "GET", "/v1/models").status == 401);
  CHECK(ask(port, "GET", "/v1/models", "", "Authorization: Bearer secreT\r\n").status == 401);
  CHECK(ask(port, "POST", "/v1/completions", R"({"prompt": "a"})").status == 401);
  CHECK(ask(port, "GET", "/health").json()["status"] == "ok");
  const std::string key = "Authorization: Bearer secret\r\n";
  const Json models = ask(port, "GET", "/v1/models", "", key).json();
  CHECK(models["data"][0]["id"] == "tiny");
  CHECK_THAT(ask(port, "POST", "/v1/chat/completions",
                 R"({"messages": [{"role": "user", "content": "a"}]})", key)
                 .body,
             Contains("without a chat format"));
}
