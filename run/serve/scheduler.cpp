#include "run/serve/scheduler.hpp"

#include <algorithm>
#include <numeric>

#include "core/check.hpp"

namespace dsa::run::serve {
namespace {

Index length_of(const Job& job) { return static_cast<Index>(job.prompt.size()) + job.max_tokens; }

Index longest_of(const Engine& engine) {
  const Index told = engine.config().max_position_embeddings;
  return told > 0 ? std::min(told, engine.largest_length()) : engine.largest_length();
}

/// The token's log-probability, and the likeliest tokens beside it where they are asked for.
Scored scored(Token token, View<const float, 1> logits, int likeliest) {
  const double whole = text::log_sum_exp(logits);
  std::vector<Token> ids(static_cast<std::size_t>(logits.size()));
  std::iota(ids.begin(), ids.end(), Token{0});
  const auto n = std::min<std::ptrdiff_t>(likeliest, logits.size());
  std::partial_sort(ids.begin(), ids.begin() + n, ids.end(), [&](Token a, Token b) {
    return logits(a) != logits(b) ? logits(a) > logits(b) : a < b;
  });
  Scored result{token, double{logits(token)} - whole, {}};
  for (const Token id : std::span(ids).first(static_cast<std::size_t>(n)))
    result.likeliest.emplace_back(id, double{logits(id)} - whole);
  return result;
}

}  // namespace

/// A sequence in work: `tokens` are the prompt and what followed it, `seen` those in the cache.
struct Scheduler::Running {
  std::shared_ptr<Ticket> ticket;
  std::vector<Token> tokens;
  Seen seen;
  Index cached = 0, drawn = 0;
  bool is_done = false;

  const Job& job() const { return ticket->job(); }
  Index fed() const { return static_cast<Index>(seen.tokens.size()); }
  Index unfed() const { return static_cast<Index>(tokens.size()) - fed(); }
  bool is_continued() const { return tokens.size() > job().prompt.size(); }
};

Scheduler::Scheduler(std::unique_ptr<Engine> engine, SchedulerLimits limits,
                     std::vector<Token> stop)
    : engine_(std::move(engine)),
      limits_(limits),
      stop_(std::move(stop)),
      longest_(longest_of(*engine_)),
      caches_(*engine_, limits.parallel),
      thread_() {
  require(limits_.parallel <= engine_->pass_tokens(),
          "--parallel is " + std::to_string(limits_.parallel) + ", but a pass takes " +
              std::to_string(engine_->pass_tokens()) +
              " tokens; choose a larger --chunk or a smaller --parallel");
  thread_ = std::thread([this] { work(); });
}

Scheduler::~Scheduler() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = ends_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

Scheduler::Answer Scheduler::submit(const std::vector<std::shared_ptr<Ticket>>& tickets) {
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return Answer::closed;
    std::erase_if(waiting_, [](const auto& ticket) { return ticket->is_cancelled(); });
    const int free = limits_.queue + std::max(0, limits_.parallel - in_work_);
    if (static_cast<int>(waiting_.size() + tickets.size()) > free) return Answer::full;
    waiting_.insert(waiting_.end(), tickets.begin(), tickets.end());
  }
  changed_.notify_one();
  return Answer::accepted;
}

void Scheduler::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
}

bool Scheduler::is_open() const {
  const std::lock_guard lock(mutex_);
  return !closed_;
}

Scheduler::Load Scheduler::load() const {
  const std::lock_guard lock(mutex_);
  const auto wanted = std::count_if(waiting_.begin(), waiting_.end(),
                                    [](const auto& ticket) { return !ticket->is_cancelled(); });
  return {in_work_, static_cast<int>(wanted)};
}

void Scheduler::work() {
  while (wait_for_work()) {
    try {
      pass();
    } catch (const std::exception& error) {
      fail_all(error.what());
    }
    for (const auto& r : running_)
      if (!r->is_done && r->ticket->is_cancelled()) finish(*r, Event::Kind::stop);
    std::erase_if(running_, [](const auto& r) { return r->is_done; });
  }
  fail_all("the server ended before the answer was complete; ask again");
}

/// False: the scheduler ends.
bool Scheduler::wait_for_work() {
  std::unique_lock lock(mutex_);
  in_work_ = static_cast<int>(running_.size());
  changed_.wait(lock, [this] { return ends_ || !waiting_.empty() || !running_.empty(); });
  if (ends_) return false;
  admit();
  in_work_ = static_cast<int>(running_.size());
  return true;
}

/// With mutex_ held. The first that does not fit holds up those behind it, lest it never begin.
void Scheduler::admit() {
  for (; !waiting_.empty(); waiting_.pop_front()) {
    const auto& ticket = waiting_.front();
    if (ticket->is_cancelled()) continue;
    const Job& job = ticket->job();
    if (!caches_.has_room(length_of(job))) return;
    auto r = std::make_unique<Running>();
    r->ticket = ticket;
    r->tokens = job.prompt;
    r->seen = caches_.take(job.prompt, length_of(job), !job.scores_prompt);
    r->cached = r->fed();
    if (job.scores_prompt) ticket->put({Event::Kind::prompt_token, {job.prompt.front(), {}, {}}});
    running_.push_back(std::move(r));
  }
}

/// How many tokens of each sequence the next pass takes; 0: none of it.
std::vector<Index> Scheduler::sizes_of_feeds() const {
  std::vector<Index> sizes(running_.size());
  Index room = engine_->pass_tokens();
  for (const bool continued : {true, false})  // texts first: somebody reads along
    for (std::size_t i = 0; i < running_.size(); ++i) {
      if (running_[i]->is_continued() != continued) continue;
      sizes[i] = std::min(room, running_[i]->unfed());
      room -= sizes[i];
    }
  return sizes;
}

void Scheduler::pass() {
  const std::vector<Index> sizes = sizes_of_feeds();
  const Index longest = std::max<Index>(1, *std::max_element(sizes.begin(), sizes.end()));
  std::vector<Index> positions;
  const std::vector<std::int32_t> begin(static_cast<std::size_t>(longest));  // one document each
  for (std::size_t i = 0; i < running_.size(); ++i)
    for (Index t = 0; t < sizes[i]; ++t) positions.push_back(running_[i]->fed() + t);

  std::vector<Feed> feeds;
  std::vector<std::size_t> owner;
  std::size_t at = 0;
  bool all_rows = false;
  for (std::size_t i = 0; i < running_.size(); ++i) {
    if (sizes[i] == 0) continue;
    Running& r = *running_[i];
    const auto n = static_cast<std::size_t>(sizes[i]);
    feeds.push_back({r.seen.cache.get(), std::span(r.tokens).subspan(r.seen.tokens.size(), n),
                     std::span(positions).subspan(at, n), std::span(begin).first(n)});
    owner.push_back(i);
    at += n;
    all_rows = all_rows || (r.job().scores_prompt && !r.is_continued());
  }
  const Index V = engine_->config().vocab_size,
              rows = static_cast<Index>(all_rows ? at : feeds.size());
  logits_.resize(static_cast<std::size_t>(rows * V));
  engine_->forward(feeds, all_rows ? LogitsOf::every_token : LogitsOf::last_of_each_feed,
                   {logits_.data(), {rows, V}});

  Index row = 0;
  for (std::size_t f = 0; f < feeds.size(); ++f) {
    const Index n = all_rows ? feeds[f].size() : 1;
    take_logits(*running_[owner[f]], feeds[f].size(), {logits_.data() + row * V, {n, V}});
    row += n;
  }
}

/// `rows`: logits behind the `fed` tokens of the last pass, or behind the last of them.
void Scheduler::take_logits(Running& r, Index fed, View<const float, 2> rows) {
  const Index first = r.fed();
  r.seen.tokens.insert(r.seen.tokens.end(), r.tokens.begin() + first,
                       r.tokens.begin() + first + fed);
  try {
    if (r.job().scores_prompt && !r.is_continued()) score_prompt(r, first, rows);
    if (r.unfed() == 0) go_on(r, rows[rows.shape[0] - 1]);
  } catch (const std::exception& error) {  // logits that are no numbers: of this sequence alone
    finish(r, Event::Kind::failed, error.what());
  }
}

void Scheduler::score_prompt(Running& r, Index first, View<const float, 2> rows) {
  const auto& prompt = r.job().prompt;
  for (Index t = 0; t < rows.shape[0]; ++t) {
    const auto next = static_cast<std::size_t>(first + t + 1);
    if (next < prompt.size())
      r.ticket->put({Event::Kind::prompt_token,
                     scored(prompt[next], rows[t], r.job().likeliest.value_or(0))});
  }
}

void Scheduler::go_on(Running& r, View<const float, 1> logits) {
  const Job& job = r.job();
  if (r.drawn == job.max_tokens) return finish(r, Event::Kind::length);
  const Token next = text::sample(logits, job.sampling, static_cast<std::uint64_t>(r.drawn++));
  if (std::find(stop_.begin(), stop_.end(), next) != stop_.end())
    return finish(r, Event::Kind::stop);
  r.ticket->put({Event::Kind::token,
                 job.likeliest ? scored(next, logits, *job.likeliest) : Scored{next, {}, {}}});
  r.tokens.push_back(next);
  if (r.drawn == job.max_tokens) finish(r, Event::Kind::length);
}

void Scheduler::finish(Running& r, Event::Kind kind, const std::string& sentence) {
  if (r.is_done) return;
  r.is_done = true;
  if (kind == Event::Kind::failed) r.seen.cache.reset();
  caches_.give_back(std::move(r.seen), length_of(r.job()));
  r.ticket->put({kind, {}, sentence, r.cached});
}

void Scheduler::fail_all(const std::string& sentence) {
  for (const auto& r : running_) finish(*r, Event::Kind::failed, sentence);
  const std::lock_guard lock(mutex_);
  if (!ends_) return;
  for (const auto& ticket : waiting_) ticket->put({Event::Kind::failed, {}, sentence});
  waiting_.clear();
}

}  // namespace dsa::run::serve
