#include "optimized/train/pipeline/run_directory.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <chrono>
#include <ctime>
#include <set>
#include <sstream>
#include <vector>

#include "core/build_info.hpp"
#include "core/check.hpp"
#include "core/file.hpp"
#include "core/outputs.hpp"

namespace dsa::train {
namespace {

namespace fs = std::filesystem;

std::string processor() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown";
}

std::string time_text(double seconds) {
  const auto whole = static_cast<std::time_t>(seconds);
  std::tm parts{};
  gmtime_r(&whole, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

/// Whole lines with a step of at most `step`; the last may have been cut by a kill.
std::string kept_lines(const fs::path& file, Index step) {
  std::string kept;
  if (!fs::exists(file)) return kept;
  std::istringstream in(read_text(file));
  for (std::string line; std::getline(in, line);) {
    const Json json = Json::parse(line, nullptr, false);
    if (json.is_object() && json.value("step", step + 1) <= step) kept += line + "\n";
  }
  return kept;
}

std::string csv_cell(const Json& value) {
  if (value.is_null()) return "";
  if (!value.is_string()) return value.dump();
  std::string quoted = "\"";
  for (const char c : value.get<std::string>()) quoted += c == '"' ? "\"\"" : std::string(1, c);
  return quoted + "\"";
}

}  // namespace

double wall_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

Lock::Lock(const fs::path& file) : fd_(::open(file.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644)) {
  require(fd_ >= 0,
          "cannot write " + file.string() + ": " + std::generic_category().message(errno));
  if (::flock(fd_, LOCK_EX | LOCK_NB) == 0) return;
  ::close(fd_);
  throw Error("another run writes to " + file.parent_path().string() +
              "; wait until it ends, or choose another run.out");
}

Lock::~Lock() { ::close(fd_); }

RunDirectory::RunDirectory(fs::path out, bool writes) : out_(std::move(out)), writes_(writes) {
  if (!writes_) return;
  std::error_code reason;
  fs::create_directories(checkpoints(), reason);
  require(!reason, "cannot create " + checkpoints().string() + ": " + reason.message());
  lock_.emplace(out_ / "lock");
  for (const auto& entry : fs::directory_iterator(checkpoints())) {
    const fs::path extension = entry.path().extension();
    if (extension == ".partial" || extension == ".removed") fs::remove_all(entry.path());
  }
}

fs::path RunDirectory::checkpoint(Index step) const {
  return checkpoints() / ("step-" + std::to_string(step));
}

void RunDirectory::begin(Index step, const std::string& config_toml, const Json& receipt) {
  if (!writes_) return;
  write_text(out_ / "config.toml", config_toml);
  write_text(out_ / "receipt.json", json_text(receipt));
  const fs::path metrics = out_ / "metrics.jsonl";
  write_text(metrics, kept_lines(metrics, step));
  metrics_.open(metrics, std::ios::app);
  board_.emplace(out_ / "tb", wall_time(), "step" + std::to_string(step));
}

void RunDirectory::add(const Json& metrics) {
  if (!writes_) return;
  const auto step = metrics.at("step").get<Index>();
  metrics_ << metrics.dump() << '\n';
  metrics_.flush();
  require(metrics_.good(),
          "cannot write " + (out_ / "metrics.jsonl").string() + "; is the disk full?");
  const double now = wall_time();
  for (const auto& [key, value] : metrics.items())
    if (value.is_number() && key != "step") board_->add(now, step, key, value.get<double>());
  board_->flush();
}

void RunDirectory::write_csv() const {
  if (!writes_) return;
  std::vector<Json> lines;
  std::set<std::string> keys;
  std::istringstream in(read_text(out_ / "metrics.jsonl"));
  for (std::string line; std::getline(in, line);) {
    lines.push_back(parse_json(line, "metrics.jsonl"));
    for (const auto& [key, value] : lines.back().items()) keys.insert(key);
  }
  keys.erase("step");
  std::string table = "step";
  for (const std::string& key : keys) table += "," + key;
  table += "\n";
  for (const Json& line : lines) {
    table += line.at("step").dump();
    for (const std::string& key : keys) table += "," + csv_cell(line.value(key, Json()));
    table += "\n";
  }
  write_text(out_ / "metrics.csv", table);
}

void RunDirectory::write_summary(const Json& summary) const {
  if (!writes_) return;
  write_text(out_ / "summary.json", json_text(summary));
}

Json receipt_of(const std::string& command_line, int threads) {
  const BuildInfo& build = build_info();
  return {{"version", build.version},   {"commit", build.commit},
          {"compiler", build.compiler}, {"flags", build.flags},
          {"device", processor()},      {"threads", threads},
          {"command", command_line},    {"started", time_text(wall_time())}};
}

}  // namespace dsa::train
