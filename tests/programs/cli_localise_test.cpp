// dsa-verify localise as a user meets it.
#include <filesystem>
#include <string>

#include "core/json.hpp"
#include "core/safetensors.hpp"
#include "tests/catch.hpp"
#include "tests/models.hpp"
#include "tests/programs/programs.hpp"
#include "tests/scratch.hpp"
#include "tests/verify/judge_helpers.hpp"

using Catch::Matchers::Contains;
using namespace dsa;
using namespace dsa::test;
namespace fs = std::filesystem;

TEST_CASE("localise: exit codes, and its file", "[cli]") {
  const Scratch scratch;
  const auto localise = [&](const fs::path& file, const std::string& more) {
    return "dsa-verify localise " + (sample("v3") / "checkpoint").string() + " " + file.string() +
           " --runs 4 " + more;
  };
  const fs::path trace = sample("v3") / "trace.fp64.safetensors";
  CHECK(run(localise(trace, "")).status == 0);
  TensorFile file = TensorFile::read(trace);
  file.at("model.layers.1.mlp")(5, 7) += 1;
  file.write(scratch / "wrong");
  const fs::path json = scratch / "json";
  CHECK(run(localise(scratch / "wrong", "--json " + json.string())).status == 1);
  CHECK(Json::parse(read_text(json))["wrong"][0]["name"] == "model.layers.1.mlp");
  CHECK_THAT(complaint(localise(trace, "--names nobody")), Contains("neither a file nor one of"));
}
