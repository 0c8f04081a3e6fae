// run/serve/job.hpp — what a request asks of the model, and what comes back, token by token.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/recording.hpp"
#include "text/sampling.hpp"

namespace dsa::run::serve {

struct Job {
  std::vector<Token> prompt;  // at least one
  Index max_tokens = 0;       // behind the prompt
  text::Sampling sampling = {};
  std::optional<int> likeliest = {};  // log-probabilities, and how many alternatives beside them
  bool scores_prompt = false;         // also of the prompt's tokens
};

struct Scored {
  Token token = 0;
  std::optional<double> log_probability;            // none: not asked, or the first of the prompt
  std::vector<std::pair<Token, double>> likeliest;  // with their log-probabilities, best first
};

struct Event {
  enum class Kind { prompt_token, token, stop, length, failed } kind;
  Scored scored = {};
  std::string sentence = {};  // of failed
  Index cached_tokens = 0;    // of the last event: of the prompt, what was in a cache

  bool is_last() const { return kind > Kind::token; }
};

/// The way back from the scheduler to whoever asked: one of each.
class Ticket {
 public:
  explicit Ticket(Job job) : job_(std::move(job)) {}

  const Job& job() const { return job_; }

  /// The next event, or nothing if none came in time.
  std::optional<Event> next(std::chrono::milliseconds patience) {
    std::unique_lock lock(mutex_);
    if (!arrived_.wait_for(lock, patience, [this] { return !events_.empty(); })) return {};
    Event event = std::move(events_.front());
    events_.pop_front();
    return event;
  }

  /// Nobody wants the rest.
  void cancel() { cancelled_ = true; }
  bool is_cancelled() const { return cancelled_; }

  void put(Event event) {
    {
      const std::lock_guard lock(mutex_);
      events_.push_back(std::move(event));
    }
    arrived_.notify_one();
  }

 private:
  Job job_;
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<Event> events_;
  std::atomic<bool> cancelled_ = false;
};

}  // namespace dsa::run::serve
