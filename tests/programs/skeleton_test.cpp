// tests/programs/skeleton_test.cpp — what every program does alike: version, sentences, numbers,
// progress, interrupts.
#include "cli/numbers.hpp"
#include "cli/program.hpp"
#include "cli/progress.hpp"
#include "core/build_info.hpp"
#include "core/json.hpp"
#include "tests/programs/programs.hpp"

using namespace dsa;
using namespace dsa::test;
using Catch::Contains;
namespace fs = std::filesystem;

namespace {

const std::string v32 = std::string(source_dir()) + "/data/samples/v32/checkpoint";

/// Sequences that take any backend minutes.
void write_many_tokens(const fs::path& path) {
  Json sequences = Json::array();
  for (int i = 0; i < 4000; ++i) sequences.push_back(std::vector<int>(400, 1 + i % 50));
  write_text(path, sequences.dump());
}

/// Starts the program, waits until `begun` exists, sends the signal; the exit status.
int interrupted(const std::string& arguments, const fs::path& begun, const char* signal,
                const fs::path& err) {
  const std::string command =
      binary_dir() + "/" + arguments + " >/dev/null 2>" + err.string() + " & p=$!; while [ ! -e " +
      begun.string() + " ] && kill -0 $p; do sleep 0.02; done; kill -" + signal + " $p; wait $p";
  return WEXITSTATUS(std::system(command.c_str()));
}

/// What the program writes where stdout and stderr are a terminal.
std::string on_terminal(const std::string& arguments) {
  const Scratch scratch;
  const std::string out = (scratch / "out").string();
  const std::string command =
      "script -qec '" + binary_dir() + "/" + arguments + "' /dev/null >" + out + " </dev/null";
  CHECK(std::system(command.c_str()) == 0);
  return read_text(out);
}

/// Parses words as a program would; the complaint, or nothing.
struct Parsed {
  double real = -1;
  Index integer = -1;
  std::uint64_t seed = 0;
  std::string complaint;

  explicit Parsed(std::vector<std::string> words) {
    CLI::App app;
    cli::add_real(app, "--real", real, {0, 1}, "");
    cli::add_integer(app, "--integer", integer, {1, 1000}, "");
    cli::add_seed(app, seed, "");
    std::reverse(words.begin(), words.end());
    try {
      app.parse(words);
    } catch (const CLI::ParseError& error) {
      complaint = error.what();
    }
  }
};

}  // namespace

TEST_CASE("every program says its version and its commit", "[programs]") {
  for (const std::string program : {"dsa-verify", "dsa-run", "dsa-bench"}) {
    const Outcome result = run(program + " --version");
    CHECK(result.status == 0);
    CHECK(result.out ==
          program + " " + build_info().version + ", commit " + build_info().commit + "\n");
    CHECK(result.err.empty());
  }
}

TEST_CASE("every program refuses an unknown command in one sentence", "[programs]") {
  for (const std::string program : {"dsa-verify", "dsa-run", "dsa-bench"}) {
    CHECK(complaint(program + " nothing") ==
          program + ": there is no command \"nothing\"; see " + program + " --help\n");
    CHECK_THAT(complaint(program + " '\x1b[2J'"), !Contains("\x1b"));
    CHECK_THAT(complaint(program), Contains("see " + program + " --help"));
  }
}

TEST_CASE("numbers are decimal, finite and within their range", "[programs]") {
  CHECK(Parsed({"--real", "1e-3"}).real == 1e-3);
  CHECK(Parsed({"--integer", "1000"}).integer == 1000);
  CHECK(Parsed({"--integer", "010"}).integer == 10);  // no octal
  CHECK(Parsed({"--seed", "18446744073709551615"}).seed == 18446744073709551615u);
  for (const char* bad : {"nan", "NaN", "inf", "-inf", "-1", "-1e-9", "1.5", "0.5x", "", "1e999"}) {
    INFO(bad);
    CHECK_THAT(Parsed({"--real", bad}).complaint, Contains("expected a finite number from 0 to 1"));
  }
  for (const char* bad : {"0", "1001", "-1", "1.5", "0x10", "1e2", "ten", "99999999999999999999"}) {
    INFO(bad);
    CHECK_THAT(Parsed({"--integer", bad}).complaint,
               Contains("--integer: expected an integer from 1 to 1000, found"));
  }
  for (const char* bad : {"-1", "nan", "18446744073709551616", "1.0"}) {
    INFO(bad);
    CHECK_THAT(Parsed({"--seed", bad}).complaint, Contains("expected an integer from 0 on"));
  }
}

TEST_CASE("no program takes NaN or a negative seed", "[programs]") {
  const std::string golden = "dsa-verify golden a b ", generate = "dsa-run generate a --prompt b ";
  for (const std::string& ask :
       {golden + "--seed -1", golden + "--alpha nan", golden + "--atol nan",
        std::string("dsa-verify ops --seed -1"), std::string("dsa-verify ops --max-flops nan"),
        generate + "--seed -1", generate + "--temperature nan", generate + "--top-p nan",
        generate + "--temperature inf", std::string("dsa-bench ops --min-time nan")})
    CHECK_THAT(complaint(ask), Contains("expected a") && Contains("found") && Contains("--help"));
}

TEST_CASE("engine flags and their defaults are the same in every program", "[programs]") {
  for (const std::string command : {"dsa-run logits", "dsa-run generate", "dsa-verify golden",
                                    "dsa-verify invariants", "dsa-bench model"}) {
    const Outcome help = run(command + " --help");
    INFO(command);
    for (const char* flag : {"--backend", "--format TYPE=bf16", "--isa ISA", "--mla FORM",
                             "--chunk N=512", "--threads N", "--memory SIZE"})
      CHECK_THAT(help.out, Contains(flag));
  }
}

TEST_CASE("an interrupt leaves nothing half-written, with status 130", "[programs]") {
  const Scratch scratch;
  write_many_tokens(scratch / "tokens.json");
  const fs::path out = scratch / "out.safetensors", err = scratch / "err",
                 cases = scratch / "cases";
  const std::string logits = "dsa-run logits " + v32 + " --tokens " +
                             (scratch / "tokens.json").string() + " -o " + out.string();
  for (const char* signal : {"INT", "TERM", "HUP"}) {
    INFO(signal);
    CHECK(interrupted(logits, out.string() + ".partial", signal, err) == 130);
    CHECK_FALSE(fs::exists(out.string() + ".partial"));
    CHECK_FALSE(fs::exists(out));
    CHECK(read_text(err) == "dsa-run: interrupted\n");
  }
  CHECK(interrupted("dsa-verify ops --dump " + cases.string(), cases.string() + ".partial", "INT",
                    err) == 130);
  CHECK_FALSE(fs::exists(cases.string() + ".partial"));
  CHECK_FALSE(fs::exists(cases));
  CHECK(scratch.files() == 2);  // the tokens and what the program said
}

TEST_CASE("progress is for terminals, with an estimate of the end", "[programs]") {
  const std::string ask = "dsa-verify golden " + v32 + " " + source_dir() +
                          "/data/samples/v32/logits.safetensors --runs 4";
  CHECK(run(ask).err.empty());
  const std::string shown = on_terminal(ask);
  CHECK_THAT(shown, Contains("sequence 1 of") && Contains("[####") && Contains("100 %"));
  CHECK_THAT(shown, Contains("PASS"));
  CHECK_THAT(on_terminal("dsa-verify ops --op rope"), Contains("rope  ["));

  CHECK(cli::progress_line("known defects", 0.25, 10) ==
        "known defects  [######                  ]  25 %, 30 s left");
  CHECK_THAT(cli::progress_line("a", 0.5, 200), Contains("50 %, 3 min 20 s left"));
  CHECK_THAT(cli::progress_line("a", 0.5, 7500), Contains("2 h 5 min left"));
  CHECK_THAT(cli::progress_line("a", 0, 10), !Contains("left"));
  CHECK_THAT(cli::progress_line("a", 0.9, 0.5), !Contains("left"));  // too early to tell
  CHECK(cli::progress_line(std::string(200, 'x'), 0.5, 1e6).size() <= 90);
  std::string said;
  const cli::Progress whole = [&](const std::string& what, int done, int of) {
    said = what + " " + std::to_string(done) + "/" + std::to_string(of);
  };
  cli::part_of(whole, "third", 2, 4)("inside", 5, 10);
  CHECK(said == "third 250/400");
  CHECK_FALSE(cli::part_of(nullptr, "", 0, 1));
}

TEST_CASE("a receipt's command line can be pasted into a shell", "[programs]") {
  const char* words[] = {"/usr/bin/x", "golden", "a b", "it's", "--alpha", "0.1", "", "$HOME"};
  const std::string line = cli::command_line_of("dsa-verify", 8, words);
  CHECK(line == "dsa-verify golden 'a b' 'it'\\''s' --alpha 0.1 '' '$HOME'");
}

TEST_CASE("what cannot be printed is told by the status", "[programs]") {
  for (const std::string& ask : {"dsa-run inspect " + v32, std::string("dsa-verify ops --op rope"),
                                 std::string("dsa-bench cuda --list")})
    CHECK(run(ask + " 2>/dev/null >/dev/full; echo $?").out == "2\n");
}
