#include "experiments/sweep/runner.hpp"

#include <unistd.h>

#include <csignal>
#include <ctime>
#include <set>
#include <thread>

#include "cli/program.hpp"
#include "core/check.hpp"
#include "core/json.hpp"
#include "core/sha256.hpp"
#include "core/threads.hpp"
#include "experiments/sweep/child.hpp"
#include "experiments/sweep/lock.hpp"
#include "verify/receipt.hpp"

namespace dsa::sweep {
namespace {

namespace fs = std::filesystem;

constexpr std::uintmax_t room_needed = std::uintmax_t{16} << 20;  // bytes for a point's results

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

std::string line_of(const std::vector<std::string>& words) {
  std::vector<const char*> pointers;
  for (const std::string& word : words) pointers.push_back(word.c_str());
  return cli::command_line_of(fs::path(words[0]).filename().string(),
                              static_cast<int>(pointers.size()), pointers.data());
}

Json receipt_of(const Plan& plan, const Point& point, const RunOptions& options,
                const std::string& started, const Ended& ended) {
  const verify::Receipt made = verify::make_receipt();
  const auto seed = point.axes.find("seed");
  Json receipt = {{"commit", made.commit},
                  {"version", made.version},
                  {"compiler", made.compiler},
                  {"flags", made.flags},
                  {"machine", made.device},
                  {"cores", std::thread::hardware_concurrency()},
                  {"threads", dsa::threads()},
                  {"config_sha256", plan.config_sha256},
                  {"command", line_of(command_of(plan, point, options))},
                  {"started", started},
                  {"wall_s", ended.wall_s},
                  {"cpu_s", ended.cpu_s},
                  {"peak_mib", ended.peak_mib}};
  if (seed != point.axes.end()) receipt["seed"] = seed->second;
  return receipt;
}

/// What is wrong with a run that ended; "" where nothing is, and then `metrics` has its numbers.
std::string complaint(const Ended& ended, const fs::path& summary,
                      std::map<std::string, double>& metrics) {
  if (ended.status > 128)
    return "ended by signal " + std::to_string(ended.status - 128) +
           (ended.last_line.empty() ? "" : "; its last line: " + ended.last_line);
  if (ended.status != 0)
    return ended.last_line.empty()
               ? "ended with status " + std::to_string(ended.status) + " and said nothing"
               : ended.last_line;
  if (!fs::exists(summary)) return "ended well, but wrote no summary.json";
  try {
    metrics = numbers_of(read_json(summary));
  } catch (const Error& error) {
    return error.what();
  }
  return metrics.empty() ? "its summary.json has no number" : "";
}

/// While this process waited, Ctrl-C went to both: end as the signal's handler does.
[[noreturn]] void interrupt() {
  std::raise(SIGINT);
  for (;;) pause();
}

Row run_point(const Plan& plan, const Point& point, const RunOptions& options) {
  const fs::path folder = options.out / "points" / point.id;
  fs::create_directories(options.out / "points");
  const Lock lock(options.out / "points" / (point.id + ".lock"),
                  "another dsa-sweep is at work on point " + point.id + " of " +
                      options.out.string() + "; wait until it ends, or take another point");
  fs::remove_all(folder);
  const std::string started = utc_now();
  const Ended ended =
      run_child(command_of(plan, point, options), options.out / "points" / (point.id + ".log"));
  if (options.interrupts && was_interrupted(ended)) interrupt();
  Row row{point.id, false, point.axes, {}, "", receipt_of(plan, point, options, started, ended)};
  row.error = complaint(ended, folder / "summary.json", row.metrics);
  row.done = row.error.empty();
  append(options.out, row);
  return row;
}

void check_before(const Plan& plan, const RunOptions& options) {
  require(sha256_of_file(plan.sweep.config) == plan.config_sha256,
          plan.sweep.config +
              " was changed after the plan was frozen; restore it, or give another --out");
  std::error_code unknown;
  const fs::space_info room = fs::space(options.out, unknown);
  require(
      unknown || room.available >= room_needed,
      "the disk of " + options.out.string() +
          " is full: less than 16 MiB are left; the finished points are safe, run the sweep again "
          "when there is room");
}

}  // namespace

std::vector<std::string> command_of(const Plan& plan, const Point& point,
                                    const RunOptions& options) {
  std::vector<std::string> words = options.program;
  words.push_back(plan.sweep.config);
  for (const auto& [key, value] : point.keys) words.push_back(key + "=" + value);
  words.push_back("run.out=" + (options.out / "points" / point.id).string());
  return words;
}

Tally run_points(const Plan& plan, const RunOptions& options, const Tell& tell) {
  std::set<std::string> done;
  for (const Row& row : read_rows(options.out).rows)
    if (row.done) done.insert(row.id);
  Tally tally;
  const std::vector<Point> points = chosen(plan, options.only);
  for (const Point& point : points) {
    if (done.contains(point.id)) {
      ++tally.skipped;
      continue;
    }
    check_before(plan, options);
    const Row row = run_point(plan, point, options);
    ++(row.done ? tally.done : tally.failed);
    tell(point, row, tally.done + tally.failed + tally.skipped, static_cast<int>(points.size()));
  }
  settle(options.out, plan);
  return tally;
}

}  // namespace dsa::sweep
