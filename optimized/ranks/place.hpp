// optimized/ranks/place.hpp — which process of a job this one is, as its launcher says.
//
//   launcher        rank                    ranks of the job        name of the job
//   torchrun        RANK                    WORLD_SIZE              TORCHELASTIC_RUN_ID
//   mpirun          OMPI_COMM_WORLD_RANK    OMPI_COMM_WORLD_SIZE    PMIX_NAMESPACE
//   srun            SLURM_PROCID            SLURM_NTASKS            SLURM_JOB_ID, SLURM_STEP_ID
//   other PMIx      PMIX_RANK               PMIX_SIZE               PMIX_NAMESPACE
//
// The first row whose rank is set counts. The script of an sbatch job has a SLURM_PROCID, too, but
// is no step of the job: without SLURM_STEP_ID the row of srun does not count.
#pragma once

#include <functional>
#include <string>

namespace dsa::ranks {

struct Place {
  int rank = 0, of = 1;
  std::string launcher;  // "torchrun"; empty: the process was started alone
  std::string job;       // the same text in every rank of one job, where the launcher has a name
};

/// The value of a variable; null: it is not set. std::getenv, but for tests.
using Environment = std::function<const char*(const char* name)>;

/// Errors: a rank without a number of ranks, or beyond it; what is no integer.
Place place_of(const Environment&);

}  // namespace dsa::ranks
