#include <algorithm>
#include <cstring>
#include <set>

#include "core/file.hpp"
#include "optimized/train/data/chat_lines.hpp"
#include "optimized/train/data/feed.hpp"
#include "optimized/train/data/shuffle.hpp"
#include "tests/catch.hpp"
#include "tests/models.hpp"
#include "tests/scratch.hpp"

using namespace dsa;
using namespace dsa::train;
using Catch::Matchers::Contains;

namespace {

std::unique_ptr<Corpus> opened(const std::filesystem::path& file, const std::string& kind,
                               Index seq = 8, Index vocab = 256, Index separator = -1) {
  return open_corpus(file.string(), {kind, seq, vocab, separator}, TextTokens("bytes", "auto"));
}

std::string shard(std::int32_t tokens, const std::vector<std::uint16_t>& values) {
  std::string bytes(1024, '\0');
  const std::int32_t head[] = {20240520, 1, tokens};
  std::memcpy(bytes.data(), head, sizeof head);
  bytes.append(reinterpret_cast<const char*>(values.data()), 2 * values.size());
  return bytes;
}

std::vector<Token> tokens_of(const std::string& text) { return {text.begin(), text.end()}; }

/// Distance of every answer's first token to what it repeats, by looking for it.
std::vector<Index> distances(const Document& d, const Task& task) {
  std::vector<Index> found;
  for (std::size_t t = 1; t < d.tokens.size(); ++t) {
    if (d.answer[t] == 0 || d.answer[t - 1] != 0) continue;
    if (task.kind == Task::Kind::copy) {
      const auto first = std::find_if(d.tokens.begin(), d.tokens.end(),
                                      [&](Token x) { return x >= 128 + task.keys; });
      found.push_back(static_cast<Index>(t) - (first - d.tokens.begin()));
    } else if (task.kind == Task::Kind::lookup) {
      const auto value = std::find(d.tokens.begin(), d.tokens.end(), d.tokens[t]);
      found.push_back(static_cast<Index>(t) - (value - d.tokens.begin()));
    } else {
      const auto key = std::find(d.tokens.begin(), d.tokens.end(), d.tokens[t - 1]);
      found.push_back(static_cast<Index>(t) - (key - d.tokens.begin()) - 1);
    }
  }
  return found;
}

FeedPlan plan_of(Task::Kind kind, Index seq = 96) {
  FeedPlan plan;
  Source source;
  source.name = "synthetic:task";
  source.task.kind = kind;
  source.task.length = seq;
  plan.sources = {source};
  plan.seed = 5;
  plan.seq = seq;
  plan.batch = 4;
  plan.accumulation = 2;
  plan.held_out = 6;
  plan.levels = {1, 2};
  return plan;
}

}  // namespace

TEST_CASE("an epoch's order is a permutation, and another one each time", "[train]") {
  for (const Index n : {1, 2, 7, 64, 100}) {
    std::set<Index> seen;
    for (Index i = 0; i < n; ++i) seen.insert(shuffled(i, n, 3, 0));
    CHECK(static_cast<Index>(seen.size()) == n);
    CHECK(*seen.rbegin() == n - 1);
  }
  Index same = 0;
  for (Index i = 0; i < 100; ++i) same += shuffled(i, 100, 3, 0) == shuffled(i, 100, 3, 1);
  CHECK(same < 10);  // of 100 with one in common on average: ten are 1e-7 likely
  CHECK_THROWS_WITH(shuffled(3, 3, 0, 0), Contains("no thing 3 among 3"));
}

TEST_CASE("plain text is cut into rows", "[train]") {
  const test::Scratch scratch;
  write_text(scratch / "a.txt", "0123456789");
  write_text(scratch / "b.txt", "xyz");
  const auto corpus = opened(scratch / "*.txt", "text", 4);
  REQUIRE(corpus->size() == 4);
  CHECK(corpus->document(1).tokens == tokens_of("4567"));
  CHECK(corpus->document(2).tokens == tokens_of("89"));
  CHECK(corpus->document(3).tokens == tokens_of("xyz"));
  CHECK(corpus->sha256() != opened(scratch / "a.txt", "text", 4)->sha256());
}

TEST_CASE("JSON lines of text", "[train]") {
  const test::Scratch scratch;
  write_text(scratch / "a.jsonl", "{\"text\": \"ab\"}\n\n{\"text\": \"cdefghijkl\", \"id\": 1}\n");
  const auto corpus = opened(scratch / "a.jsonl", "jsonl");
  REQUIRE(corpus->size() == 3);
  CHECK(corpus->document(0).tokens == tokens_of("ab"));
  CHECK(corpus->document(2).tokens == tokens_of("kl"));
  write_text(scratch / "bad.jsonl", "{\"text\": \"ab\"}\n{\"txt\": 1}\n");
  CHECK_THROWS_WITH(opened(scratch / "bad.jsonl", "jsonl"),
                    Contains("bad.jsonl:2 has no \"text\""));
  write_text(scratch / "empty.jsonl", "\n");
  CHECK_THROWS_WITH(opened(scratch / "empty.jsonl", "jsonl"), Contains("holds no document"));
  CHECK_THROWS_WITH(opened(scratch / "none.jsonl", "jsonl"), Contains("there is no file"));
}

TEST_CASE("of a conversation the assistant's trained messages are learned", "[train]") {
  const TextTokens bytes("bytes", "auto");
  const Json line = Json::parse(R"({"messages": [
    {"role": "user", "content": "hi"}, {"role": "assistant", "content": "no", "train": false},
    {"role": "user", "content": "x"}, {"role": "assistant", "content": "ok"}]})");
  const Document d = bytes.conversation(turns_of(line, "a.jsonl:1"), "a.jsonl:1");
  CHECK(d.tokens == tokens_of("\3hi\5\4no\5\3x\5\4ok\5"));
  CHECK(d.answer == std::vector<std::uint8_t>{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1});
  const Json other = Json::parse(R"({"conversations": [
    {"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}]})");
  CHECK(bytes.conversation(turns_of(other, "x"), "x").tokens == tokens_of("\3hi\5\4yo\5"));
  CHECK_THROWS_WITH(turns_of(Json::parse(R"({"text": "a"})"), "f:3"), Contains("f:3 has no list"));
  CHECK_THROWS_WITH(
      turns_of(Json::parse(R"({"messages": [{"role": "tool", "content": "a"}]})"), "f"),
      Contains("expected system, user"));
}

TEST_CASE("llm.c's shards", "[train]") {
  const test::Scratch scratch;
  write_text(scratch / "a.bin", shard(7, {9, 1, 2, 3, 9, 4, 5}));
  const auto corpus = opened(scratch / "a.bin", "bin", 3, 256, 9);
  REQUIRE(corpus->size() == 3);
  CHECK(corpus->document(0).tokens == std::vector<Token>{9, 1, 2});
  CHECK(corpus->document(1).tokens == std::vector<Token>{3});
  CHECK(corpus->document(2).tokens == std::vector<Token>{9, 4, 5});
  write_text(scratch / "cut.bin", shard(8, {1, 2}));
  CHECK_THROWS_WITH(opened(scratch / "cut.bin", "bin"), Contains("it was cut short"));
  write_text(scratch / "foreign.bin", "not a shard");
  CHECK_THROWS_WITH(opened(scratch / "foreign.bin", "bin"), Contains("is no shard of llm.c"));
  CHECK_THROWS_WITH(opened(scratch / "a.bin", "bin", 3, 8),
                    Contains("token 0 is 9, but vocab_size is 8"));
}

TEST_CASE("distances of training and evaluation are disjoint, and answers are right", "[train]") {
  for (const Task::Kind kind :
       {Task::Kind::copy, Task::Kind::recall, Task::Kind::needle, Task::Kind::lookup}) {
    Task task;
    task.kind = kind;
    task.pairs = 3;
    task.distractors = 2;
    task.length = 300;
    task.keys = kind == Task::Kind::lookup ? 16 : 64;
    for (std::uint64_t i = 0; i < 40; ++i)
      for (const bool evaluation : {false, true}) {
        const Document d = make_document(task, 1, i, evaluation);
        CHECK(d.size() <= longest(task));
        const std::vector<Index> all = distances(d, task);
        CHECK(!all.empty());
        for (const Index distance : all) CHECK(is_held_out(task, distance) == evaluation);
        for (std::size_t t = 1; t < d.tokens.size(); ++t) {
          if (d.answer[t] == 0 || kind == Task::Kind::copy) continue;
          if (kind == Task::Kind::lookup) {
            CHECK((d.tokens[t] - 144) % 16 == d.tokens[t - 1] - 128);
            continue;
          }
          const auto key = std::find(d.tokens.begin(), d.tokens.end(), d.tokens[t - 1]);
          CHECK(*(key + 1) == d.tokens[t]);
        }
      }
  }
}

TEST_CASE("a copy repeats what it copies", "[train]") {
  Task task;
  task.kind = Task::Kind::copy;
  task.pairs = 5;
  const Document d = make_document(task, 1, 2, false);
  const auto ask = std::find(d.tokens.begin(), d.tokens.end(), 1);
  const std::vector<Token> copied(ask + 1, d.tokens.end());
  CHECK(copied.size() == 5);
  const auto first =
      std::find_if(d.tokens.begin(), d.tokens.end(), [&](Token x) { return x >= 192; });
  CHECK(std::equal(copied.begin(), copied.end(), first));
}

TEST_CASE("a task that does not fit is refused", "[train]") {
  Task task;
  task.pairs = 65;
  CHECK_THROWS_WITH(check(task, 256, 1 << 20), Contains("needs as many keys"));
  task.pairs = 4;
  CHECK_THROWS_WITH(check(task, 255, 1 << 20), Contains("but vocab_size is 255"));
  CHECK_THROWS_WITH(check(task, 256, 20), Contains("but a row has 20"));
  task.kind = Task::Kind::lookup;
  CHECK_THROWS_WITH(check(task, 256, 512), Contains("two values or more for every key"));
  task.kind = Task::Kind::needle;
  task.length = 30;
  CHECK_THROWS_WITH(check(task, 256, 512), Contains("but task.length is 30"));
  CHECK_THROWS_WITH(task_named("sort"), Contains("expected copy, recall, needle or lookup"));
}

TEST_CASE("batches are a function of the cursor", "[train]") {
  const Feed feed(plan_of(Task::Kind::recall));
  Cursor through;
  feed.next(through, 1);
  Cursor saved = cursor_of(to_json(through));
  CHECK(saved == through);
  const auto a = feed.next(through, 1), b = feed.next(saved, 1);
  REQUIRE(a.size() == 2);
  CHECK(a[1].tokens == b[1].tokens);
  CHECK(through == saved);
  CHECK(a[0].tokens != a[1].tokens);
}

TEST_CASE("documents are packed whole, and restart their positions", "[train]") {
  const Feed feed(plan_of(Task::Kind::recall));
  Cursor cursor;
  for (const Batch& batch : feed.next(cursor, 1)) {
    CHECK(batch.rows() <= 2 * 96);
    for (Index t = 0; t < batch.rows(); ++t) {
      const auto i = static_cast<std::size_t>(t);
      CHECK(batch.positions[i] == t - batch.begin[i]);
      CHECK((batch.target_weight[i] == 0 || batch.has_next(t)));
      CHECK((batch.target_weight[i] == 0 || batch.tokens[i + 1] >= 192));  // the answers alone
    }
  }
}

TEST_CASE("accumulation cuts the same documents into parts", "[train]") {
  FeedPlan plan = plan_of(Task::Kind::copy);
  plan.accumulation = 1;
  const Feed whole(plan);
  plan.accumulation = 4;
  const Feed parts(plan);
  Cursor a, b;
  std::vector<Token> together;
  for (const Batch& part : parts.next(a, 0))
    together.insert(together.end(), part.tokens.begin(), part.tokens.end());
  CHECK(whole.next(b, 0).front().tokens == together);
  CHECK(a == b);
}

TEST_CASE("held-out documents of a corpus are never trained on", "[train]") {
  const test::Scratch scratch;
  std::string text;
  for (char c = '!'; c < '!' + 40; ++c) text += std::string(4, c);  // each document a letter
  write_text(scratch / "a.txt", text);
  FeedPlan plan = plan_of(Task::Kind::copy, 4);
  plan.sources[0].corpus = opened(scratch / "a.txt", "text", 4);
  const Feed feed(plan);
  std::set<Token> trained, held_out;
  Cursor cursor;
  for (int step = 0; step < 30; ++step)
    for (const Batch& part : feed.next(cursor, 0))
      trained.insert(part.tokens.begin(), part.tokens.end());
  for (const Batch& part : feed.evaluation(plan.sources[0], 0))
    held_out.insert(part.tokens.begin(), part.tokens.end());
  CHECK(held_out.size() == 6);
  CHECK(trained.size() == 34);
  for (const Token token : held_out) CHECK_FALSE(trained.contains(token));
}

TEST_CASE("sources are mixed by weight", "[train]") {
  FeedPlan plan = plan_of(Task::Kind::copy);
  plan.sources.push_back(plan.sources[0]);
  plan.sources[1].name = "synthetic:other";
  plan.sources[1].weight = 3;
  const Feed feed(plan);
  Cursor cursor;
  while (cursor.documents < 400) feed.next(cursor, 0);
  const auto share =
      static_cast<double>(cursor.drawn["synthetic:other"]) / static_cast<double>(cursor.documents);
  CHECK(std::abs(share - 0.75) < 4 * std::sqrt(0.75 * 0.25 / 400));  // four standard deviations
}
