// tests/programs/ops_command_test.cpp — dsa-verify ops: kernels of this build, and files that other
// programs wrote.
#include "core/json.hpp"
#include "tests/programs/programs.hpp"

using namespace dsa;
using namespace dsa::test;
using Catch::Contains;
namespace fs = std::filesystem;

namespace {

Outcome ops(const std::string& options) { return run("dsa-verify ops " + options); }

std::string refused(const std::string& options) { return complaint("dsa-verify ops " + options); }

}  // namespace

TEST_CASE("dsa-verify ops judges kernels, and what others made of the same cases", "[cli]") {
  const Scratch scratch;
  const std::string json = (scratch / "ops.json").string();
  const Outcome right = ops("--op rope --isa portable --json " + json);
  CHECK(right.status == 0);
  CHECK_THAT(right.out, Contains("PASS: ") && Contains(" -> exit 0\n"));
  const Json row = read_json(json)["ops"][0];
  CHECK(row["backend"] == "cpu");
  CHECK(row["ran"] == "host");
  CHECK(row["verdict"] == "pass");

  const Outcome missing = ops("--op linear --dtype fp8 --backend cpu");
  CHECK(missing.status == 3);
  CHECK_THAT(missing.out, Contains("cpu: not implemented: linear fp8"));
  CHECK(missing.out.starts_with("INCONCLUSIVE: "));
  CHECK_THAT(missing.out, Contains(" -> exit 3\n"));

  const std::string cases = (scratch / "cases").string();
  CHECK(ops("--op rope --dump " + cases).status == 0);
  // Files of inputs are not outputs: their tensors have other names.
  const Outcome inputs = ops("--op rope --against " + cases);
  CHECK(inputs.status == 1);
  CHECK(inputs.out.starts_with("FAIL: "));
  CHECK_THAT(inputs.out, Contains("has no tensor y"));

  CHECK_THAT(refused("--op nosuch"), Contains("there is no op \"nosuch\""));
  CHECK_THAT(refused("--isa nosuch"), Contains("there is nothing to judge"));
  CHECK_THAT(refused("--against nosuch"), Contains("nosuch is not a directory"));
  CHECK_THAT(refused("--backend cpu --dump d"), Contains("excludes --dump"));
  CHECK_THAT(refused("--json j --dump d"), Contains("excludes --dump"));
  const std::string none = (scratch / "none").string();
  CHECK_THAT(refused("--op embed --dtype fp8 --dump " + none),
             Contains("no case is of this op, dtype and layout"));
  CHECK(!fs::exists(none));
  CHECK_THAT(refused("--op embed --dump " + json), Contains("cannot write cases to " + json));
}

TEST_CASE("a damaged file of outputs is bad input, not a wrong kernel", "[cli]") {
  const Scratch scratch;
  const fs::path cases = scratch / "cases";
  REQUIRE(ops("--op rope --dump " + cases.string()).status == 0);
  for (const auto& entry : fs::directory_iterator(cases))
    if (entry.path().extension() == ".safetensors")
      fs::resize_file(entry.path(), fs::file_size(entry.path()) / 2);
  CHECK_THAT(refused("--op rope --against " + cases.string()), Contains(".safetensors"));
}

TEST_CASE("cases are never mixed with those of an earlier dump", "[cli]") {
  const Scratch scratch;
  const fs::path cases = scratch / "cases", empty = scratch / "empty";
  fs::create_directory(empty);
  CHECK(ops("--op rope --dump " + empty.string() + "/").status == 0);
  CHECK(ops("--op rope --dump " + (scratch / "new/below").string()).status == 0);
  REQUIRE(ops("--op rope --dump " + cases.string()).status == 0);
  const auto before = fs::last_write_time(cases / "index.json");
  CHECK_THAT(refused("--op embed --dump " + cases.string()),
             Contains("it exists, and is no empty directory; choose another name"));
  CHECK(fs::last_write_time(cases / "index.json") == before);
  CHECK_FALSE(fs::exists(cases.string() + ".partial"));
}
