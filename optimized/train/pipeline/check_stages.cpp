#include <fmt/format.h>

#include "core/check.hpp"
#include "optimized/train/pipeline/trainer.hpp"

namespace dsa::train {

/// Everything that a later stage could fail on, before the first step.
void Trainer::check_stages() {
  const Config& config = model_->config();
  for (const Stage& stage : stages_) {
    feeds_->feed_of(stage);
    const bool is_sparse = stage.recipe.attention == Recipe::Attention::sparse;
    require(config.indexer || (!is_sparse && stage.recipe.kl == 0),
            "stage " + stage.name + " needs an indexer, which a model of " + config.model_type +
                " has not; give it one by model.init_indexer, or choose dense attention and kl 0");
    if (stage.kind == StageKind::lora)
      const Adapters checked(stage, *model_, 0);
    else
      trained_by(stage, *model_);
    if (is_sparse && stage.seq <= config.indexer->topk)
      around_.say("warning: stage " + stage.name + " has rows of " + std::to_string(stage.seq) +
                  " tokens and chooses " + std::to_string(config.indexer->topk) +
                  " keys: every key is chosen, no selection is trained");
    const Index parts = stage.recipe.accumulation * context_.of();
    if (parts < ranks_.size())
      around_.say(
          fmt::format("warning: a step of stage {} has fewer micro-batches than ranks: {} "
                      "of {} ranks compute nothing; raise stage.accumulation",
                      stage.name, ranks_.size() - parts, ranks_.size()));
    require(!context_.is_divided() || (stage.recipe.mtp == 0 && stage.recipe.balance == 0),
            "stage " + stage.name +
                " has mtp or balance above 0, which ranks that hold a micro-batch together do not "
                "compute; set both to 0, or run.context_ranks to 1");
    require(stage.recipe.mtp == 0 || !model_->parameters().mtp.empty(),
            "stage " + stage.name +
                " has mtp above 0, but the model has no multi-token-prediction block");
  }
}

}  // namespace dsa::train
