#include "optimized/ranks/place.hpp"

#include <charconv>
#include <cstring>
#include <vector>

#include "core/check.hpp"

namespace dsa::ranks {
namespace {

struct Launcher {
  const char* name;
  const char *rank, *of;
  std::vector<const char*> job;
  const char* needed;  // a variable without which the row does not count; null: none
};

const std::vector<Launcher>& launchers() {
  static const std::vector<Launcher> all = {
      {"torchrun", "RANK", "WORLD_SIZE", {"TORCHELASTIC_RUN_ID"}, nullptr},
      {"mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", {"PMIX_NAMESPACE"}, nullptr},
      {"srun", "SLURM_PROCID", "SLURM_NTASKS", {"SLURM_JOB_ID", "SLURM_STEP_ID"}, "SLURM_STEP_ID"},
      {"PMIx", "PMIX_RANK", "PMIX_SIZE", {"PMIX_NAMESPACE"}, nullptr}};
  return all;
}

int number_of(const char* variable, const char* value, int low) {
  int x = 0;
  const char* end = value + std::strlen(value);
  const auto read = std::from_chars(value, end, x);
  require(read.ec == std::errc{} && read.ptr == end && x >= low,
          std::string(variable) + " is \"" + value + "\", expected an integer, " +
              std::to_string(low) + " or more; start the job with torchrun, mpirun or srun");
  return x;
}

}  // namespace

Place place_of(const Environment& environment) {
  for (const Launcher& launcher : launchers()) {
    const char* rank = environment(launcher.rank);
    if (rank == nullptr || (launcher.needed != nullptr && environment(launcher.needed) == nullptr))
      continue;
    const char* of = environment(launcher.of);
    require(of != nullptr, std::string(launcher.rank) + " is set, but " + launcher.of +
                               " is not: it is not known how many ranks there are; set both, or "
                               "neither for one process");
    Place place{
        number_of(launcher.rank, rank, 0), number_of(launcher.of, of, 1), launcher.name, {}};
    require(place.rank < place.of, std::string(launcher.rank) + " is " + rank + ", but " +
                                       launcher.of + " is " + of +
                                       "; ranks are counted from 0 and are fewer");
    for (const char* part : launcher.job)
      if (const char* value = environment(part)) place.job += std::string(value) + " ";
    return place;
  }
  return {};
}

}  // namespace dsa::ranks
