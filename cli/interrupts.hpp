// cli/interrupts.hpp — Ctrl-C and its like, after which nothing half-written may lie about.
#pragma once

#include <csignal>
#include <string>
#include <thread>
#include <vector>

namespace dsa::cli {

/// While it lives, SIGINT, SIGTERM and SIGHUP end the process with status 130, after every
/// temporary file was removed (core/temporary.hpp). The second of the same kind ends it at once. A
/// SIGHUP that was ignored stays so (nohup). At most one may live at a time.
class Interrupts {
 public:
  explicit Interrupts(std::string program);
  ~Interrupts();
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;

 private:
  struct Before {
    int signal;
    struct sigaction action;
  };
  std::vector<Before> before_;
  std::thread watcher_;
};

/// While it lives, the first SIGINT, SIGTERM or SIGHUP ends nothing: the program asks, saves what
/// it has, and returns 130 itself. The second of the same kind ends the process at once.
class PostponedInterrupts {
 public:
  PostponedInterrupts();
  ~PostponedInterrupts();
  PostponedInterrupts(const PostponedInterrupts&) = delete;
  PostponedInterrupts& operator=(const PostponedInterrupts&) = delete;

  bool arrived() const;
};

}  // namespace dsa::cli
