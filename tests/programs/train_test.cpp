#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "core/json.hpp"
#include "core/random.hpp"
#include "tests/programs/programs.hpp"

using namespace dsa;
using namespace dsa::test;
using Catch::Matchers::Contains;

namespace {

const std::string tiny = source_dir() + "/data/train/tiny.toml";

std::string in(const std::filesystem::path& out) {
  return "dsa-train " + tiny + " data.source=synthetic:recall stage.sft.source=synthetic:recall" +
         " stage.levels=4 run.save_every=2 run.threads=1 run.out=" + out.string();
}

/// Starts the program, sends it a signal after a while, and returns what became of it.
int signalled(const std::filesystem::path& out, int signal, std::chrono::milliseconds after) {
  const pid_t child = fork();
  if (child == 0) {
    const int null = ::open("/dev/null", O_WRONLY);
    dup2(null, STDOUT_FILENO);
    dup2(null, STDERR_FILENO);
    const std::string command = "exec " + binary_dir() + "/" + in(out);
    execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
    _exit(127);
  }
  std::this_thread::sleep_for(after);
  kill(child, signal);
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

std::string weights_of(const std::filesystem::path& out) {
  return read_text(out / "ckpt" / "step-44" / "model.safetensors") +
         read_text(out / "ckpt" / "step-44" / "state.safetensors");
}

}  // namespace

TEST_CASE("dsa-train trains every stage of its example", "[programs]") {
  const Scratch scratch;
  const Outcome result = run("dsa-train " + tiny + " stage.sft.source=chat:" + source_dir() +
                             "/data/train/chat.jsonl run.out=" + (scratch / "a").string());
  CHECK(result.status == 0);
  CHECK(result.err.empty());
  CHECK_THAT(result.out, Contains("complete after 44 steps"));
  CHECK(std::filesystem::exists(scratch / "a" / "ckpt" / "step-44" / "config.json"));
}

TEST_CASE("kills at any moment lose nothing that was saved", "[programs][slow]") {
  const Scratch scratch;
  REQUIRE(run(in(scratch / "whole")).status == 0);
  const auto out = scratch / "killed";
  for (std::uint64_t i = 0; i < 8; ++i)
    signalled(out, SIGKILL, std::chrono::milliseconds(20 + random_bits(11, i) % 400));
  REQUIRE(run(in(out)).status == 0);
  CHECK(weights_of(out) == weights_of(scratch / "whole"));
}

TEST_CASE("an interrupted run is saved and goes on", "[programs][slow]") {
  const Scratch scratch;
  REQUIRE(run(in(scratch / "whole")).status == 0);
  const int status = signalled(scratch / "a", SIGINT, std::chrono::milliseconds(150));
  CHECK((WIFSIGNALED(status) || WEXITSTATUS(status) == 130 || WEXITSTATUS(status) == 0));
  REQUIRE(run(in(scratch / "a")).status == 0);
  CHECK(weights_of(scratch / "a") == weights_of(scratch / "whole"));
}

TEST_CASE("dsa-train says in one sentence what it cannot do", "[programs]") {
  CHECK_THAT(complaint("dsa-train"), Contains("subcommand"));
  CHECK_THAT(complaint("dsa-train run"), Contains("no configuration is named"));
  CHECK_THAT(complaint("dsa-train none.toml"), Contains("cannot read none.toml"));
  CHECK_THAT(complaint("dsa-train " + tiny + " stage.lr=nan"), Contains("stage.lr is NaN"));
  CHECK_THAT(complaint("dsa-train " + tiny + " run.stepz=1"), Contains("did you mean run.steps?"));
  CHECK_THAT(complaint("dsa-train --replay none"), Contains("cannot read none/config.toml"));
}

TEST_CASE("a plan and a configuration are printed without training", "[programs]") {
  const Outcome plan = run("dsa-train " + tiny + " --dry-run");
  CHECK(plan.status == 0);
  CHECK_THAT(plan.out, Contains("together: 44 steps"));
  const Outcome keys = run("dsa-train " + tiny + " --print-config --dsa-indexer-loss-coeff 0.5");
  CHECK(keys.status == 0);
  CHECK_THAT(keys.out, Contains("command line, as dsa-indexer-loss-coeff"));
  CHECK_THAT(run("dsa-train --help").out, Contains("merge"));
}
