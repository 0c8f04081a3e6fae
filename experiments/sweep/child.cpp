#include "experiments/sweep/child.hpp"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <sstream>
#include <system_error>

#include "core/check.hpp"
#include "core/file.hpp"

namespace dsa::sweep {
namespace {

constexpr int not_started = 127;  // a shell's word for it

std::string last_line_of(const std::filesystem::path& log) {
  std::istringstream in(read_text(log));
  std::string last;
  for (std::string line; std::getline(in, line);)
    if (line.find_first_not_of(" \t\r") != std::string::npos) last = line;
  return last;
}

/// In the child: only calls that are safe after fork().
[[noreturn]] void become(char* const* words, int log, pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) ::_exit(not_started);  // it ended before the line above
  const int nothing = ::open("/dev/null", O_RDONLY);
  ::dup2(nothing, STDIN_FILENO);
  ::dup2(log, STDOUT_FILENO);
  ::dup2(log, STDERR_FILENO);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) std::signal(signal, SIG_DFL);
  ::execvp(words[0], words);
  ::_exit(not_started);
}

double seconds(const timeval& t) {
  return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
}

}  // namespace

Ended run_child(const std::vector<std::string>& command, const std::filesystem::path& log) {
  std::vector<std::string> words = command;
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  const int file = ::open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  require(file >= 0,
          "cannot write " + log.string() + ": " + std::generic_category().message(errno));
  const auto begin = std::chrono::steady_clock::now();
  const pid_t parent = ::getpid(), child = ::fork();
  if (child == 0) become(pointers.data(), file, parent);
  ::close(file);
  require(child > 0, "cannot start " + command[0] + ": " + std::generic_category().message(errno));
  int status = 0;
  rusage used{};
  while (::wait4(child, &status, 0, &used) < 0)
    require(errno == EINTR,
            "cannot wait for " + command[0] + ": " + std::generic_category().message(errno));
  Ended ended;
  ended.wall_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  ended.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  ended.cpu_s = seconds(used.ru_utime) + seconds(used.ru_stime);
  ended.peak_mib = static_cast<double>(used.ru_maxrss) / 1024;
  ended.last_line = last_line_of(log);
  require(ended.status != not_started || !ended.last_line.empty(),
          "cannot start " + command[0] + "; build it, or name it with --trainer");
  return ended;
}

bool was_interrupted(const Ended& ended) {
  return ended.status == 130 || ended.status == 128 + SIGINT || ended.status == 128 + SIGTERM;
}

}  // namespace dsa::sweep
