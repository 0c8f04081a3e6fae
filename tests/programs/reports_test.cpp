// tests/programs/reports_test.cpp — the reports of every command of dsa-verify, as files.
#include "core/json.hpp"
#include "tests/programs/programs.hpp"
#include "tests/verify/judge_helpers.hpp"

using namespace dsa;
using namespace dsa::test;
using Catch::Contains;
namespace fs = std::filesystem;

namespace {

/// A directory whose name is Latin-1, with a sample in it.
struct Cafe {
  Scratch scratch;
  fs::path dir = scratch / "caf\xE9", checkpoint = dir / "v32/checkpoint",
           golden = dir / "v32/short.safetensors";

  Cafe() {
    fs::create_directories(dir / "v32");
    fs::create_directory_symlink(sample("v32") / "checkpoint", checkpoint);
    TensorFile file = golden_column("v32", "fp64");
    file.cut(1, 40);
    file.write(golden);
  }
};

}  // namespace

TEST_CASE("a path that is not UTF-8 spoils the report of no command", "[cli]") {
  const Cafe cafe;
  const std::string where = cafe.checkpoint.string() + " ", file = cafe.golden.string() + " ",
                    cases = (cafe.dir / "cases").string(), runs = " --runs 4";
  REQUIRE(run("dsa-verify ops --op rope --dump " + cases).status == 0);
  const std::map<std::string, std::string> asked = {{"golden", where + file + runs},
                                                    {"diagnose", where + file + runs},
                                                    {"localise", where + file + runs},
                                                    {"power", where + file + runs},
                                                    {"invariants", where + "--length 48" + runs},
                                                    {"samples", cafe.dir.string() + runs},
                                                    {"ops", "--op rope --against " + cases}};
  for (const auto& [command, arguments] : asked) {
    const fs::path json = cafe.dir / (command + ".json");
    const Outcome result =
        run("dsa-verify " + command + " " + arguments + " --json " + json.string());
    INFO(command << ": " << result.out << result.err);
    CHECK(result.status != 2);
    CHECK(result.err.empty());
    REQUIRE(fs::exists(json));
    const Json report = read_json(json);
    CHECK_THAT(report.dump(), Contains("caf\xEF\xBF\xBD"));
    CHECK_THAT(result.out, Contains(" -> exit " + std::to_string(result.status) + "\n"));
    CHECK_THAT(result.out, !Contains("caf\xE9"));
  }
}
