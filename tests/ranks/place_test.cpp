#include "optimized/ranks/place.hpp"

#include <map>

#include "tests/catch.hpp"

using namespace dsa;
using Catch::Matchers::Contains;

namespace {

ranks::Place place_in(const std::map<std::string, std::string>& variables) {
  return ranks::place_of([&](const char* name) -> const char* {
    const auto at = variables.find(name);
    return at == variables.end() ? nullptr : at->second.c_str();
  });
}

}  // namespace

TEST_CASE("a process that nobody launched is alone", "[ranks]") {
  const ranks::Place place = place_in({{"HOME", "/root"}});
  CHECK(place.rank == 0);
  CHECK(place.of == 1);
  CHECK(place.launcher.empty());
}

TEST_CASE("each launcher is known by its variables, the innermost first", "[ranks]") {
  std::map<std::string, std::string> all = {{"PMIX_RANK", "1"}, {"PMIX_SIZE", "2"}};
  CHECK(place_in(all).launcher == "PMIx");
  all.insert({{"SLURM_PROCID", "2"}, {"SLURM_NTASKS", "4"}, {"SLURM_JOB_ID", "77"}});
  CHECK(place_in(all).launcher == "PMIx");  // the script of an sbatch job, which is no step
  all["SLURM_STEP_ID"] = "0";
  CHECK(place_in(all).launcher == "srun");
  CHECK(place_in(all).job == "77 0 ");
  all.insert({{"OMPI_COMM_WORLD_RANK", "5"}, {"OMPI_COMM_WORLD_SIZE", "8"}});
  CHECK(place_in(all).launcher == "mpirun");
  all.insert({{"RANK", "9"}, {"WORLD_SIZE", "16"}});
  const ranks::Place place = place_in(all);
  CHECK(place.launcher == "torchrun");
  CHECK(place.rank == 9);
  CHECK(place.of == 16);
}

TEST_CASE("a place that cannot be is a sentence", "[ranks]") {
  CHECK_THROWS_WITH(place_in({{"RANK", "1"}}), Contains("WORLD_SIZE is not"));
  CHECK_THROWS_WITH(place_in({{"RANK", "2"}, {"WORLD_SIZE", "2"}}), Contains("counted from 0"));
  CHECK_THROWS_WITH(place_in({{"RANK", "x"}, {"WORLD_SIZE", "2"}}), Contains("RANK is \"x\""));
  CHECK_THROWS_WITH(place_in({{"RANK", "-1"}, {"WORLD_SIZE", "2"}}), Contains("0 or more"));
  CHECK_THROWS_WITH(place_in({{"RANK", "0"}, {"WORLD_SIZE", "0"}}), Contains("1 or more"));
}
