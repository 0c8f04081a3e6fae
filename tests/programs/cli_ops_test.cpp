// dsa-verify ops as a user meets it.
#include <filesystem>
#include <string>

#include "core/json.hpp"
#include "tests/catch.hpp"
#include "tests/programs/programs.hpp"
#include "tests/scratch.hpp"

using Catch::Matchers::Contains;
using namespace dsa;
using namespace dsa::test;
namespace fs = std::filesystem;

TEST_CASE("dsa-verify ops judges kernels, and what others made of the same cases", "[cli]") {
  const Scratch scratch;
  const std::string json = (scratch / "ops.json").string();
  const Outcome right = run("dsa-verify ops --op rope --tier portable --json " + json);
  CHECK(right.status == 0);
  CHECK_THAT(right.out, Contains("PASS"));
  const Json row = read_json(json)["ops"][0];
  CHECK(row["backend"] == "cpu");
  CHECK(row["ran"] == "host");
  CHECK(row["verdict"] == "pass");

  const Outcome missing = run("dsa-verify ops --op linear --dtype fp8 --backend cpu");
  CHECK(missing.status == 3);
  CHECK_THAT(missing.out, Contains("cpu: not implemented: linear fp8"));

  const std::string cases = (scratch / "cases").string();
  CHECK(run("dsa-verify ops --op rope --dump " + cases).status == 0);
  // Files of inputs are not outputs: their tensors have other names.
  const Outcome inputs = run("dsa-verify ops --op rope --against " + cases);
  CHECK(inputs.status == 1);
  CHECK_THAT(inputs.out, Contains("has no tensor y"));

  CHECK_THAT(complaint("dsa-verify ops --op nosuch"), Contains("there is no op \"nosuch\""));
  CHECK_THAT(complaint("dsa-verify ops --tier nosuch"), Contains("there is nothing to judge"));
  CHECK_THAT(complaint("dsa-verify ops --against nosuch"), Contains("nosuch is not a directory"));
  CHECK_THAT(complaint("dsa-verify ops --backend cpu --dump d"), Contains("excludes --dump"));
  CHECK_THAT(complaint("dsa-verify ops --json j --dump d"), Contains("excludes --dump"));
  const std::string none = (scratch / "none").string();
  CHECK_THAT(complaint("dsa-verify ops --op embed --dtype fp8 --dump " + none),
             Contains("no case is of this op, dtype and layout"));
  CHECK(!fs::exists(none));
  CHECK_THAT(complaint("dsa-verify ops --op embed --dump " + json),
             Contains("cannot write cases to " + json));
}
