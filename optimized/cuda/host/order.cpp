#include "optimized/cuda/host/order.hpp"

#include <algorithm>
#include <utility>

#include "optimized/cuda/host/block.hpp"

namespace dsa::cuda::host {
namespace {

constexpr std::size_t many_members = std::size_t{1} << 20;

struct Order {
  Time now = 1, began = 0, all = 0;
  std::vector<Time> warps;  // the last __syncwarp
  std::vector<Clock> told;  // by thread, what mbarriers told it

  /// Set i is members [begin[i], begin[i + 1]).
  std::vector<Mark> members;
  std::vector<std::size_t> begin{0};
  std::size_t crowded_at = many_members;
  /// To which sets the thread of this mark was added, and what became of them: bytes that were
  /// accessed by the same threads share one.
  Mark adding;
  std::vector<std::pair<Mark, Mark>> added;

  Observer observer;  // of the running thread

  void know_all() {
    all = now++;
    members.clear();
    begin.assign(1, 0);
  }
  /// Calls f for every mark of several, or for the one.
  template <class F>
  void each(Mark mark, F f) const {
    if (mark.actor() < first_set) return f(mark);
    const std::size_t set = mark.actor() - first_set;
    for (std::size_t i = begin[set]; i < begin[set + 1]; ++i) f(members[i]);
  }
};

thread_local Order order;

void join(Clock& clock, const Clock& other) {
  if (clock.size() < other.size()) clock.resize(other.size());
  for (std::size_t i = 0; i < other.size(); ++i) clock[i] = std::max(clock[i], other[i]);
}

}  // namespace

Observer::Observer(Actor thread) {
  const Order& o = order;
  mine_ = Mark(o.now, thread);
  began_ = o.began;
  all_ = o.all;
  warp_ = thread / warp_size;
  lanes_ = o.warps[warp_];
  told_ = &o.told[thread];
  crowded_ = o.members.size() > o.crowded_at;
}

void observe_as(int thread) { order.observer = Observer(static_cast<Actor>(thread)); }

const Observer& observer() { return order.observer; }

Mark Observer::stranger(Mark mark) const {
  Mark unknown;
  order.each(mark, [&](Mark one) {
    if (!knows(one)) unknown = one;
  });
  return unknown;
}

Mark Observer::added_to(Mark others) const {
  Order& o = order;
  if (o.adding != mine_) o.adding = mine_, o.added.clear();
  for (const auto& [before, after] : o.added)
    if (before == others) return after;
  const std::size_t first = o.begin.back();
  if (others.actor() < first_set) {
    if (!knows(others)) o.members.push_back(others);
  } else {
    const std::size_t set = others.actor() - first_set;
    for (std::size_t i = o.begin[set]; i < o.begin[set + 1]; ++i) {
      const Mark one = o.members[i];
      if (!knows(one)) o.members.push_back(one);
    }
  }
  Mark all = mine_;
  if (o.members.size() > first) {
    all = Mark(mine_.time(), first_set + static_cast<Actor>(o.begin.size() - 1));
    o.members.push_back(mine_);
    o.begin.push_back(o.members.size());
  }
  o.added.emplace_back(others, all);
  return all;
}

SetsInUse::SetsInUse() : members_(std::move(order.members)), begin_(std::move(order.begin)) {
  order.members.clear();
  order.begin.assign(1, 0);
  order.adding = Mark();
}

SetsInUse::~SetsInUse() {
  order.crowded_at = std::max(many_members, 2 * order.members.size());
  observe_as(thread_number());
}

void SetsInUse::keep(Mark& mark) {
  if (mark.time() <= order.all || mark.actor() < first_set) return;
  const std::size_t set = mark.actor() - first_set;
  const auto [number, is_new] =
      number_.try_emplace(mark.actor(), first_set + static_cast<Actor>(order.begin.size() - 1));
  if (is_new) {
    for (std::size_t i = begin_[set]; i < begin_[set + 1]; ++i)
      order.members.push_back(members_[i]);
    order.begin.push_back(order.members.size());
  }
  mark = Mark(mark.time(), number->second);
}

void begin_order(std::size_t threads) {
  order.know_all();
  order.began = order.all;
  order.warps.assign((threads + warp_size - 1) / warp_size, 0);
  order.told.resize(threads);
  for (Clock& clock : order.told) clock.clear();
}

void order_block() {
  order.know_all();
  observe_as(thread_number());
}

void order_warp(int first_thread, int lanes) {
  order.warps[static_cast<std::size_t>(first_thread / warp_size)] = order.now++;
  Clock told;
  const auto first = order.told.begin() + first_thread;
  for (auto lane = first; lane != first + lanes; ++lane) join(told, *lane);
  if (!told.empty()) std::fill(first, first + lanes, told);
  observe_as(thread_number());
}

Mark act(Actor actor, Clock& clock) {
  if (clock.size() <= actor) clock.resize(actor + 1);
  clock[actor] = order.now;
  const Mark mark(order.now++, actor);
  observe_as(thread_number());
  return mark;
}

Mark release(Clock& clock) {
  const auto thread = static_cast<Actor>(thread_number()), first = thread / warp_size * warp_size;
  join(clock, order.told[thread]);
  if (clock.size() < order.told.size()) clock.resize(order.told.size());
  for (std::size_t lane = first; lane < first + warp_size && lane < order.told.size(); ++lane)
    clock[lane] = std::max(clock[lane], order.warps[thread / warp_size]);
  return act(thread, clock);
}

void acquire(const Clock& clock) {
  join(order.told[static_cast<std::size_t>(thread_number())], clock);
  observe_as(thread_number());
}

}  // namespace dsa::cuda::host
