#include "cli/progress.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>

namespace dsa::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t longest_name = 36;  // the whole line fits into 90 columns

/// "40 s", "3 min 20 s", "2 h 5 min".
std::string duration(double seconds) {
  const auto s = static_cast<long long>(std::ceil(seconds));
  if (s < 60) return fmt::format("{} s", s);
  if (s < 3600) return fmt::format("{} min {} s", s / 60, s % 60);
  return fmt::format("{} h {} min", s / 3600, s % 3600 / 60);
}

/// The line on the terminal, and since when it speaks of the same work.
class Line {
 public:
  void show(const std::string& what, int done, int of) {
    const auto now = Clock::now();
    if (what != what_ || done < done_) what_ = what, begin_ = now;
    done_ = done;
    if (done < of && now - drawn_ < std::chrono::milliseconds(100)) return;
    drawn_ = now;
    const double share = of > 0 ? static_cast<double>(done) / of : 0;
    const double seconds = std::chrono::duration<double>(now - begin_).count();
    std::fprintf(stderr, "\r\033[K%s", progress_line(what, share, seconds).c_str());
    std::fflush(stderr);
  }

 private:
  std::string what_;
  int done_ = 0;
  Clock::time_point begin_ = Clock::now(), drawn_ = {};
};

}  // namespace

std::string progress_line(const std::string& what, double share, double seconds_so_far) {
  constexpr int width = 24;
  share = std::clamp(share, 0.0, 1.0);
  std::string bar(static_cast<std::size_t>(width * share), '#');
  bar.resize(width, ' ');
  const std::string name =
      what.size() <= longest_name ? what : what.substr(0, longest_name - 2) + "..";
  std::string line = fmt::format("{}  [{}] {:>3.0f} %", name, bar, std::floor(100 * share));
  // The first second says little of the last ones.
  if (share > 0 && share < 1 && seconds_so_far >= 1)
    line += ", " + duration(seconds_so_far * (1 - share) / share) + " left";
  return line;
}

Progress progress() {
  if (!isatty(STDERR_FILENO)) return nullptr;
  return [line = std::make_shared<Line>()](const std::string& what, int done, int of) {
    line->show(what, done, of);
  };
}

Progress part_of(const Progress& whole, const std::string& name, int i, int n) {
  if (!whole) return nullptr;
  return [=](const std::string&, int done, int of) {
    constexpr int steps = 100;  // of one part
    whole(name, i * steps + (of > 0 ? steps * done / of : 0), n * steps);
  };
}

void end_progress() {
  if (isatty(STDERR_FILENO)) std::fprintf(stderr, "\r\033[K");
}

}  // namespace dsa::cli
