// verify/kernels/suite.hpp — every kernel against every case of its op.
//
// Right outputs are not enough. A kernel must also write every element of its outputs and nothing
// beside them, leave its inputs alone, not depend on the contents of its scratch, and repeat its
// bits with any number of threads. docs/ops.md describes it.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/json.hpp"
#include "verify/kernels/op.hpp"
#include "verify/verdict.hpp"

namespace dsa::verify::kernels {

/// not_run: it does not exist, or this machine cannot run it. refused: it takes none of the cases.
enum class KernelVerdict { pass, fail, refused, not_run };
std::string_view name_of(KernelVerdict);  // "pass", "fail", "refused", "not run"

/// The result of one kernel on one case.
struct CaseResult {
  std::string refused;  // not empty: why the kernel does not take it
  std::string failure;  // not empty: what is wrong, one clause
  double worst = 0;     // of the outputs: largest error / allowed
  std::string at;       // output and subscripts there
  bool is_empty = false;
  bool within_hopper = false;  // wrong by the sums of fp32, right by those of Hopper's tensor cores
};
inline constexpr int repeated_runs = 20;
CaseResult run_case(const Kernel&, const Case&, int runs = repeated_runs);

/// Judges outputs by the case alone, whichever program computed them.
CaseResult judge_outputs(const Case&, const Arrays& out);

/// A kernel, or a directory of outputs, over all cases of one op and dtype.
struct KernelResult {
  std::string op, backend, rung, dtype;
  Ran ran = Ran::compiled;
  KernelVerdict verdict = KernelVerdict::not_run;
  Index cases = 0, empty = 0, refused = 0, failed = 0;  // `cases`: that were judged
  Index within_hopper = 0;                              // of the failed
  double worst = 0;                                     // over those
  std::string worst_case, worst_at, why;
  std::map<std::string, Index> reasons;  // of those refused: how many for which
  std::string advice;                    // what else the failures may be, one sentence, or empty

  void add(const Case&, const CaseResult&);
  void leave_out(const std::string& reason);
  void conclude();  // the verdict, once every case was added
};

struct OpsOptions {
  std::string op, backend, rung, dtype;  // empty: all
  std::string ran;       // "host": kernels executed there; "device": those made for one; empty: all
  double max_flops = 0;  // not 0: cases of more operations are not put to any kernel
  std::uint64_t seed = 1;
  Sums sums = Sums::fp32;  // that files are judged by
  std::function<void(const std::string& what, int done, int of)> progress;
  int runs = repeated_runs;  // of a case that is repeated

  bool wants(const Op&) const;
  bool wants(const std::string& dtype_of_case) const;
  bool wants(const Kernel&) const;
};

struct OpsReport {
  std::vector<KernelResult> rows;  // in order of all_ops()
  Outcome outcome = Outcome::inconclusive;
  std::string why;
  Sums sums = Sums::fp32;
  Receipt receipt;
};

/// Runs every case on every kernel that the options name. A missing kernel is a row of its own.
/// Error: there is no such op, or nothing that the options name.
OpsReport check_kernels(const OpsOptions&, const std::vector<Kernel>& = all_kernels());

/// Outcome, `why`, receipt.
void conclude(OpsReport&, const OpsOptions&);

std::string table(const OpsReport&, bool colour);
Json to_json(const OpsReport&);

}  // namespace dsa::verify::kernels
