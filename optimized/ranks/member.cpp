#include "optimized/ranks/member.hpp"

#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

namespace dsa::ranks {
namespace {

std::string host_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "unknown";
}

/// Drawn by the kernel when it started.
std::string boot_id() {
  std::ifstream in("/proc/sys/kernel/random/boot_id");
  std::string id;
  return std::getline(in, id) ? id : host_name();
}

std::vector<int> cores_of_this_process() {
  cpu_set_t mine;
  std::vector<int> cores;
  if (::sched_getaffinity(0, sizeof mine, &mine) != 0) return cores;
  for (int core = 0; core < CPU_SETSIZE; ++core)
    if (CPU_ISSET(core, &mine)) cores.push_back(core);
  return cores;
}

}  // namespace

Json to_json(const Member& m) {
  return {{"rank", m.rank}, {"address", m.address}, {"port", m.port},  {"pid", m.pid},
          {"host", m.host}, {"machine", m.machine}, {"cores", m.cores}};
}

Member member_of(const Json& json) {
  return {json.at("rank").get<int>(),
          json.at("address").get<std::string>(),
          json.at("port").get<int>(),
          json.at("pid").get<int>(),
          json.at("host").get<std::string>(),
          json.at("machine").get<std::string>(),
          json.at("cores").get<std::vector<int>>()};
}

Member this_process(int rank) {
  return {
      rank, "", 0, static_cast<int>(::getpid()), host_name(), boot_id(), cores_of_this_process()};
}

int threads_of(const Member& member, const std::vector<Member>& all) {
  double share = 0;
  for (const int core : member.cores) {
    const auto sharers = std::count_if(all.begin(), all.end(), [&](const Member& other) {
      return other.machine == member.machine &&
             std::find(other.cores.begin(), other.cores.end(), core) != other.cores.end();
    });
    share += 1 / static_cast<double>(std::max<std::ptrdiff_t>(sharers, 1));
  }
  constexpr double rounding = 1e-6;  // a third of a core three times is a core
  return std::max(1, static_cast<int>(share + rounding));
}

std::string name_of(const Member& member, std::size_t of) {
  return fmt::format("rank {} of {} (process {} on {})", member.rank, of, member.pid, member.host);
}

std::string slow_rank(const std::vector<double>& seconds, const std::vector<Member>& members) {
  constexpr double much = 1.5, noise = 0.05;
  const auto slowest = std::max_element(seconds.begin(), seconds.end()) - seconds.begin();
  std::vector<double> others = seconds;
  others.erase(others.begin() + slowest);
  std::erase(others, 0.0);
  if (others.empty()) return {};
  std::sort(others.begin(), others.end());
  const double median = others[others.size() / 2];
  const auto i = static_cast<std::size_t>(slowest);
  if (seconds[i] < much * median || seconds[i] < median + noise) return {};
  return fmt::format("{} is slow: {:.3g} s a micro-batch, the median of the others is {:.3g} s",
                     name_of(members[i], members.size()), seconds[i], median);
}

}  // namespace dsa::ranks
