// The table of backends: what is asked for and is not there is refused in one sentence.
#include "optimized/backends.hpp"

#include <set>

#include "tests/catch.hpp"

using namespace dsa;
using Catch::Contains;

TEST_CASE("backends are found by their names, which differ", "[backends]") {
  const std::vector<std::string> names = backend_names();
  CHECK(std::set<std::string>(names.begin(), names.end()).size() == backends().size());
  for (const std::string& name : names) CHECK(backend_named(name).name == name);
  CHECK(names.front() == "cpu");
  CHECK_THROWS_WITH(backend_named("tpu"),
                    Contains("this build has no backend \"tpu\"; choose cpu"));
}

TEST_CASE("only cpu has tiers and forms", "[backends]") {
  check_options({"cpu", "bf16", "avx2"});
  check_options({"cpu", "bf16", "", "expanded"});
  check_options({"reference", "fp64"});
  CHECK_THROWS_WITH(check_options({"cuda", "bf16", "avx2"}),
                    Contains("--isa") && Contains("for cuda"));
  CHECK_THROWS_WITH(check_options({"cuda", "bf16", "", "expanded"}),
                    Contains("--mla") && Contains("for cuda"));
}

TEST_CASE("a plan says where its memory is", "[backends]") {
  Plan plan;
  plan.memory = 80'000'000'000;
  CHECK_THAT(as_text(plan), Contains("of 80 GB, into which"));
  plan.where = "on the device";
  CHECK_THAT(as_text(plan), Contains("of 80 GB on the device, into which"));
  CHECK_THROWS_WITH(require_fits(plan), Contains("80 GB on the device that may be used"));
}
