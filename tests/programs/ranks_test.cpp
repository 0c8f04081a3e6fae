// dsa-train as several processes: one result, and an end in bounded time whatever ends one of them.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <thread>
#include <utility>
#include <vector>

#include "tests/programs/programs.hpp"

using namespace dsa;
using namespace dsa::test;
using Catch::Matchers::Contains;

namespace {

/// Ranks of one job, each a process; those that are left are killed in the end.
class Job {
 public:
  Job(int n, const std::filesystem::path& out, const std::string& more = "") : out_(out) {
    std::filesystem::create_directories(out);
    for (int rank = 0; rank < n; ++rank) start(rank, n, more);
  }
  ~Job() {
    for (const pid_t child : children_)
      if (child > 0) kill(child, SIGKILL), waitpid(child, nullptr, 0);
  }
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  void signal(std::size_t rank, int number) const { kill(children_[rank], number); }

  /// Its exit status; 128 and the signal of one that was killed.
  int status(std::size_t rank) {
    int status = 0;
    waitpid(std::exchange(children_[rank], 0), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  std::vector<int> statuses() {
    std::vector<int> all;
    for (std::size_t rank = 0; rank < children_.size(); ++rank) all.push_back(status(rank));
    return all;
  }
  std::string said(std::size_t rank) const { return read_text(log(rank)); }

  void wait_for_step(const std::string& step) const {
    const auto file = out_ / "metrics.jsonl";
    for (int i = 0; i < 60'000; ++i) {
      if (std::filesystem::exists(file) &&
          read_text(file).find("\"step\":" + step + ",") != std::string::npos)
        return;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    FAIL("the job did not reach step " << step << "; rank 0 said " << said(0));
  }

 private:
  std::filesystem::path log(std::size_t rank) const {
    return out_.string() + ".rank" + std::to_string(rank);
  }
  void start(int rank, int n, const std::string& more) {
    const std::string command = "exec env RANK=" + std::to_string(rank) +
                                " WORLD_SIZE=" + std::to_string(n) + " " + binary_dir() +
                                "/dsa-train " + source_dir() +
                                "/data/train/tiny.toml data.source=synthetic:recall"
                                " stage.sft.source=synthetic:recall stage.levels=4 data.batch=4"
                                " stage.accumulation=4 run.threads=1 run.save_every=4 run.out=" +
                                out_.string() + " " + more;
    const std::string file = log(static_cast<std::size_t>(rank)).string();
    const pid_t child = fork();
    if (child == 0) {
      const int out = ::open(file.c_str(), O_CREAT | O_TRUNC | O_WRONLY, 0644);
      dup2(out, STDOUT_FILENO);
      dup2(out, STDERR_FILENO);
      execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
      _exit(127);
    }
    children_.push_back(child);
  }

  std::filesystem::path out_;
  std::vector<pid_t> children_;
};

std::string weights_of(const std::filesystem::path& out) {
  const auto checkpoint = out / "ckpt" / "step-44";
  return read_text(checkpoint / "model.safetensors") + read_text(checkpoint / "state.safetensors");
}

/// Weights and moments of a run in one process.
const std::string& whole_run() {
  static const Scratch scratch;
  static const std::string weights = [] {
    Job job(1, scratch / "whole");
    CHECK(job.statuses() == std::vector<int>{0});
    return weights_of(scratch / "whole");
  }();
  return weights;
}

}  // namespace

TEST_CASE("two and four processes write the files of one", "[programs][ranks][slow]") {
  const Scratch scratch;
  for (const int n : {2, 4}) {
    const auto out = scratch / std::to_string(n);
    Job job(n, out);
    CHECK(job.statuses() == std::vector<int>(static_cast<std::size_t>(n), 0));
    CHECK_THAT(job.said(0), Contains("complete after 44 steps"));
    CHECK(job.said(1).empty());
    CHECK(weights_of(out) == whole_run());
  }
}

TEST_CASE("a process that is killed ends the job by name, and others go on",
          "[programs][ranks][slow]") {
  const Scratch scratch;
  const auto out = scratch / "killed";
  {
    Job job(4, out);
    job.wait_for_step("9");
    job.signal(2, SIGKILL);
    CHECK(job.status(2) == 128 + SIGKILL);
    for (const std::size_t rank : {0, 1, 3}) {
      CHECK(job.status(rank) == 2);
      CHECK_THAT(job.said(rank), Contains("rank 2 of 4 (process ") &&
                                     Contains("ended without a word") &&
                                     Contains("goes on at the newest"));
    }
  }
  Job job(2, out);
  CHECK(job.statuses() == std::vector<int>{0, 0});
  CHECK_THAT(job.said(0), Contains("resumed from"));
  CHECK(weights_of(out) == whole_run());
}

TEST_CASE("a process that hangs ends the job by name", "[programs][ranks][slow]") {
  const Scratch scratch;
  Job job(2, scratch / "stopped", "run.rank_timeout=2");
  job.wait_for_step("5");
  job.signal(1, SIGSTOP);
  CHECK(job.status(0) == 2);
  CHECK_THAT(job.said(0), Contains("rank 1 of 2 (process ") && Contains("was silent for 2 s"));
}

TEST_CASE("a signal to one process saves the run of all", "[programs][ranks][slow]") {
  const Scratch scratch;
  const auto out = scratch / "interrupted";
  {
    Job job(2, out);
    job.wait_for_step("7");
    job.signal(1, SIGTERM);
    CHECK(job.statuses() == std::vector<int>{130, 130});
    CHECK_THAT(job.said(0), Contains("interrupted at step"));
  }
  Job job(1, out);
  CHECK(job.statuses() == std::vector<int>{0});
  CHECK(weights_of(out) == whole_run());
}

TEST_CASE("the plan of many ranks is printed without having them", "[programs][ranks]") {
  const Outcome plan =
      run("dsa-train " + source_dir() +
          "/data/train/tiny.toml --dry-run --rank-gflops 20 --ranks 8,4096 run.seed=1");
  CHECK(plan.status == 0);
  CHECK_THAT(plan.out, Contains("ranks at 20 GFLOP/s") && Contains(" 4096 "));
  CHECK_THAT(complaint("dsa-train --dry-run --ranks 0"), Contains("--ranks"));
}
