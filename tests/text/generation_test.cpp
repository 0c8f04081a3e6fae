// tests/text/generation_test.cpp — chat formats, sampling, and text as it comes from a model.
#include "text/generation.hpp"

#include <cmath>
#include <map>
#include <memory>

#include "core/file.hpp"
#include "tests/catch.hpp"
#include "tests/paths.hpp"
#include "tests/scratch.hpp"
#include "text/chat.hpp"

using Catch::Matchers::Contains;
using namespace dsa;
using namespace dsa::test;
namespace fs = std::filesystem;

namespace {

const fs::path samples = fs::path(source_dir()) / "data/text";

std::vector<text::Message> messages_of(const Json& list) {
  std::vector<text::Message> messages;
  for (const Json& m : list)
    messages.push_back({m["role"] == "system" ? text::Message::Role::system
                        : m["role"] == "user" ? text::Message::Role::user
                                              : text::Message::Role::assistant,
                        m["content"].get<std::string>()});
  return messages;
}

View<const float, 1> view(const std::vector<float>& logits) {
  return {logits.data(), {static_cast<Index>(logits.size())}};
}

/// A model that says `script` whatever it is asked, and records what it was fed.
struct Parrot {
  Index vocab_size;
  std::vector<Token> script;
  std::vector<Token> fed{}, cache{};
  std::vector<Index> kept{};
  std::size_t said = 0;

  Session session(Index longest = 1000);
};

class ParrotCache final : public SequenceCache {
 public:
  void add(Index n) { rows_ += n; }
};

class ParrotEngine final : public Engine {
 public:
  ParrotEngine(Parrot& parrot, Index longest) : parrot_(parrot), longest_(longest) {
    config_.vocab_size = parrot.vocab_size;
  }
  const Config& config() const override { return config_; }
  std::string name() const override { return "parrot"; }
  Index pass_tokens() const override { return 512; }
  Index largest_length() const override { return longest_; }
  std::unique_ptr<SequenceCache> new_cache() const override {
    return std::make_unique<ParrotCache>();
  }
  void forward(std::span<const Feed> feeds, LogitsOf, View<float, 2> logits, const Tap&) override {
    const auto tokens = feeds[0].tokens;
    const auto rows = static_cast<std::size_t>(feeds[0].cache->rows());
    if (rows < parrot_.cache.size()) parrot_.kept.push_back(feeds[0].cache->rows());
    parrot_.cache.resize(rows);
    parrot_.cache.insert(parrot_.cache.end(), tokens.begin(), tokens.end());
    parrot_.fed.insert(parrot_.fed.end(), tokens.begin(), tokens.end());
    std::fill(logits[0].begin(), logits[0].end(), 0.0f);
    logits(0, static_cast<Index>(parrot_.script.at(parrot_.said++ % parrot_.script.size()))) = 1;
    dynamic_cast<ParrotCache&>(*feeds[0].cache).add(feeds[0].size());
  }

 private:
  Parrot& parrot_;
  Config config_;
  Index longest_;
};

Session Parrot::session(Index longest) {
  return Session(std::make_unique<ParrotEngine>(*this, longest));
}

bool never() { return false; }

}  // namespace

TEST_CASE("conversations are DeepSeek's own", "[text]") {
  const Json cases = read_json(samples / "chats.json");
  CHECK(cases.size() == 120);
  for (const Json& c : cases) {
    const auto messages = messages_of(c["messages"]);
    INFO(c.dump());
    CHECK(text::render(text::chat_format_named(c["format"].get<std::string>()), messages,
                       c["think"]) == c["prompt"]);
  }
}

TEST_CASE("a conversation that cannot be written is refused", "[text]") {
  const text::Message user{text::Message::Role::user, "a"},
      assistant{text::Message::Role::assistant, "b"};
  const std::vector<text::Message> answered = {user, assistant}, asked = {user};
  CHECK_THROWS_WITH(text::render(text::ChatFormat::v3_1, answered, false), Contains("the user's"));
  CHECK_THROWS_WITH(text::render(text::ChatFormat::v3_2, {}, false), Contains("the user's"));
  CHECK_THROWS_WITH(text::render(text::ChatFormat::none, asked, false), Contains("chat format"));
  CHECK_THROWS_WITH(text::chat_format_named("v4"), Contains("\"v4\"") && Contains("v3.2"));
  CHECK_THROWS_WITH(
      text::end_of_answer(text::ChatFormat::v3_2, text::Tokenizer::read(samples / "glm")),
      Contains("<｜begin▁of▁sentence｜>") && Contains("--chat none"));
  CHECK(text::end_of_answer(text::ChatFormat::v3_2, text::Tokenizer::read(samples / "deepseek")) ==
        1);
}

TEST_CASE("what was thought is left out of later turns", "[text]") {
  CHECK(text::answer_of("because</think>so", true) == "so");
  CHECK(text::answer_of("a</think>b</think>c", true) == "b</think>c");
  CHECK(text::answer_of("cut off", true).empty());
  CHECK(text::answer_of("plain", false) == "plain");
}

TEST_CASE("the chat format is told by the checkpoint", "[text]") {
  const Scratch scratch;
  const auto format_of = [&](const char* type) {
    write_text(scratch / "config.json", Json{{"model_type", type}}.dump());
    return text::chat_format_of(scratch.path());
  };
  CHECK(format_of("deepseek_v32") == text::ChatFormat::v3_2);
  CHECK_THROWS_WITH(format_of("deepseek_v3"), Contains("--chat none"));
  CHECK_THROWS_WITH(format_of("glm_moe_dsa"), Contains("\"glm_moe_dsa\""));
  write_text(scratch / "tokenizer_config.json", R"({"chat_template": "{% if thinking %}"})");
  CHECK(format_of("deepseek_v3") == text::ChatFormat::v3_1);
}

TEST_CASE("sampling: greedy, ties, temperature, top-p, seed", "[text]") {
  const std::vector<float> logits = {0, 3, -1, 3, 2.5f, -INFINITY};
  CHECK(text::sample(view(logits), {}, 7) == 1);
  text::Sampling hot{2.0, 1.0, 5};
  std::map<Token, int> counts;
  const int draws = 20'000;
  for (int i = 0; i < draws; ++i) ++counts[text::sample(view(logits), hot, std::uint64_t(i))];
  double whole = 0;
  for (const float logit : logits) whole += std::exp(logit / 2.0);
  for (std::size_t v = 0; v < logits.size(); ++v) {
    const double p = std::exp(logits[v] / 2.0) / whole;
    // Six standard deviations of a binomial count.
    CHECK(std::abs(counts[static_cast<Token>(v)] - draws * p) <=
          6 * std::sqrt(draws * p * (1 - p)));
  }
  CHECK(counts[5] == 0);

  // exp(0), exp(0), exp(-.5) of a sum near 2.9: the first two hold 0.69, the third completes 0.9.
  for (const auto& [top_p, largest] : {std::pair{0.1, 1}, {0.5, 2}, {0.89, 3}}) {
    text::Sampling nucleus{1.0, top_p, 9};
    std::map<Token, int> kept;
    for (int i = 0; i < 2000; ++i) ++kept[text::sample(view(logits), nucleus, std::uint64_t(i))];
    CHECK(kept.size() == static_cast<std::size_t>(largest));
    CHECK(kept.count(1) == 1);
  }

  // Fixed for good: the same seed gives the same tokens everywhere.
  std::vector<Token> drawn;
  for (std::uint64_t i = 0; i < 12; ++i) drawn.push_back(text::sample(view(logits), hot, i));
  CHECK(drawn == std::vector<Token>{1, 1, 3, 4, 3, 1, 4, 1, 3, 1, 3, 1});
}

TEST_CASE("logits that are no numbers are refused", "[text]") {
  CHECK_THROWS_WITH(text::sample(view({1, NAN}), {}, 0), Contains("token 1 is NaN"));
  CHECK_THROWS_WITH(text::sample(view({INFINITY, 1}), {}, 0), Contains("token 0 is infinite"));
  CHECK_THROWS_WITH(text::log_sum_exp(view({1, NAN})), Contains("token 1 is NaN"));
  CHECK_THROWS_WITH(text::sample(view({-INFINITY, -INFINITY}), {}, 0), Contains("every logit"));
}

TEST_CASE("text comes in whole characters and ends where it should", "[text]") {
  const auto tokenizer = text::Tokenizer::read(samples / "deepseek");
  const std::string said = "Ünï 👩‍👩‍👧 <｜User｜>深度";
  const auto script = tokenizer.encode(said, false), prompt = tokenizer.encode("hello", false);
  Parrot parrot{tokenizer.size() + 3, script};
  parrot.script.push_back(tokenizer.size() + 1);  // padding of the model's vocabulary
  parrot.script.push_back(1);
  std::vector<std::string> parts;
  const auto emit = [&](std::string_view part) { parts.emplace_back(part); };
  const auto joined = [&] {
    std::string all;
    for (const std::string& part : parts) all += part;
    return all;
  };

  Session session = parrot.session();
  text::Generator generator(session, tokenizer, {{}, 500, {1}});
  const auto result = generator.run(prompt, emit, never);
  CHECK(result.end == text::Generated::End::stop);
  CHECK(joined() == "Ünï 👩‍👩‍👧 <｜User｜>深度");
  for (const std::string& part : parts) CHECK_NOTHROW(tokenizer.encode(part, false));
  CHECK(result.tokens.size() == script.size() + 1);

  parts.clear();
  parrot.said = 0;
  session = parrot.session();
  text::Generator brief(session, tokenizer, {{}, 2, {1}});
  const auto cut = brief.run(prompt, emit, never);
  CHECK(cut.end == text::Generated::End::length);
  CHECK(cut.tokens == std::vector<Token>(script.begin(), script.begin() + 2));

  parrot.said = 0;
  int asked = 0;
  session = parrot.session();
  text::Generator stopped(session, tokenizer, {{}, 500, {1}});
  const auto interrupted = stopped.run(prompt, emit, [&] { return ++asked > 3; });
  CHECK(interrupted.end == text::Generated::End::interrupted);
  CHECK(interrupted.tokens.size() == 3);
}

TEST_CASE("a second prompt feeds only what the model has not seen", "[text]") {
  const auto tokenizer = text::Tokenizer::read(samples / "deepseek");
  Parrot parrot{tokenizer.size(), {20, 21, 22, 1}};
  Session session = parrot.session();
  text::Generator generator(session, tokenizer, {{}, 500, {1}});
  const auto run = [&](std::vector<Token> prompt) {
    parrot.said = 0;
    parrot.fed.clear();
    return generator.run(
        prompt, [](std::string_view) {}, never);
  };
  run({5, 6, 7});
  CHECK(parrot.fed == std::vector<Token>{5, 6, 7, 20, 21, 22});
  const auto longer = run({5, 6, 7, 20, 21, 22, 1, 8});
  CHECK(parrot.fed == std::vector<Token>{1, 8, 20, 21, 22});
  CHECK(longer.reused_tokens == 6);
  CHECK(parrot.kept.empty());
  run({5, 6, 9, 20});
  CHECK(parrot.kept == std::vector<Index>{2});
  CHECK(parrot.cache == std::vector<Token>{5, 6, 9, 20, 20, 21, 22});
  run({5, 6});  // of a prompt that was seen whole, the last token is fed again
  CHECK(parrot.kept == std::vector<Index>{2, 1});
  CHECK(parrot.fed == std::vector<Token>{6, 20, 21, 22});
}

TEST_CASE("prompts and models that do not fit are refused", "[text]") {
  const auto tokenizer = text::Tokenizer::read(samples / "deepseek");
  Parrot parrot{tokenizer.size(), {20}};
  Parrot other{100, {20}};
  Session of_other = other.session(), session = parrot.session(6);
  CHECK_THROWS_WITH(text::Generator(of_other, tokenizer, {}), Contains("vocab_size is 100"));
  text::Generator generator(session, tokenizer, {{}, 500, {1}});
  const std::vector<Token> prompt = {5, 6, 7, 8};
  CHECK_THROWS_WITH(generator.run(
                        {}, [](std::string_view) {}, never),
                    Contains("empty"));
  CHECK(generator
            .run(
                prompt, [](std::string_view) {}, never)
            .tokens.size() == 2);
  CHECK_THROWS_WITH(generator.run(
                        std::vector<Token>(6, 5), [](std::string_view) {}, never),
                    Contains("the prompt has 6 tokens") && Contains("takes 6"));
}
