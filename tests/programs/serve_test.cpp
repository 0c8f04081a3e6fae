// dsa-run serve as a user meets it: the line it prints, a port in use, and its end.
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>

#include <chrono>
#include <thread>

#include "tests/programs/programs.hpp"
#include "tests/run/http_client.hpp"
#include "tests/run/speaker.hpp"

extern char** environ;

using Catch::Matchers::Contains;
using namespace dsa;
using namespace dsa::test;

namespace {

/// The program, started; killed at the end of the test if it still runs.
class Server {
 public:
  explicit Server(const Speaker& speaker) : out_(speaker.scratch / "out") {
    const std::string program = binary_dir() + "/dsa-run", dir = speaker.dir.string();
    // Without a chat format nothing ends a text but its length.
    std::vector<const char*> words = {program.c_str(), "serve", dir.c_str(), "--port", "0",
                                      "--format",      "fp32",  "--threads", "1",      "--chat",
                                      "none",          nullptr};
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 1, out_.c_str(), O_WRONLY | O_CREAT, 0600);
    posix_spawn_file_actions_addopen(&files, 2, "/dev/null", O_WRONLY, 0);
    require(posix_spawn(&pid_, program.c_str(), &files, nullptr, const_cast<char**>(words.data()),
                        environ) == 0,
            "cannot start " + program);
    posix_spawn_file_actions_destroy(&files);
  }
  ~Server() {
    if (pid_ > 0) ::kill(pid_, SIGKILL), wait();
  }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// As the line "listening on http://127.0.0.1:PORT" says; 0 if it does not come in a minute.
  int port() const {
    for (int i = 0; i < 3000; ++i) {
      const std::string text = std::filesystem::exists(out_) ? read_text(out_) : "";
      const std::string before = "listening on http://127.0.0.1:";
      if (text.starts_with(before) && text.ends_with('\n'))
        return std::stoi(text.substr(before.size()));
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return 0;
  }

  void terminate() const { ::kill(pid_, SIGTERM); }

  int wait() {
    int status = -1;
    ::waitpid(pid_, &status, 0);
    pid_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  std::filesystem::path out_;
  pid_t pid_ = 0;
};

}  // namespace

TEST_CASE("SIGTERM lets the server finish what it has begun", "[serve]") {
  const Speaker speaker;
  Server server(speaker);
  const int port = server.port();
  REQUIRE(port > 0);
  CHECK_THAT(complaint("dsa-run serve " + speaker.dir.string() + " --port " + std::to_string(port)),
             Contains("cannot listen on 127.0.0.1 port " + std::to_string(port)));

  Connection connection(port);
  connection.send(http_request("POST", "/v1/completions",
                               R"({"prompt": "a", "max_tokens": 3000, "stream": true})"));
  std::string said = connection.receive();
  server.terminate();
  while (ask(port, "GET", "/health").status == 200) {
  }
  CHECK(ask(port, "POST", "/v1/completions", R"({"prompt": "a"})").status == 503);
  said += connection.rest();
  const HttpAnswer answer = parse_answer(said);
  CHECK(answer.status == 200);
  CHECK(answer.body.ends_with("data: [DONE]\n\n"));
  CHECK_THAT(answer.body, Contains("\"finish_reason\":\"length\""));
  CHECK(server.wait() == 0);
}

TEST_CASE("serve refuses what it cannot serve", "[serve]") {
  const Speaker speaker;
  const std::string ask = "dsa-run serve " + speaker.dir.string();
  CHECK_THAT(complaint(ask + " --port 65536"), Contains("--port"));
  CHECK_THAT(complaint(ask + " --host 203.0.113.7 --port 0"), Contains("cannot listen on"));
  CHECK_THAT(complaint(ask + " --chat v4"), Contains("expected none, v3.1 or v3.2"));
  CHECK_THAT(complaint(ask + " --chunk 2 --parallel 4"), Contains("--parallel is 4"));
  CHECK_THAT(complaint(ask + " --max-body big"), Contains("--max-body"));
  std::filesystem::remove(speaker.dir / "tokenizer.json");
  CHECK_THAT(complaint(ask), Contains("tokenizer.json"));
}
