#include "experiments/sweep/evaluate/evaluate.hpp"

#include <algorithm>
#include <cmath>

#include "core/check.hpp"
#include "experiments/sweep/evaluate/by_position.hpp"
#include "optimized/train/pipeline/evaluation.hpp"
#include "optimized/train/pipeline/feeds.hpp"
#include "optimized/train/pipeline/recall_sum.hpp"
#include "optimized/train/pipeline/start.hpp"

namespace dsa::sweep {
namespace {

using namespace dsa::train;

/// log of the sum of exponentials, without overflow.
double log_sum(View<const float, 1> logits) {
  const double most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - most);
  return most + std::log(sum);
}

/// KL( softmax a || softmax b ) = sum_v p_v ( log p_v - log q_v ).
double kl(View<const float, 1> a, View<const float, 1> b) {
  const double log_a = log_sum(a), log_b = log_sum(b);
  double sum = 0;
  for (Index v = 0; v < a.shape[0]; ++v) {
    const double log_p = static_cast<double>(a(v)) - log_a;
    sum += std::exp(log_p) * (log_p - (static_cast<double>(b(v)) - log_b));
  }
  return sum;
}

double kl_to_dense(TrainedModel& model, const std::vector<Batch>& batches) {
  double sum = 0;
  Index rows = 0;
  for (const Batch& batch : batches) {
    const Tensor<float, 2> dense = model.logits(batch, Recipe::Attention::dense);
    const Tensor<float, 2> sparse = model.logits(batch, Recipe::Attention::sparse);
    for (Index t = 0; t < batch.rows(); ++t) sum += kl(dense.view()[t], sparse.view()[t]);
    rows += batch.rows();
  }
  return sum / static_cast<double>(rows);
}

Json source_of(TrainedModel& model, const std::vector<Batch>& batches, Index seq) {
  const auto json_of_score = [](const Score& s) {
    return Json{{"lm", s.lm}, {"accuracy", s.accuracy}, {"targets", s.targets}};
  };
  const RecallOf recall = [&](const Batch& batch) { return model.recall(batch); };
  const std::vector<Batch> documents = documents_of(batches);
  ranks::Communicator alone;
  const Score dense = score_of(model, batches, {"dense", Recipe::Attention::dense}, alone),
              sparse = score_of(model, batches, {"sparse"}, alone);
  Json out = {{"dense", json_of_score(dense)},
              {"sparse", json_of_score(sparse)},
              {"kl_to_dense", kl_to_dense(model, batches)},
              {"by_position", Json::object()}};
  for (const Stretch& all : recall_by_position(recall, documents, {seq}))
    out["recall"] = train::to_json(all.recall);
  out.update(recall_in_formats(model, documents, alone));
  for (const Stretch& stretch :
       recall_by_position(recall, documents, {seq / 4, seq / 2, 3 * seq / 4, seq}))
    out["by_position"][std::to_string(stretch.to)] = train::to_json(stretch.recall);
  return out;
}

}  // namespace

Json evaluate(const Settings& settings) {
  require(!settings.text("model.init").empty(),
          "no checkpoint is named; give model.init=DIR, or --checkpoint DIR to dsa-sweep");
  const Index K = settings.integer("model.index_topk");
  Start start = start_of(settings);
  require(start.model.config.indexer.has_value(),
          "the checkpoint " + settings.text("model.init") +
              " has no indexer, so there is no selection to evaluate; give one of DeepSeek-V3.2 or "
              "GLM-5, or model.init_indexer=true");
  start.model.config.indexer->topk = K;
  const Stage stage = stages_of(settings).back();
  require(stage.seq > 4 * K, "rows of " + std::to_string(stage.seq) +
                                 " tokens have no query with "
                                 "more than 4 k = " +
                                 std::to_string(4 * K) +
                                 " visible keys, and below that every selection finds much; give a "
                                 "longer data.seq or a smaller model.index_topk");
  TrainedModel model(start.model, compute_of(settings));
  Feeds feeds(settings, start.model.config.vocab_size);
  const Feed feed = feeds.feed_of(stage);
  Json out = {{"topk", K}, {"context", stage.seq}, {"sources", Json::object()}};
  for (const Source& source : feed.plan().sources) {
    const std::vector<Batch> batches = feed.evaluation(source, stage.levels.size() - 1);
    require(!batches.empty(),
            "the source " + source.name + " has no held-out document; raise run.eval_documents");
    out["sources"][source.name] = source_of(model, batches, stage.seq);
  }
  return out;
}

}  // namespace dsa::sweep
