#include "cli/interrupts.hpp"

#include <semaphore.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "cli/progress.hpp"
#include "core/temporary.hpp"

namespace dsa::cli {
namespace {

// A signal handler can reach nothing but globals, and may do little more than post a semaphore: a
// thread that waits for it removes the files.
sem_t arrived;
std::atomic<bool> is_over = false;
std::atomic<bool> is_postponed = false, has_arrived = false;

void wait_and_end(const std::string& program) {
  do {
    while (sem_wait(&arrived) != 0 && errno == EINTR) {
    }
    if (is_over) return;
    has_arrived = true;
  } while (is_postponed);
  const auto nobody_writes_now = remove_temporaries();
  end_progress();
  const std::string line = program + ": interrupted\n";
  // Nobody is left to tell where stderr is closed.
  if (::write(STDERR_FILENO, line.data(), line.size()) < 0) ::_exit(130);
  ::_exit(130);
}

}  // namespace

Interrupts::Interrupts(std::string program) {
  is_over = false;
  sem_init(&arrived, 0, 0);
  watcher_ = std::thread([program = std::move(program)] { wait_and_end(program); });
  struct sigaction note {};
  note.sa_handler = [](int) { sem_post(&arrived); };
  note.sa_flags = static_cast<int>(SA_RESETHAND) | SA_RESTART;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    Before before{signal, {}};
    sigaction(signal, nullptr, &before.action);
    if (signal == SIGHUP && before.action.sa_handler == SIG_IGN) continue;
    sigaction(signal, &note, nullptr);
    before_.push_back(before);
  }
}

Interrupts::~Interrupts() {
  for (const Before& before : before_) sigaction(before.signal, &before.action, nullptr);
  is_over = true;
  sem_post(&arrived);
  watcher_.join();
  sem_destroy(&arrived);
}

PostponedInterrupts::PostponedInterrupts() {
  has_arrived = false;
  is_postponed = true;
}

PostponedInterrupts::~PostponedInterrupts() { is_postponed = false; }

bool PostponedInterrupts::arrived() const { return has_arrived; }

}  // namespace dsa::cli
