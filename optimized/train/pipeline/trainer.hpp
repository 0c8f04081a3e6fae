// optimized/train/pipeline/trainer.hpp — a run: stages one after the other, saved and resumed.
//
// What a step computes is a function of the settings and the State alone: not of threads, of ranks,
// of when checkpoints were written, nor of how often the run was interrupted. Every rank of a job
// has a Trainer, and all take the same steps; the first one writes.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "optimized/train/pipeline/evaluation.hpp"
#include "optimized/train/pipeline/feeds.hpp"
#include "optimized/train/pipeline/run_directory.hpp"
#include "optimized/train/pipeline/state.hpp"

namespace dsa::train {

/// What a run tells, and asks, while it goes on.
struct Surroundings {
  std::string command_line;           // for the receipt
  int threads = 1;                    // likewise
  std::function<bool()> interrupted;  // asked after every step
  std::function<void(const std::string& line)> say;
  /// After a step: its metrics, and how many steps of the run are done, of how many.
  std::function<void(const Json& metrics, Index done, Index of)> progress;
};

enum class Outcome { completed, stopped, interrupted, gate_not_reached };

class Trainer {
 public:
  /// Takes the directory, resumes or begins, and checks every stage before the first step.
  Trainer(const Settings&, Surroundings, ranks::Communicator&);
  ~Trainer();

  Outcome run();

  const State& state() const { return state_; }

 private:
  std::optional<std::filesystem::path> choose_checkpoint();
  void resume_from(const std::filesystem::path& checkpoint);
  void resume_adapters_of_the_last_stage(const std::filesystem::path& checkpoint);
  void check_stages();
  void enter_stage();
  Json take_step();
  Losses run_batch(const Batch&, const Objective&);
  Losses run_batches(const std::vector<Batch>&, const Objective&);
  [[noreturn]] void fail_not_finite(const std::string& what, const std::vector<Batch>&,
                                    const Cursor& before);
  void refresh();
  void look(Json& metrics);
  void raise_level(double accuracy, bool was_evaluated);
  bool is_stage_over() const;
  void end_stage(const Json& metrics);
  void save();
  Snapshot snapshot() const;
  Outcome finish(Outcome);
  bool is_interrupted();
  const Stage& stage() const { return stages_[state_.stage]; }
  const Stage& last_stage() const;
  std::uint64_t seed() const;

  const Settings& settings_;
  Surroundings around_;
  ranks::Communicator& ranks_;
  Context context_;
  std::vector<Stage> stages_;
  RunDirectory directory_;
  Json config_;  // config.json of the checkpoints
  std::unique_ptr<TrainedModel> model_;
  std::unique_ptr<Feeds> feeds_;
  std::optional<Feed> feed_;
  GradientSum gradient_;
  Optimizer optimizer_;
  std::optional<Adapters> adapters_;
  std::vector<Trained> trained_;  // what the optimiser changes
  std::function<bool(const std::string&)> gets_gradient_;
  State state_;
  bool reached_accuracy_ = false;  // until_accuracy of the stage
  double flops_a_token_ = 0;
  double work_seconds_ = 0;  // of this rank's micro-batches since the last look at slow ranks
  Index work_batches_ = 0;
  Index saved_ = -1;  // the step of the newest checkpoint in the directory
};

}  // namespace dsa::train
