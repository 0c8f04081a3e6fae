#include "optimized/cuda/host/order.hpp"

#include <algorithm>
#include <bitset>
#include <utility>

#include "optimized/cuda/host/block.hpp"

namespace dsa::cuda::host {
namespace {

constexpr std::size_t many_sets = std::size_t{1} << 18;

struct Order {
  Time now = 1, began = 0, all = 0;
  std::vector<Time> warps;  // the last __syncwarp
  std::vector<Clock> told;  // by thread, what mbarriers and fences told it
  bool fences = false;      // whether the block has any

  std::vector<MarkSet> sets;
  std::size_t crowded_at = many_sets;
  /// To which sets the thread of this mark was added, and what became of them: bytes that were
  /// accessed by the same threads share one.
  Mark adding;
  std::vector<std::pair<Mark, Mark>> added;

  Observer observer;  // of the running thread

  void know_all() {
    all = now++;
    sets.clear();
  }
  Mark add(const MarkSet& set) {
    sets.push_back(set);
    return Mark(set.one.time(), first_set + static_cast<Actor>(sets.size() - 1));
  }
  /// Calls f for every mark of several, or for the one; the latest first.
  template <class F>
  void each(Mark mark, F f) const {
    for (; is_set(mark); mark = sets[mark.actor() - first_set].rest)
      f(sets[mark.actor() - first_set].one);
    f(mark);
  }
};

thread_local Order order;

void join(std::vector<Time>& times, const std::vector<Time>& others) {
  if (times.size() < others.size()) times.resize(others.size());
  for (std::size_t i = 0; i < others.size(); ++i) times[i] = std::max(times[i], others[i]);
}

void join(Clock& clock, const Clock& other) {
  join(clock.known, other.known);
  join(clock.fenced, other.fenced);
  clock.all_fenced = std::max(clock.all_fenced, other.all_fenced);
}

/// Joins what several threads know into one, and gives it to each.
void share(std::vector<Clock>::iterator first, std::vector<Clock>::iterator last) {
  Clock told;
  for (auto lane = first; lane != last; ++lane) join(told, *lane);
  if (!told.known.empty() || told.all_fenced > 0) std::fill(first, last, told);
}

/// Up to when the running thread knows of the accesses of the lanes of its warp.
void join_lanes(std::vector<Time>& times, Actor thread) {
  const Order& o = order;
  const Actor first = thread / warp_size * warp_size;
  if (times.size() < o.told.size()) times.resize(o.told.size());
  for (std::size_t lane = first; lane < first + warp_size && lane < o.told.size(); ++lane)
    times[lane] = std::max(times[lane], o.warps[thread / warp_size]);
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
  crowded_ = o.sets.size() > o.crowded_at;
}

Observer Observer::wgmma_of(Actor first_lane) {
  Observer wgmma(first_lane);
  wgmma.mine_ = Mark(order.now, first_wgmma + first_lane / warp_size);
  return wgmma;
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
  if (is_set(others) && o.sets[others.actor() - first_set].one == mine_) return others;
  if (o.adding != mine_) {
    o.adding = mine_;
    o.added.clear();
  }
  for (const auto& [before, after] : o.added)
    if (before == others) return after;
  const std::size_t most = 2 * o.told.size();
  Mark all;
  if (is_set(others) && o.sets[others.actor() - first_set].size < most) {
    all = o.add({mine_, others, o.sets[others.actor() - first_set].size + 1});
  } else {  // only what tells something: of every thread the latest, unless I know it
    std::bitset<first_mbarrier> told;  // only threads and wgmma read
    std::vector<Mark> unknown;
    o.each(others, [&](Mark one) {
      if (!told[one.actor()] && !knows(one)) unknown.push_back(one);
      told[one.actor()] = true;
    });
    unknown.insert(unknown.begin(), mine_);
    all = unknown.back();
    for (std::size_t i = unknown.size() - 1; i-- > 0;)
      all = o.add({unknown[i], all, unknown.size() - i});
  }
  o.added.emplace_back(others, all);
  return all;
}

SetsInUse::SetsInUse() : sets_(std::exchange(order.sets, {})) { order.adding = Mark(); }

SetsInUse::~SetsInUse() {
  order.crowded_at = std::max(many_sets, 2 * order.sets.size());
  observe_as(thread_number());
}

void SetsInUse::keep(Mark& mark) {
  if (mark.time() <= order.all) return;
  std::vector<Actor> to_keep;
  Mark kept = mark;
  for (; is_set(kept) && !number_.contains(kept.actor());
       kept = sets_[kept.actor() - first_set].rest)
    to_keep.push_back(kept.actor());
  if (is_set(kept)) kept = number_[kept.actor()];
  for (auto set = to_keep.rbegin(); set != to_keep.rend(); ++set) {
    const MarkSet& old = sets_[*set - first_set];
    number_[*set] = kept = order.add({old.one, kept, old.size});
  }
  mark = kept;
}

void begin_order(std::size_t threads) {
  order.know_all();
  order.began = order.all;
  order.warps.assign((threads + warp_size - 1) / warp_size, 0);
  order.told.resize(threads);
  for (Clock& clock : order.told) clock = {};
  order.fences = false;
}

void order_block() {
  order.know_all();
  if (order.fences) share(order.told.begin(), order.told.end());
  observe_as(thread_number());
}

void order_warp(int first_thread, int lanes) {
  order.warps[static_cast<std::size_t>(first_thread / warp_size)] = order.now++;
  const auto first = order.told.begin() + first_thread;
  share(first, first + lanes);
  observe_as(thread_number());
}

void fence_known_accesses() {
  const auto thread = static_cast<Actor>(thread_number());
  Clock& mine = order.told[thread];
  join(mine.fenced, mine.known);
  join_lanes(mine.fenced, thread);
  mine.fenced[thread] = order.now;
  mine.all_fenced = order.all;
  order.fences = true;
  advance();
}

Time advance() {
  const Time before = order.now++;
  observe_as(thread_number());
  return before;
}

void finish_wgmma(int first_lane) {
  const Actor actor = first_wgmma + static_cast<Actor>(first_lane / warp_size);
  for (int lane = first_lane; lane < first_lane + warp_size; ++lane) {
    std::vector<Time>& known = order.told[static_cast<std::size_t>(lane)].known;
    if (known.size() <= actor) known.resize(actor + 1);
    known[actor] = order.now;
  }
}

Mark act(Actor actor, Clock& clock) {
  if (clock.known.size() <= actor) clock.known.resize(actor + 1);
  clock.known[actor] = order.now;
  const Mark mark(order.now++, actor);
  observe_as(thread_number());
  return mark;
}

Mark release(Clock& clock) {
  const auto thread = static_cast<Actor>(thread_number());
  join(clock, order.told[thread]);
  join_lanes(clock.known, thread);
  return act(thread, clock);
}

void acquire(const Clock& clock) {
  join(order.told[static_cast<std::size_t>(thread_number())], clock);
  observe_as(thread_number());
}

}  // namespace dsa::cuda::host
