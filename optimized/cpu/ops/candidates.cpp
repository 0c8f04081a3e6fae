#include "optimized/cpu/ops/candidates.hpp"

#include <algorithm>
#include <numeric>

namespace dsa::cpu {

void take_all(Candidates& c, Index begin, Index end) {
  c.count = end - begin;
  std::fill_n(c.keys, c.count, 0);
  std::iota(c.indices, c.indices + c.count, static_cast<std::int32_t>(begin));
}

void add_candidates(Cpu cpu, Candidates& to, Candidates& from, Index K) {
  KeepLargest* const keep = keep_largest_of[int(cpu.tier)];
  keep(to, K);
  keep(from, K);
  std::copy_n(from.keys, from.count, to.keys + to.count);
  std::copy_n(from.indices, from.count, to.indices + to.count);
  to.count += from.count;
  keep(to, K);
}

void write_candidates(Cpu cpu, Candidates& c, std::int32_t* chosen, Index K) {
  keep_largest_of[int(cpu.tier)](c, K);
  std::copy_n(c.indices, c.count, chosen);
  std::fill(chosen + c.count, chosen + K, -1);
}

}  // namespace dsa::cpu
