// The server's queue, with an engine that waits until it is let go.
#include <condition_variable>
#include <mutex>

#include "core/file.hpp"
#include "run/serve/api.hpp"
#include "tests/catch.hpp"
#include "tests/paths.hpp"
#include "tests/run/http_client.hpp"

using Catch::Matchers::Contains;
using namespace dsa;
using namespace dsa::test;
using namespace dsa::run::serve;

namespace {

struct Gate {
  std::mutex mutex;
  std::condition_variable changed;
  int passes = 0;  // that may still go through
  bool fails = false;

  void let(int n) {
    const std::lock_guard lock(mutex);
    passes += n;
    changed.notify_all();
  }
};

class GatedCache final : public SequenceCache {
 public:
  void add(Index n) { rows_ += n; }
};

/// Says token 5 again and again, a pass at a time.
class GatedEngine final : public Engine {
 public:
  explicit GatedEngine(Gate& gate) : gate_(gate) { config_.vocab_size = 650; }
  const Config& config() const override { return config_; }
  std::string name() const override { return "gated"; }
  Index pass_tokens() const override { return 16; }
  Index largest_length() const override { return 100; }
  std::unique_ptr<SequenceCache> new_cache() const override {
    return std::make_unique<GatedCache>();
  }
  void forward(std::span<const Feed> feeds, LogitsOf, View<float, 2> logits, const Tap&) override {
    {
      std::unique_lock lock(gate_.mutex);
      gate_.changed.wait(lock, [this] { return gate_.passes > 0; });
      --gate_.passes;
      require(!gate_.fails, "the model broke");
    }
    std::fill(logits.begin(), logits.end(), 0.0f);
    for (Index row = 0; row < logits.shape[0]; ++row) logits(row, 5) = 1;
    for (const Feed& feed : feeds) dynamic_cast<GatedCache&>(*feed.cache).add(feed.size());
  }

 private:
  Gate& gate_;
  Config config_;
};

struct Gated {
  Gate gate;
  text::Tokenizer tokenizer =
      text::Tokenizer::read(std::filesystem::path(source_dir()) / "data/text/deepseek");
  Scheduler scheduler;
  Api api;
  HttpServer server;

  explicit Gated(SchedulerLimits limits)
      : scheduler(std::make_unique<GatedEngine>(gate), limits, {}),
        api({"gated", "", text::ChatFormat::none, 1000, 10, 0}, tokenizer, scheduler),
        server(
            "127.0.0.1", 0, {10000, 20}, [this](const HttpRequest& r) { return api.answer(r); },
            http_error) {}
  ~Gated() { gate.let(1 << 20); }

  std::unique_ptr<Connection> begin(int max_tokens, bool stream = false) const {
    auto connection = std::make_unique<Connection>(server.port());
    const Json body = {{"prompt", {7}}, {"max_tokens", max_tokens}, {"stream", stream}};
    connection->send(http_request("POST", "/v1/completions", body.dump()));
    return connection;
  }

  /// Until so many run and wait; false after ten seconds.
  bool comes_to(int running, int waiting) const {
    for (int i = 0; i < 1000; ++i) {
      const auto load = scheduler.load();
      if (load.running == running && load.waiting == waiting) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }
};

}  // namespace

TEST_CASE("whoever comes when the queue is full is sent away, and may come again", "[serve]") {
  Gated gated({1, 1});
  const auto first = gated.begin(2);
  REQUIRE(gated.comes_to(1, 0));
  auto second = gated.begin(2);
  REQUIRE(gated.comes_to(1, 1));
  const HttpAnswer third = parse_answer(gated.begin(2)->rest());
  CHECK(third.status == 429);
  CHECK_THAT(third.head, Contains("Retry-After: 1"));
  CHECK_THAT(third.body, Contains("rate_limit_error"));

  second.reset();  // hangs up: its place is free
  REQUIRE(gated.comes_to(1, 0));
  const auto fourth = gated.begin(2);
  REQUIRE(gated.comes_to(1, 1));
  gated.gate.let(100);
  CHECK(parse_answer(first->rest()).status == 200);
  CHECK(parse_answer(fourth->rest()).status == 200);
}

TEST_CASE("a request whose client hangs up is dropped", "[serve]") {
  Gated gated({2, 0});
  for (const bool stream : {false, true}) {
    auto endless = gated.begin(99, stream);
    REQUIRE(gated.comes_to(1, 0));
    endless.reset();
    for (int i = 0; i < 90 && gated.scheduler.load().running > 0; ++i) {  // fewer than 99 tokens
      gated.gate.let(1);
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    CHECK(gated.comes_to(0, 0));
  }
}

TEST_CASE("sequences that do not fit into memory together wait for each other", "[serve]") {
  Gated gated({2, 2});
  const auto first = gated.begin(60), second = gated.begin(60);
  REQUIRE(gated.comes_to(1, 1));
  gated.gate.let(1000);
  CHECK(parse_answer(first->rest()).status == 200);
  CHECK(parse_answer(second->rest()).status == 200);
  CHECK(parse_answer(gated.begin(100)->rest()).status == 400);
}

TEST_CASE("a model that fails is status 500, and the server goes on", "[serve]") {
  Gated gated({2, 2});
  gated.gate.fails = true;
  gated.gate.let(1);
  const HttpAnswer failed = parse_answer(gated.begin(3)->rest());
  CHECK(failed.status == 500);
  CHECK_THAT(failed.body, Contains("the model broke"));
  gated.gate.let(1);
  CHECK_THAT(parse_answer(gated.begin(3, true)->rest()).body, Contains("the model broke"));
  gated.gate.fails = false;
  gated.gate.let(100);
  CHECK(parse_answer(gated.begin(3)->rest()).status == 200);
}

TEST_CASE("a server that ends accepts nothing and finishes what it has", "[serve]") {
  Gated gated({2, 2});
  const auto running = gated.begin(3);
  REQUIRE(gated.comes_to(1, 0));
  gated.scheduler.close();
  CHECK(parse_answer(gated.begin(3)->rest()).status == 503);
  CHECK(ask(gated.server.port(), "GET", "/health").status == 503);
  gated.gate.let(100);
  CHECK(parse_answer(running->rest()).status == 200);
}

TEST_CASE("a server that is destroyed leaves nobody waiting", "[serve]") {
  Gate gate;
  auto scheduler = std::make_unique<Scheduler>(std::make_unique<GatedEngine>(gate),
                                               SchedulerLimits{1, 3}, std::vector<Token>{});
  const auto running = std::make_shared<Ticket>(Job{{1}, 3}),
             waiting = std::make_shared<Ticket>(Job{{1}, 3});
  REQUIRE(scheduler->submit({running, waiting}) == Scheduler::Answer::accepted);
  gate.let(1);
  while (scheduler->load().running == 0) std::this_thread::yield();
  gate.let(1 << 20);
  scheduler.reset();
  for (const auto& ticket : {running, waiting}) {
    std::optional<Event> event;
    do event = ticket->next(std::chrono::seconds(10));
    while (event && !event->is_last());
    CHECK(event.has_value());
  }
}
