// run/inspect_warnings.cpp — what of a readable checkpoint deserves a line.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>

#include "run/inspect.hpp"

namespace dsa::run {
namespace {

/// The one value of a tensor all of whose numbers are equal; read until two differ.
std::optional<double> constant_of(const Parameter& p) {
  if (!p.present() || p.rows() * p.columns() < 2) return std::nullopt;
  std::vector<double> row(static_cast<std::size_t>(p.columns()));
  std::optional<double> first;
  for (Index r = 0; r < p.rows(); ++r) {
    read_rows(p, r, r + 1, row.data());
    if (!first) first = row.front();
    if (std::any_of(row.begin(), row.end(), [&](double x) { return !(x == *first); }))
      return std::nullopt;
  }
  return first;
}

/// Training leaves no matrix constant, nor the router's correction bias. Norms may still hold the
/// ones, and biases the zeros, that they began with.
bool is_never_constant(const std::string& name, const Parameter& p) {
  return p.shape.size() == 2 || name.ends_with("e_score_correction_bias");
}

/// A loader that lost a scale puts 1 in its place.
std::optional<std::string> lost_scale(const Parameter& p) {
  if (p.scale_inv == nullptr) return std::nullopt;
  const Index across = (p.columns() + p.block - 1) / p.block;
  const Index first = p.scale_row / p.block * across;
  const Index last = (p.scale_row + p.rows() + p.block - 1) / p.block * across;
  Index ones = 0;
  double largest = 0;
  for (Index i = first; i < last; ++i) {
    if (p.scale_inv[i] == 1.0f)
      ++ones;
    else
      largest = std::max(largest, static_cast<double>(p.scale_inv[i]));
  }
  if (ones == 0 || largest == 0 || largest > 1e-2) return std::nullopt;
  return fmt::format(
      "tensor {} has {} block scale{} of exactly 1 beside scales of at most {:.2g}: a scale that "
      "was "
      "lost is often replaced by 1",
      p.name, ones, ones == 1 ? "" : "s", largest);
}

void warn_of_tensors(std::vector<std::string>& all, const Config& config, const Weights& weights) {
  for_each_tensor(weights, config, [&](const std::string& name, const Parameter& p, const auto&) {
    try {
      if (const auto value = is_never_constant(name, p) ? constant_of(p) : std::nullopt)
        all.push_back(fmt::format(
            "tensor {} holds {} everywhere; no trained model has such a tensor", name, *value));
    } catch (const Error&) {
      return;  // a number that is not finite is a problem, and listed as one
    }
    if (const auto lost = lost_scale(p)) all.push_back(*lost);
  });
}

}  // namespace

std::vector<std::string> warnings_of(const Config& config) {
  if (config.unused_keys.empty()) return {};
  return {fmt::format("config.json has keys that nothing here depends on: {}",
                      fmt::join(config.unused_keys, ", "))};
}

std::vector<std::string> warnings_of(const StoredCheckpoint& stored,
                                     const CheckpointProblems& problems, const Config& config,
                                     const Weights& weights) {
  std::vector<std::string> all = warnings_of(config);
  if (stored.prefix != "model.")
    all.push_back(
        fmt::format("tensor names begin with \"{}\", which is read as \"model.\"", stored.prefix));
  if (!stored.outside.empty())
    all.push_back(
        fmt::format("{} tensors are outside of the language model and are not read, e.g. {}",
                    stored.outside.size(), stored.outside.front()));
  const auto promised = static_cast<std::size_t>(config.num_nextn_predict_layers);
  if (weights.mtp.size() < promised)
    all.push_back(fmt::format(
        "config.json promises {} multi-token-prediction block{}, and the checkpoint holds {}",
        promised, promised == 1 ? "" : "s", weights.mtp.size()));
  for (const std::string& file : stored.unlisted)
    all.push_back(
        fmt::format("{} lies in the directory and no index lists it; it is not read", file));
  for (std::size_t i = 0; i < weights.mtp.size(); ++i) {
    const auto layer = config.num_hidden_layers + static_cast<Index>(i);
    if (weights.mtp[i].owns_head)
      all.push_back(fmt::format(
          "multi-token-prediction layer {} has a head of its own, unlike lm_head; it is used",
          layer));
    if (weights.mtp[i].owns_embedding)
      all.push_back(fmt::format(
          "multi-token-prediction layer {} has embeddings of its own; they are used", layer));
  }
  if (!problems.unused.empty())
    all.push_back(
        fmt::format("{} tensors of indexers are not used, for their layers share the selection of "
                    "a layer before, "
                    "e.g. {}",
                    problems.unused.size(), problems.unused.front()));
  if (lacks_only_the_indexer(stored, problems))
    all.push_back(
        "the indexer alone is missing: this is a dense checkpoint under the name of a sparse "
        "model; dsa-train --init-indexer gives it a fresh one");
  warn_of_tensors(all, config, weights);
  return all;
}

}  // namespace dsa::run
