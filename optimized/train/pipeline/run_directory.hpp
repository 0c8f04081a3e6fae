// optimized/train/pipeline/run_directory.hpp — what a run leaves behind.
//
//   OUT/config.toml     every key of the run      OUT/metrics.jsonl  one object a step
//   OUT/receipt.json    what produced it          OUT/metrics.csv    the same as a table
//   OUT/summary.json    of a completed run        OUT/tb/            TensorBoard's events
//   OUT/ckpt/step-N/    state.hpp                 OUT/lock           held while a run writes here
#pragma once

#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

#include "core/json.hpp"
#include "core/tensor.hpp"
#include "optimized/train/pipeline/tensorboard.hpp"

namespace dsa::train {

/// An exclusive lock on a file; the system gives it up however the process ends.
class Lock {
 public:
  /// Error: another process holds it.
  explicit Lock(const std::filesystem::path& file);
  ~Lock();
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

 private:
  int fd_ = -1;
};

class RunDirectory {
 public:
  /// Creates it, locks it, and removes what an interrupted run left half-written. A rank that does
  /// not write leaves it alone, then and later.
  explicit RunDirectory(std::filesystem::path out, bool writes = true);

  const std::filesystem::path& path() const { return out_; }
  std::filesystem::path checkpoints() const { return out_ / "ckpt"; }
  std::filesystem::path checkpoint(Index step) const;

  /// Begins the logs: lines of metrics.jsonl beyond `step` are dropped, as the run takes those
  /// steps again.
  void begin(Index step, const std::string& config_toml, const Json& receipt);

  /// One object a step; its numbers go to TensorBoard.
  void add(const Json& metrics);

  /// metrics.csv, from metrics.jsonl: a column for every key of any line.
  void write_csv() const;
  void write_summary(const Json&) const;

 private:
  std::filesystem::path out_;
  bool writes_;
  std::optional<Lock> lock_;
  std::ofstream metrics_;
  std::optional<TensorBoard> board_;
};

/// Version, commit, compiler, processor, threads, command line and time of a start.
Json receipt_of(const std::string& command_line, int threads);

/// Seconds since 1970.
double wall_time();

}  // namespace dsa::train
