#include "optimized/train/pipeline/evaluation.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "optimized/train/pipeline/names.hpp"
#include "optimized/train/pipeline/recall_sum.hpp"
#include "optimized/train/pipeline/start.hpp"

namespace dsa::train {
namespace {

/// While it lives, the model's indexers are fresh ones.
class FreshIndexers {
 public:
  FreshIndexers(TrainedModel& model, std::uint64_t seed) : model_(model) {
    for (const Trained& one : parameters_of(model)) {
      if (one.name.find(".indexer.") == one.name.npos) continue;
      kept_.emplace_back(one.value, *one.value);
      draw_parameter(one.name, one.is_matrix ? one.value->shape()[1] : 1, 0, seed,
                     one.value->data(), one.value->size());
    }
    model_.refresh();
  }
  ~FreshIndexers() {
    for (auto& [leaf, values] : kept_) *leaf = values;
    model_.refresh();
  }
  FreshIndexers(const FreshIndexers&) = delete;
  FreshIndexers& operator=(const FreshIndexers&) = delete;

 private:
  TrainedModel& model_;
  std::vector<std::pair<Leaf*, Leaf>> kept_;
};

const std::vector<Attending> attendings = {
    {"dense", Recipe::Attention::dense},
    {"sparse"},
    {"sparse, recent keys", Recipe::Attention::sparse, Selector::recent},
    {"sparse, random keys", Recipe::Attention::sparse, Selector::random},
    {"sparse, best keys", Recipe::Attention::sparse, Selector::oracle},
    {"sparse, fp8 indexer", Recipe::Attention::sparse, Selector::indexer, IndexFormat::e4m3},
};
const Attending with_fresh_indexer = {"sparse, fresh indexer"};

/// The trained indexer as a serving engine may run it.
struct Rounded {
  IndexFormat format;
  const char* name;
};
constexpr Rounded roundings[] = {{IndexFormat::bf16, "recall, bf16 indexer"},
                                 {IndexFormat::e4m3, "recall, fp8 indexer"},
                                 {IndexFormat::e4m3_ue8m0, "recall, fp8 indexer, ue8m0 scales"},
                                 {IndexFormat::e4m3_unrotated, "recall, fp8 indexer, no Hadamard"}};

/// A Hadamard matrix has a power of two of rows.
bool has_format(const Config& config, IndexFormat format) {
  if (format != IndexFormat::e4m3 && format != IndexFormat::e4m3_ue8m0) return true;
  const Index D = config.indexer ? config.indexer->head_dim : 0;
  return D <= 1024 && std::has_single_bit(static_cast<std::uint64_t>(D));
}

/// Over all layers.
Recall recall_in(IndexFormat format, TrainedModel& model, const std::vector<Batch>& parts,
                 ranks::Communicator& ranks) {
  const auto counted = [&](Index i) {
    ranks::Numbers numbers;
    for (const Recall& recall : model.recall(parts[static_cast<std::size_t>(i)], 0, format))
      append(numbers, recall);
    return numbers;
  };
  Recall sums;
  for (const ranks::Numbers& one : divided(ranks, static_cast<Index>(parts.size()), counted))
    for (std::size_t at = 0; at < one.size();) add(sums, recall_of(one, at));
  divide_by_rows(sums);
  return sums;
}

/// - log softmax( row )_target
double cross_entropy(View<const float, 1> row, Token target) {
  const double most = *std::max_element(row.begin(), row.end());
  double sum = 0;
  for (const float x : row) sum += std::exp(static_cast<double>(x) - most);
  return most + std::log(sum) - static_cast<double>(row(target));
}

Json to_json(const Score& score) {
  return {{"lm", score.lm}, {"accuracy", score.accuracy}, {"targets", score.targets}};
}

}  // namespace

Score score_of(TrainedModel& model, const std::vector<Batch>& parts, const Attending& attending,
               ranks::Communicator& ranks) {
  const auto counted = [&](Index i) -> ranks::Numbers {
    const Batch& part = parts[static_cast<std::size_t>(i)];
    const Tensor<float, 2> logits =
        model.logits(part, attending.attention, attending.selector, attending.format);
    double loss = 0, weight = 0, right = 0, targets = 0;
    for (Index t = 0; t < part.rows(); ++t) {
      const auto at = static_cast<std::size_t>(t);
      if (part.target_weight[at] == 0) continue;
      const View<const float, 1> row = logits.view()[t];
      const Token target = part.tokens[at + 1];
      loss += part.target_weight[at] * cross_entropy(row, target);
      weight += part.target_weight[at];
      right += std::max_element(row.begin(), row.end()) - row.begin() == target ? 1 : 0;
      ++targets;
    }
    return {loss, weight, right, targets};
  };
  Score score;
  double weight = 0, right = 0;
  for (const ranks::Numbers& one : divided(ranks, static_cast<Index>(parts.size()), counted)) {
    score.lm += one[0];
    weight += one[1];
    right += one[2];
    score.targets += static_cast<Index>(one[3]);
  }
  if (weight > 0) score.lm /= weight;
  if (score.targets > 0) score.accuracy = right / static_cast<double>(score.targets);
  return score;
}

IndexerScore indexer_score_of(TrainedModel& model, const std::vector<Batch>& parts,
                              const Recipe& recipe, ranks::Communicator& ranks) {
  const auto layers = static_cast<double>(std::max<Index>(index_layers(model.config()), 1));
  const auto counted = [&](Index i) {
    const Batch& part = parts[static_cast<std::size_t>(i)];
    Objective objective;
    objective.attention = recipe.attention;
    objective.semantics = recipe.semantics;
    objective.kl = 1;
    const Losses losses = model.run(part, objective, {});
    ranks::Numbers numbers = {std::accumulate(losses.kl.begin(), losses.kl.end(), 0.0) / layers,
                              static_cast<double>(losses.kl_rows)};
    for (const Recall& recall : model.recall(part)) append(numbers, recall);
    return numbers;
  };
  IndexerScore score;
  double rows = 0;
  for (const ranks::Numbers& one : divided(ranks, static_cast<Index>(parts.size()), counted)) {
    score.kl += one[0];
    rows += one[1];
    for (std::size_t at = 2; at < one.size();) add(score.recall, recall_of(one, at));
  }
  if (rows > 0) score.kl /= rows;
  divide_by_rows(score.recall);
  return score;
}

Json recall_in_formats(TrainedModel& model, const std::vector<Batch>& parts,
                       ranks::Communicator& ranks) {
  Json all = Json::object();
  for (const Rounded& one : roundings)
    if (has_format(model.config(), one.format))
      all[one.name] = to_json(recall_in(one.format, model, parts, ranks));
  return all;
}

Evaluation evaluate(TrainedModel& model, const Feed& feed, const Stage& stage, std::size_t level,
                    ranks::Communicator& ranks) {
  Evaluation result;
  std::vector<Batch> all;
  for (const Source& source : feed.plan().sources) {
    const std::vector<Batch> parts = feed.evaluation(source, level);
    if (parts.empty()) continue;
    const Score score = score_of(model, parts, {"", stage.recipe.attention}, ranks);
    result.metrics["eval." + source.name + ".lm"] = score.lm;
    result.metrics["eval." + source.name + ".accuracy"] = score.accuracy;
    if (!source.corpus) {
      result.accuracy = std::min(result.accuracy, score.accuracy);
      result.has_task = true;
    }
    all.insert(all.end(), parts.begin(), parts.end());
  }
  if (index_layers(model.config()) == 0 || all.empty()) return result;
  const IndexerScore indexer = indexer_score_of(model, all, stage.recipe, ranks);
  result.metrics["eval.kl"] = indexer.kl;
  if (indexer.recall.rows == 0) return result;  // no row has more than 4 K visible keys
  const Json recall = to_json(indexer.recall);
  for (const auto& [key, value] : recall.items()) result.metrics["recall." + key] = value;
  return result;
}

Json final_evaluation(TrainedModel& model, const Feed& feed, const Stage& stage, std::uint64_t seed,
                      ranks::Communicator& ranks) {
  Json result = Json::object();
  const std::size_t level = feed.plan().levels.size() - 1;
  const bool has_indexer = index_layers(model.config()) > 0;
  for (const Source& source : feed.plan().sources) {
    const std::vector<Batch> parts = feed.evaluation(source, level);
    if (parts.empty()) continue;
    Json& of_source = result["sources"][source.name];
    const auto add = [&](const Attending& attending) {
      of_source[attending.name] = to_json(score_of(model, parts, attending, ranks));
    };
    for (const Attending& attending : attendings)
      if (attending.attention == Recipe::Attention::dense ||
          (has_indexer && has_format(model.config(), attending.format)))
        add(attending);
    if (!has_indexer) continue;
    const IndexerScore trained = indexer_score_of(model, parts, stage.recipe, ranks);
    of_source["kl"] = trained.kl;
    of_source["recall"] = to_json(trained.recall);
    of_source.update(recall_in_formats(model, parts, ranks));
    const FreshIndexers fresh(model, seed);
    add(with_fresh_indexer);
    of_source["recall, fresh indexer"] =
        to_json(indexer_score_of(model, parts, stage.recipe, ranks).recall);
  }
  return result;
}

std::vector<std::string> table_of(const Json& final_evaluation) {
  std::vector<Attending> all = attendings;
  all.push_back(with_fresh_indexer);
  std::vector<std::string> lines;
  const Json sources = final_evaluation.value("sources", Json::object());
  for (const auto& [source, of_source] : sources.items()) {
    lines.push_back(fmt::format("{:<34} {:>8} {:>9}", source, "loss", "accuracy"));
    for (const Attending& attending : all) {
      if (!of_source.contains(attending.name)) continue;
      const Json& score = of_source.at(attending.name);
      lines.push_back(fmt::format("  {:<32} {:>8.4f} {:>9.4f}", attending.name,
                                  score.at("lm").get<double>(),
                                  score.at("accuracy").get<double>()));
    }
  }
  return lines;
}

}  // namespace dsa::train
