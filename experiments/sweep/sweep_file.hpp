// experiments/sweep/sweep_file.hpp — a sweep as it was registered before its first run: what is
// asked, what is predicted, what would count as an answer.
//
// TOML, or the same as JSON:
//
//   title = "Top-k"
//   question = "..."    prediction = "..."       sentences
//   config = "../../data/train/tiny.toml"        of dsa-train; from this file's directory
//   pair = "seed"                                runs that agree in it are compared
//   [axes]    topk = [16, 32]   seed = "range(0,8)"
//   [fixed]   "run.eval_every" = 0               keys of the configuration, for every point
//
//   [[claims]]                                   at least one
//   says = "..."                                 the sentence that the verdict is about
//   metric = "recall.indexer"                    of the results, its path joined by dots
//   minus = "recall.random"                      another one of the same run, subtracted; optional
//   axis = "topk"   from = "16"   to = "32"      compares two values of an axis: to - from
//   growth = true                                with axis alone: d log metric / d log axis
//   where = { context = "512" }                  only these runs
//   ratio = true                                 to / from, by logarithms
//   gate = ">= 0.1"
//
//   [[figures]]                                  at least one
//   title = "..."   metrics = ["recall.indexer"]   x = "topk"   series = "context"
//   log_x = true    log_y = false    unit = "share of the mass"
//   together = true                              the metrics in one picture, without series
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/json_fwd.hpp"
#include "experiments/sweep/axes.hpp"
#include "experiments/sweep/statistics.hpp"

namespace dsa::sweep {

struct Claim {
  std::string says, metric, minus, axis, from, to;
  Settings where;
  bool ratio = false, growth = false;
  Gate gate;
};

struct Figure {
  std::string title, x, series, unit;
  std::vector<std::string> metrics;
  bool log_x = false, log_y = false, together = false;
};

struct Sweep {
  std::string file;  // as the user named it; empty: none
  std::string title, question, prediction, config, pair = "seed";
  std::vector<Axis> axes;
  Settings fixed;
  std::vector<Claim> claims;
  std::vector<Figure> figures;
};

/// Errors are one sentence that begins with the file's name.
Sweep read_sweep(const std::filesystem::path& file);

/// Errors begin with `what`. `config` stays as it is written.
Sweep parse_sweep(const Json&, const std::string& what);
Json to_json(const Sweep&);

/// A number, a word or a truth value as the text that a command line would have.
std::string text_of(const Json&, const std::string& what);

/// A TOML file as JSON; dates are no part of it.
Json read_toml(const std::filesystem::path&);

}  // namespace dsa::sweep
