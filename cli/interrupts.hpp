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

}  // namespace dsa::cli
