#include "optimized/train/pipeline/trainer.hpp"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <numeric>
#include <set>

#include "core/check.hpp"
#include "core/checkpoint.hpp"
#include "core/sha256.hpp"
#include "optimized/train/pipeline/failed_step.hpp"
#include "optimized/train/pipeline/plan.hpp"
#include "optimized/train/pipeline/resume.hpp"
#include "optimized/train/pipeline/start.hpp"
#include "optimized/train/pipeline/step_losses.hpp"

namespace dsa::train {
namespace {

namespace fs = std::filesystem;

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

/// The same for the same bits of every parameter.
std::string digest_of(TrainedModel& model) {
  std::string all;
  for (const Trained& one : parameters_of(model))
    all += sha256(ranks::bytes_of(one.value->data(), one.value->size()));
  return sha256(std::as_bytes(std::span(all)));
}

/// Steps of the whole run, run.steps included.
Index steps_of(const Settings& settings, const std::vector<Stage>& stages) {
  Index steps = 0;
  for (const Stage& stage : stages) steps += stage.steps;
  const Index most = settings.integer("run.steps");
  return most > 0 ? std::min(most, steps) : steps;
}

/// The ranks that hold a micro-batch together with this one.
Context context_of(const Settings& settings, ranks::Communicator& ranks) {
  const Index n = settings.integer("run.context_ranks");
  require(ranks.size() % n == 0, "run.context_ranks is " + std::to_string(n) +
                                     ", which does not divide the job's number of ranks, " +
                                     std::to_string(ranks.size()) +
                                     "; start a multiple of it, or choose another");
  const bool zigzag = settings.text("run.context_rows") == "zigzag";
  return Context(ranks, static_cast<int>(n), zigzag ? RowOrder::zigzag : RowOrder::contiguous);
}

}  // namespace

Trainer::Trainer(const Settings& settings, Surroundings around, ranks::Communicator& ranks)
    : settings_(settings),
      around_(std::move(around)),
      ranks_(ranks),
      context_(context_of(settings, ranks)),
      stages_(stages_of(settings)),
      directory_(settings.text("run.out"), ranks.is_first()),
      gradient_(ranks),
      optimizer_(ranks) {
  const auto checkpoint = choose_checkpoint();
  state_.settings = settings_.that_changes_numbers();
  if (checkpoint) {
    resume_from(*checkpoint);
  } else {
    Start start = start_of(settings_);
    config_ = start.config;
    model_ = std::make_unique<TrainedModel>(start.model, compute_of(settings_));
  }
  feeds_ = std::make_unique<Feeds>(settings_, model_->config().vocab_size);
  check_stages();
  if (checkpoint) resume_adapters_of_the_last_stage(*checkpoint);
  enter_stage();
  if (checkpoint) {
    if (adapters_ && state_.stage_step > 0) read_adapters(*checkpoint, *adapters_);
    read_moments(*checkpoint, trained_, optimizer_);
    refresh();
  }
  const Json hashes = feeds_->hashes();
  require_same(ranks_, "the configuration", state_.settings.dump());
  require_same(ranks_, "the data", hashes.dump());
  require_same(ranks_, "the parameters", digest_of(*model_));
  Json receipt = receipt_of(around_.command_line, around_.threads);
  receipt["ranks"] = ranks_.size();
  receipt["config"] = state_.settings;
  receipt["data"] = hashes;
  receipt["resumed"] = checkpoint ? Json(checkpoint->string()) : Json();
  directory_.begin(state_.step, settings_.toml(), receipt);
}

Trainer::~Trainer() = default;

/// Rank 0 looks, and decides for all.
std::optional<fs::path> Trainer::choose_checkpoint() {
  std::optional<fs::path> found;
  if (ranks_.is_first()) found = checkpoint_to_resume(settings_, directory_);
  const std::string chosen = text_of_first(ranks_, found ? found->string() : "");
  return chosen.empty() ? std::nullopt : std::optional<fs::path>(chosen);
}

void Trainer::resume_from(const fs::path& checkpoint) {
  const Json settings = state_.settings;
  state_ = read_state(checkpoint);
  const std::string changed = difference(settings, state_.settings);
  require(changed.empty() || settings_.flag("run.allow_change"),
          "the configuration differs from that of " + checkpoint.string() + ": " + changed +
              "; set run.allow_change=true to go on with it, or choose another run.out");
  require(state_.stage <= stages_.size(),
          checkpoint.string() + " is of stage " + std::to_string(state_.stage) +
              ", but the configuration has " + std::to_string(stages_.size()));
  state_.settings = settings;
  config_ = read_json(checkpoint / "config.json");
  model_ = std::make_unique<TrainedModel>(open_checkpoint(checkpoint), compute_of(settings_));
  const bool lies_here = fs::exists(directory_.checkpoint(state_.step));
  if (!text_of_first(ranks_, lies_here ? "yes" : "").empty()) saved_ = state_.step;
  around_.say("resumed from " + checkpoint.string());
}

/// At a border the checkpoint has the adapters of the stage that is over; entering the next one
/// makes them part of the weights.
void Trainer::resume_adapters_of_the_last_stage(const fs::path& checkpoint) {
  if (state_.stage == 0 || state_.stage_step > 0) return;
  const Stage& before = stages_[state_.stage - 1];
  if (before.kind != StageKind::lora) return;
  adapters_.emplace(before, *model_, seed());
  read_adapters(checkpoint, *adapters_);
  refresh();
}

const Stage& Trainer::last_stage() const {
  return state_.stage < stages_.size() ? stages_[state_.stage] : stages_.back();
}

std::uint64_t Trainer::seed() const {
  return static_cast<std::uint64_t>(settings_.integer("run.seed"));
}

/// What the optimiser changes from here on. Adapters of an earlier stage become part of the
/// weights.
void Trainer::enter_stage() {
  const Stage& stage = last_stage();
  const bool is_over = state_.stage >= stages_.size();
  if (adapters_ && !is_over) {
    adapters_.reset();
    refresh();
  }
  feed_.emplace(feeds_->feed_of(stage));
  reached_accuracy_ = false;
  if (stage.kind == StageKind::lora) {
    if (!adapters_) adapters_.emplace(stage, *model_, seed());
    trained_ = adapters_->trained();
    gets_gradient_ = [this](const std::string& name) { return adapters_->on(name); };
  } else {
    trained_ = trained_by(stage, *model_);
    std::set<std::string> names;
    for (const Trained& one : trained_) names.insert(one.name);
    gets_gradient_ = [names](const std::string& name) { return names.contains(name); };
  }
  optimizer_.keep(trained_);
  const PlannedModel sizes{model_->config(), static_cast<Index>(model_->parameters().mtp.size())};
  flops_a_token_ = flops_a_token(model_->config(), size_of(sizes, stage), stage);
}

void Trainer::refresh() {
  if (adapters_) adapters_->apply();
  model_->refresh();
}

/// Gradients of one micro-batch, into trained_.
Losses Trainer::run_batch(const Batch& part, const Objective& objective) {
  for (const Trained& one : parameters_of(*model_))
    if (gets_gradient_(one.name)) set_to_zero(*one.gradient);
  const Losses losses = model_->run(part, objective, gets_gradient_, &context_);
  if (adapters_) adapters_->project();
  return losses;
}

/// This rank's micro-batches, or its rows of them; the gradient's sum and the losses' are those of
/// all. Ranks of one micro-batch are neighbours: their parts are added up one after the other.
Losses Trainer::run_batches(const std::vector<Batch>& micro_batches, const Objective& objective) {
  const Index of = context_.of(), count = static_cast<Index>(micro_batches.size()) * of;
  std::vector<ranks::Numbers> mine;
  gradient_.begin(trained_, count);
  for (Index first = 0; first < count; first += ranks_.size()) {
    if (const Index i = first + ranks_.rank(); i < count) {
      const auto begin = std::chrono::steady_clock::now();
      const Batch& batch = micro_batches[static_cast<std::size_t>(i / of)];
      mine.push_back(to_numbers(run_batch(batch, objective)));
      work_seconds_ += seconds_since(begin);
      ++work_batches_;
    }
    gradient_.add_round();
  }
  Losses sums;
  for (const ranks::Numbers& one : in_order(ranks_, count, mine)) add(sums, losses_of(one));
  return sums;
}

void Trainer::fail_not_finite(const std::string& what, const std::vector<Batch>& parts,
                              const Cursor& before) {
  State failed = state_;
  failed.cursor = before;
  const fs::path where = directory_.path() / "failed" / ("step-" + std::to_string(state_.step));
  if (ranks_.is_first()) {
    fs::remove_all(where);
    fs::create_directories(where.parent_path());
  }
  save_checkpoint(where, failed, snapshot(), ranks_.is_first());
  if (ranks_.is_first()) {
    write_batches(where / "batch.safetensors", parts);
    write_text(where / "config.toml", settings_.toml());
  }
  barrier(ranks_);  // all end here, and none before the first has written
  throw Error("step " + std::to_string(state_.step) + ", stage " + stage().name + ": the " + what +
              " is no finite number; the batch and the parameters before it are in " +
              where.string() + "; dsa-train --replay " + where.string() + " runs it again");
}

Json Trainer::take_step() {
  const auto begin = std::chrono::steady_clock::now();
  const Cursor before = state_.cursor;
  const Recipe& recipe = stage().recipe;
  const std::vector<Batch> parts = feed_->next(state_.cursor, state_.level);
  const StepSize size = size_of(parts);
  require(size.weight > 0 || recipe.lm == 0,
          "step " + std::to_string(state_.step) +
              " has no target to be learned; the data hold no answers");
  const Losses sums = run_batches(parts, objective_of(recipe, model_->config(), size));
  if (const char* what = not_finite(sums)) fail_not_finite(what, parts, before);
  const double lr = recipe.schedule.at(state_.stage_step);
  const double norm = optimizer_.step(trained_, gradient_, recipe.adamw, recipe.clip, lr);
  if (!std::isfinite(norm)) fail_not_finite("gradient's norm", parts, before);
  update_router_biases(model_->parameters(), model_->config(), sums.load, recipe.bias_update_rate);
  refresh();
  ++state_.step;
  ++state_.stage_step;
  ++state_.level_step;
  state_.tokens += size.rows;
  Json metrics = means_of(sums, size);
  metrics["step"] = state_.step;
  metrics["stage"] = stage().name;
  metrics["level"] = stage().levels[state_.level];
  metrics["tokens"] = state_.tokens;
  metrics["grad_norm"] = norm;
  metrics["lr"] = lr;
  const double seconds = seconds_since(begin);
  metrics["seconds"] = seconds;
  metrics["tokens_per_s"] = static_cast<double>(size.rows) / seconds;
  metrics["gflop_per_s"] = static_cast<double>(size.rows) * flops_a_token_ / seconds / 1e9;
  return metrics;
}

/// Evaluates, where it is time to, and lets the curriculum go on.
void Trainer::look(Json& metrics) {
  const Index every = settings_.integer("run.eval_every");
  const bool is_due =
      (every > 0 && state_.stage_step % every == 0) || state_.stage_step >= stage().steps;
  double accuracy = 0;
  if (is_due && settings_.integer("run.eval_documents") > 0) {
    const Evaluation seen = evaluate(*model_, *feed_, stage(), state_.level, ranks_);
    metrics.update(seen.metrics);
    accuracy = seen.has_task ? seen.accuracy : 0;
    std::string line = fmt::format("{}, step {}:", stage().name, state_.step);
    for (const auto& [key, value] : seen.metrics.items())
      line += fmt::format(" {} {:.4g}", key, value.get<double>());
    around_.say(line);
  }
  raise_level(accuracy, is_due);
}

void Trainer::raise_level(double accuracy, bool was_evaluated) {
  const Stage& s = stage();
  const bool is_last = state_.level + 1 == s.levels.size();
  if (is_last && was_evaluated && s.until_accuracy > 0 && accuracy >= s.until_accuracy)
    reached_accuracy_ = true;
  const bool is_mastered = s.advance_at > 0 && was_evaluated && accuracy >= s.advance_at;
  const bool is_time = s.level_steps > 0 && state_.level_step >= s.level_steps;
  if (is_last || !(is_mastered || is_time)) return;
  ++state_.level;
  state_.level_step = 0;
  around_.say(fmt::format("{}, step {}: level {} of {}", s.name, state_.step, state_.level + 1,
                          s.levels.size()));
}

bool Trainer::is_stage_over() const {
  return state_.stage_step >= stage().steps || reached_accuracy_;
}

/// The state's stage is the next one from here on: a checkpoint at the border is resumed there.
/// Where the accuracy was not reached the run stays where it is.
void Trainer::end_stage(const Json& metrics) {
  const Stage& s = stage();
  around_.say(fmt::format("stage {} is over after {} steps, loss {:.4g}", s.name, state_.stage_step,
                          metrics.value("loss.lm", metrics.value("loss.kl", 0.0))));
  if (s.until_accuracy > 0 && !reached_accuracy_) {
    around_.say(fmt::format(
        "stage {} was to reach the accuracy {} and ended at level {} of {} without it: the model "
        "is not trained, and nothing is claimed about what would follow",
        s.name, s.until_accuracy, state_.level + 1, s.levels.size()));
    return;
  }
  ++state_.stage;
  state_.stage_step = state_.level_step = 0;
  state_.level = 0;
}

Snapshot Trainer::snapshot() const {
  const std::string tokenizer = settings_.text("data.tokenizer");
  return {config_,
          model_->parameters(),
          model_->config(),
          optimizer_,
          adapters_ ? &*adapters_ : nullptr,
          tokenizer == "bytes" ? fs::path() : fs::path(tokenizer)};
}

void Trainer::save() {
  if (saved_ == state_.step) return;  // or resumed here, and has not moved
  save_checkpoint(directory_.checkpoint(state_.step), state_, snapshot(), ranks_.is_first());
  saved_ = state_.step;
  if (!ranks_.is_first()) return;
  remove_old_checkpoints(directory_.checkpoints(), settings_.integer("run.keep_last"),
                         settings_.integer("run.major_every"));
}

Outcome Trainer::finish(Outcome outcome) {
  save();
  directory_.write_csv();
  if (outcome == Outcome::stopped || outcome == Outcome::interrupted) return outcome;
  Json summary = final_evaluation(*model_, *feed_, last_stage(), seed(), ranks_);
  summary["completed"] = outcome == Outcome::completed;
  summary["steps"] = state_.step;
  summary["tokens"] = state_.tokens;
  summary["checkpoint"] = directory_.checkpoint(state_.step).string();
  directory_.write_summary(summary);
  for (const std::string& line : table_of(summary)) around_.say(line);
  return outcome;
}

/// Whether any rank was; and a word about a slow one.
bool Trainer::is_interrupted() {
  const double a_batch =
      work_batches_ > 0 ? work_seconds_ / static_cast<double>(work_batches_) : 0.0;
  const auto all = all_gather(ranks_, {around_.interrupted() ? 1.0 : 0.0, a_batch});
  constexpr Index steps_of_a_look = 10;
  if (state_.step % steps_of_a_look == 0) {
    std::vector<double> seconds;
    for (const ranks::Numbers& one : all) seconds.push_back(one[1]);
    const std::string slow = slow_rank(seconds, ranks_.members());
    if (!slow.empty()) around_.say(fmt::format("step {}: {}", state_.step, slow));
    work_seconds_ = 0;
    work_batches_ = 0;
  }
  return std::any_of(all.begin(), all.end(), [](const auto& one) { return one[0] != 0; });
}

Outcome Trainer::run() {
  const Index steps = steps_of(settings_, stages_);
  const Index save_every = settings_.integer("run.save_every");
  const bool is_cut = settings_.integer("run.steps") > 0;
  while (state_.stage < stages_.size()) {
    if (is_cut && state_.step >= steps) return finish(Outcome::stopped);
    if (is_stage_over()) return finish(Outcome::gate_not_reached);
    if (state_.stage_step == 0)
      around_.say(fmt::format("stage {} begins at step {}", stage().name, state_.step));
    Json metrics = take_step();
    look(metrics);
    directory_.add(metrics);
    around_.progress(metrics, state_.step, steps);
    const bool is_border = is_stage_over();
    if (is_border) end_stage(metrics);
    if (is_border || (save_every > 0 && state_.step % save_every == 0)) save();
    if (is_border && state_.stage_step == 0 && state_.stage < stages_.size()) enter_stage();
    if (is_interrupted()) return finish(Outcome::interrupted);
  }
  return finish(Outcome::completed);
}

}  // namespace dsa::train
