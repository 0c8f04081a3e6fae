#include "verify/kernels/suite.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <optional>
#include <set>

#include "core/threads.hpp"
#include "verify/receipt.hpp"
#include "verify/report/text.hpp"

namespace dsa::verify::kernels {
namespace {

constexpr double inf = std::numeric_limits<double>::infinity();
constexpr double small_flops = 2e6;  // cases that are repeated on the host; all are on a device

bool same_bits(const Arrays& a, const Arrays& b) {
  return std::all_of(a.begin(), a.end(), [&](const auto& named) {
    const auto mine = named.second.bytes(), other = b.at(named.first).bytes();
    return std::equal(mine.begin(), mine.end(), other.begin(), other.end());
  });
}

bool guards_intact(const Arrays& arrays) {
  return std::all_of(arrays.begin(), arrays.end(),
                     [](const auto& named) { return named.second.guards_intact(); });
}

/// Outputs of one run, which begins with every element poisoned.
void run_once(const Launch& launch, Arrays& out) {
  for (auto& [name, array] : out) array.poison();
  launch.run();
  if (launch.fetch) launch.fetch();
}

/// Whether the kernel throws an Error that names what the case is about.
std::string refusal_failure(const Kernel& kernel, const Case& c) {
  try {
    Arrays out = c.out;
    run_once(kernel.prepare(c, out), out);
  } catch (const Error& e) {
    for (const std::string& word : c.refusal)
      if (std::string(e.what()).find(word) == std::string::npos)
        return fmt::format("refused with \"{}\", which does not name {}", e.what(), word);
    return "";
  }
  return fmt::format("accepted what it must refuse with an Error that names {}",
                     fmt::join(c.refusal, ", "));
}

/// On one thread and always in the same order: a second run finds what the first left behind, and
/// there is nothing else for more to find.
bool is_emulated(const Kernel& kernel) {
  return kernel.ran == Ran::host && kernel.backend == "cuda";
}

/// A kernel with right outputs must also repeat them, bit by bit, and write nothing else. `first`:
/// its outputs. Returns what went wrong, or nothing.
std::string conduct_failure(const Kernel& kernel, const Case& c, const Launch& launch, Arrays& out,
                            const Arrays& first, int most_runs) {
  const bool repeated = kernel.ran == Ran::device || c.flops <= small_flops;
  const int runs = !repeated ? 1 : is_emulated(kernel) ? std::min(2, most_runs) : most_runs;
  const int most_threads = kernel.ran != Ran::host ? 0 : is_emulated(kernel) ? 1 : 3;
  for (int i = 1; i < runs; ++i) {
    run_once(launch, out);
    if (!same_bits(out, first)) return fmt::format("other bits in run {} of {}", i + 1, runs);
  }
  for (int n = 1; n <= most_threads; ++n) {
    const Threads scope(n, Sharing::always);
    Arrays again = c.out;
    run_once(kernel.prepare(c, again), again);
    if (!same_bits(again, first)) return fmt::format("other bits with {}", plural(n, "thread"));
    if (!guards_intact(again)) return fmt::format("wrote beside an output with {} threads", n);
  }
  return "";
}

CaseResult answer_of(const Kernel& kernel, const Case& c, int runs) {
  const Arrays before = c.in;
  Arrays out = c.out;
  const Launch launch = kernel.prepare(c, out);
  run_once(launch, out);
  CaseResult result = judge_outputs(c, out);
  if (!result.failure.empty()) return result;
  const Arrays first = out;
  if (!guards_intact(out)) result.failure = "wrote beside an output";
  if (result.failure.empty()) result.failure = conduct_failure(kernel, c, launch, out, first, runs);
  if (result.failure.empty() && !(same_bits(c.in, before) && guards_intact(c.in)))
    result.failure = "changed an input";
  return result;
}

KernelResult row_of(const Kernel& kernel) {
  KernelResult row;
  row.op = kernel.op, row.backend = kernel.backend, row.rung = kernel.rung;
  row.dtype = kernel.dtype;
  row.ran = kernel.ran;
  if (kernel.ran == Ran::compiled) row.why = kernel.why;
  return row;
}

/// A row for every dtype of the op that a backend has no kernel for.
void add_missing(std::vector<KernelResult>& rows, const Op& op, const std::vector<Kernel>& kernels,
                 const OpsOptions& options) {
  for (const std::string backend : {"cpu", "cuda"})
    for (const std::string& dtype : op.dtypes) {
      const bool exists = std::any_of(kernels.begin(), kernels.end(), [&](const Kernel& k) {
        return k.op == op.name && k.backend == backend && k.dtype == dtype;
      });
      if (exists || !options.wants(dtype) || !options.rung.empty() || !options.ran.empty() ||
          !(options.backend.empty() || options.backend == backend))
        continue;
      KernelResult row;
      row.op = op.name;
      row.backend = backend;
      row.dtype = dtype;
      row.why = "not implemented";
      rows.push_back(row);
    }
}

/// Why a case of so many operations is not put to the kernel; empty where it is.
std::string too_many(double flops, const Kernel& kernel, const OpsOptions& options) {
  if (options.max_flops > 0 && flops > options.max_flops) return "more operations than --max-flops";
  if (flops > kernel.most_flops)
    return fmt::format("more than {} operations, for which it is too slow here", kernel.most_flops);
  return "";
}

/// The rows of one op. Every case is posed once and put to all kernels; one that is too large for
/// each of them is not posed.
std::vector<KernelResult> rows_of(const Op& op, const std::vector<Kernel>& kernels,
                                  const OpsOptions& options) {
  std::vector<KernelResult> rows;
  std::vector<const Kernel*> asked;
  for (const Kernel& k : kernels)
    if (k.op == op.name && options.wants(k)) asked.push_back(&k), rows.push_back(row_of(k));
  const auto runs = [&](const Kernel* k) { return k->ran != Ran::compiled; };
  if (std::any_of(asked.begin(), asked.end(), runs)) {
    const auto cases = op.cases(options.seed);
    for (std::size_t i = 0; i < cases.size(); ++i) {
      if (options.progress)
        options.progress(std::string(op.name), static_cast<int>(i), static_cast<int>(cases.size()));
      std::optional<Case> c;
      for (std::size_t k = 0; k < asked.size(); ++k) {
        if (!runs(asked[k]) || asked[k]->dtype != cases[i].dtype) continue;
        const std::string reason = too_many(cases[i].flops, *asked[k], options);
        if (reason.empty()) {
          if (!c) c = cases[i]();
          rows[k].add(*c, run_case(*asked[k], *c, options.runs));
        } else {
          rows[k].leave_out(reason);
        }
      }
    }
  }
  for (std::size_t k = 0; k < asked.size(); ++k)
    if (runs(asked[k])) rows[k].conclude();
  add_missing(rows, op, kernels, options);
  return rows;
}

}  // namespace

std::string_view name_of(KernelVerdict verdict) {
  switch (verdict) {
    case KernelVerdict::pass:
      return "pass";
    case KernelVerdict::fail:
      return "fail";
    case KernelVerdict::refused:
      return "refused";
    case KernelVerdict::not_run:
      return "not run";
  }
  return "";
}

CaseResult judge_outputs(const Case& c, const Arrays& out) {
  CaseResult result;
  result.is_empty = c.is_empty();
  for (const OutputVerdict& v : c.op->judge(c, out)) {
    const auto asked = c.out.find(v.output);
    const bool has_elements = asked == c.out.end() ? !result.is_empty : asked->second.size() > 0;
    const bool nothing_to_say = !has_elements && v.check.n == 0;
    if (!(v.check.worst <= result.worst)) {
      result.worst = v.check.worst;
      result.at = v.output + " " + place_in(v.shape, v.check.at.channel);
    }
    if (!v.check.ok() && !nothing_to_say && result.failure.empty())
      result.failure = v.output + ": " + (v.why.empty() ? describe(v.check, v.shape) : v.why);
  }
  return result;
}

CaseResult run_case(const Kernel& kernel, const Case& c, int runs) {
  CaseResult result;
  result.refused = kernel.refuses ? kernel.refuses(c) : "";
  if (!result.refused.empty()) return result;
  try {
    if (c.refusal.empty()) return answer_of(kernel, c, runs);
    result.failure = refusal_failure(kernel, c);
  } catch (const std::exception& e) {
    result.failure = std::string("failed with \"") + e.what() + "\"";
  }
  if (!result.failure.empty()) result.worst = inf;
  return result;
}

void KernelResult::leave_out(const std::string& reason) {
  if (++refused == 1 && why.empty()) why = reason;
  ++reasons[reason];
}

void KernelResult::add(const Case& c, const CaseResult& result) {
  if (!result.refused.empty()) return leave_out(result.refused);
  ++cases;
  empty += result.is_empty;
  if (!result.failure.empty() && ++failed == 1) why = c.name + ": " + result.failure;
  within_hopper += result.within_hopper;
  if (cases > 1 && result.worst <= worst) return;
  worst = result.worst;
  worst_case = c.name;
  worst_at = result.at;
}

void KernelResult::conclude() {
  verdict = failed > 0          ? KernelVerdict::fail
            : cases - empty > 0 ? KernelVerdict::pass
            : refused > 0       ? KernelVerdict::refused
                                : KernelVerdict::not_run;
  if (verdict == KernelVerdict::not_run && why.empty()) why = "no case has anything to compare";
  if (failed > 0 && within_hopper == failed)
    advice =
        "what departs lies within the sums of Hopper's FP8 tensor cores (14 bits); "
        "--sums hopper-fp8 judges by those";
}

bool OpsOptions::wants(const Op& o) const { return op.empty() || op == o.name; }
bool OpsOptions::wants(const std::string& d) const { return dtype.empty() || dtype == d; }
bool OpsOptions::wants(const Kernel& k) const {
  const bool made_for_device =
      k.ran == Ran::device || (k.ran == Ran::compiled && k.backend == "cuda");
  return wants(k.dtype) && (backend.empty() || backend == k.backend) &&
         (rung.empty() || rung == k.rung) &&
         (ran.empty() || (ran == "device" ? made_for_device : k.ran == Ran::host));
}

OpsReport check_kernels(const OpsOptions& options, const std::vector<Kernel>& kernels) {
  const auto start = std::chrono::steady_clock::now();
  if (!options.op.empty()) op_named(options.op);
  OpsReport report;
  for (const Op& op : all_ops())
    if (options.wants(op))
      for (KernelResult& row : rows_of(op, kernels, options)) report.rows.push_back(std::move(row));
  if (report.rows.empty()) {
    std::set<std::string> names;
    for (const Kernel& k : kernels) names.insert(k.backend + " " + k.rung);
    throw Error(fmt::format(
        "there is nothing to judge: no kernel of backend \"{}\", rung \"{}\" and "
        "dtype \"{}\"{}; there are {}",
        options.backend, options.rung, options.dtype,
        options.ran.empty() ? "" : ", made for the " + options.ran, fmt::join(names, ", ")));
  }
  conclude(report, options);
  report.receipt.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

void conclude(OpsReport& report, const OpsOptions& options) {
  report.receipt = make_receipt();
  report.receipt.draws.seed = options.seed;
  report.sums = options.sums;
  std::map<KernelVerdict, Index> n;
  for (const KernelResult& row : report.rows) ++n[row.verdict];
  report.outcome = n[KernelVerdict::fail] > 0   ? Outcome::fail
                   : n[KernelVerdict::pass] > 0 ? Outcome::pass
                                                : Outcome::inconclusive;
  report.why =
      fmt::format("of {}, {} pass, {} fail, {} take no case, {} were not run",
                  plural(static_cast<Index>(report.rows.size()), "row"), n[KernelVerdict::pass],
                  n[KernelVerdict::fail], n[KernelVerdict::refused], n[KernelVerdict::not_run]);
  if (report.sums == Sums::hopper_fp8)
    report.why += "; products of two e4m3 numbers by the sums of Hopper's tensor cores";
}

}  // namespace dsa::verify::kernels
