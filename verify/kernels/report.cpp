#include "verify/report/report.hpp"

#include <fmt/format.h>

#include <map>

#include "verify/kernels/suite.hpp"
#include "verify/report/text.hpp"
#include "verify/report/values.hpp"

namespace dsa::verify::kernels {
namespace {

/// Whatever was not judged has the colour of what is inconclusive.
std::string painted(const std::string& text, KernelVerdict verdict, bool colour) {
  return coloured(text,
                  verdict == KernelVerdict::pass   ? Outcome::pass
                  : verdict == KernelVerdict::fail ? Outcome::fail
                                                   : Outcome::inconclusive,
                  colour);
}

std::string line(const KernelResult& row, bool colour) {
  std::string text = fmt::format("{:<18} {:<6} {:<6} {:<14} {:<8} {:>5} ", row.op, row.dtype,
                                 clean(row.backend), clean(row.rung), name_of(row.ran), row.cases);
  text += row.cases > 0 ? fmt::format("{:>9} ", number(row.worst)) : fmt::format("{:>9} ", "");
  text += painted(std::string(name_of(row.verdict)), row.verdict, colour) + "\n";
  if (row.failed > 0)
    text += fmt::format("    {} of {} wrong; {}\n", row.failed, plural(row.cases, "case"),
                        clean(row.why)) +
            (row.advice.empty() ? "" : "    " + row.advice + "\n");
  else if (row.refused == 0 && !row.why.empty())
    text += "    " + clean(row.why) + "\n";
  for (const auto& [reason, n] : row.reasons)
    text += fmt::format("    {} not taken: {}\n", plural(n, "case"), clean(reason));
  return text;
}

std::string timed(const OpsReport& report) {
  return fmt::format("{} ({:.1f} s)", report.why, report.receipt.seconds);
}

Json reasons_json(const KernelResult& row) {
  Json reasons = Json::object();
  for (const auto& [reason, n] : row.reasons) reasons[clean(reason)] = n;
  return reasons;
}

}  // namespace

std::string table(const OpsReport& report, bool colour) {
  std::string text = opening_line(report.outcome, timed(report), colour) +
                     fmt::format("{:<18} {:<6} {:<6} {:<14} {:<8} {:>5} {:>9} verdict\n", "op",
                                 "dtype", "on", "rung", "ran", "cases", "worst");
  std::map<std::string, std::string> missing;  // by backend and reason: which
  for (const KernelResult& row : report.rows) {
    if (row.verdict == KernelVerdict::not_run) {
      const std::string on = row.backend + (row.rung.empty() ? "" : " " + row.rung);
      std::string& names = missing[clean(on) + ": " + row.why];
      names += (names.empty() ? "" : ", ") + row.op + " " + row.dtype;
    } else {
      text += line(row, colour);
    }
  }
  text += "\n";
  for (const auto& [what, names] : missing)
    text += painted("not run", KernelVerdict::not_run, colour) + "  " + what + ": " + names + "\n";
  return text + closing_line(report.outcome, timed(report), colour);
}

Json to_json(const OpsReport& report) {
  Json rows = Json::array();
  for (const KernelResult& row : report.rows)
    rows.push_back({{"op", row.op},
                    {"backend", json_of(row.backend)},
                    {"rung", row.rung.empty() ? Json() : json_of(row.rung)},
                    {"dtype", row.dtype},
                    {"ran", name_of(row.ran)},
                    {"verdict", name_of(row.verdict)},
                    {"worst_over_allowed", row.cases > 0 ? json_of(row.worst) : Json()},
                    {"worst_case", row.cases > 0 ? Json(row.worst_case) : Json()},
                    {"at", row.worst_at.empty() ? Json() : Json(row.worst_at)},
                    {"cases", row.cases},
                    {"empty", row.empty},
                    {"not_taken", row.refused},
                    {"not_taken_because", reasons_json(row)},
                    {"failed", row.failed},
                    {"why", json_of(row.why)},
                    {"advice", row.advice.empty() ? Json() : Json(row.advice)}});
  return {{"verdict", name_of(report.outcome)},
          {"why", json_of(report.why)},
          {"sums", name_of(report.sums)},
          {"exit_code", exit_code(report.outcome)},
          {"ops", rows},
          {"receipt", receipt_json(report.receipt)}};
}

}  // namespace dsa::verify::kernels
