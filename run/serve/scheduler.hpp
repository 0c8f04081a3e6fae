// run/serve/scheduler.hpp — many requests, one model: every pass takes the next tokens of all
// sequences that are in work.
//
// One thread owns the engine. A pass holds one token of every sequence that is being continued, and
// as many tokens of prompts as still fit. Requests wait in the order in which they came; whoever
// comes when the queue is full is sent away.
#pragma once

#include <deque>
#include <memory>
#include <thread>
#include <vector>

#include "run/serve/caches.hpp"
#include "run/serve/job.hpp"

namespace dsa::run::serve {

struct SchedulerLimits {
  int parallel = 8;  // sequences in work at once
  int queue = 64;    // that wait beside them
};

class Scheduler {
 public:
  /// Tokens of `stop` end a text and are not part of it.
  Scheduler(std::unique_ptr<Engine>, SchedulerLimits, std::vector<Token> stop);
  /// Ends at once; what is in work fails.
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  enum class Answer { accepted, full, closed };

  /// All of the jobs, or none. A prompt and what may follow it have at most longest() tokens, and
  /// the prompt's are in the vocabulary.
  Answer submit(const std::vector<std::shared_ptr<Ticket>>&);

  /// Tokens of one sequence: what the memory holds, or what the config says if that is less.
  Index longest() const { return longest_; }

  Index vocab_size() const { return engine_->config().vocab_size; }

  /// Accepts nothing more.
  void close();
  bool is_open() const;

  struct Load {
    int running = 0, waiting = 0;
  };
  Load load() const;

 private:
  struct Running;

  void work();
  bool wait_for_work();
  void admit();
  void pass();
  std::vector<Index> sizes_of_feeds() const;
  void take_logits(Running&, Index fed, View<const float, 2> rows);
  void score_prompt(Running&, Index first, View<const float, 2> rows);
  void go_on(Running&, View<const float, 1> logits);
  void finish(Running&, Event::Kind, const std::string& sentence = "");
  void fail_all(const std::string& sentence);

  std::unique_ptr<Engine> engine_;
  SchedulerLimits limits_;
  std::vector<Token> stop_;
  Index longest_;

  // The working thread's.
  Caches caches_;
  std::vector<std::unique_ptr<Running>> running_;
  std::vector<float> logits_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<Ticket>> waiting_;
  int in_work_ = 0;
  bool closed_ = false, ends_ = false;
  std::thread thread_;
};

}  // namespace dsa::run::serve
