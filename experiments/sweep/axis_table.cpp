#include "experiments/sweep/axes.hpp"

namespace dsa::sweep {
namespace {

using Values = AxisKind::Values;

AxisKind integers(std::string_view name, double least, std::vector<std::string_view> keys,
                  std::string_view meaning) {
  return {name, Values::integers, least, 1e12, std::move(keys), {}, meaning};
}

AxisKind reals(std::string_view name, double most, std::vector<std::string_view> keys,
               std::string_view meaning) {
  return {name, Values::reals, 0, most, std::move(keys), {}, meaning};
}

AxisKind words(std::string_view name, std::vector<Word> words, std::string_view meaning) {
  return {name, Values::words, 0, 0, {}, std::move(words), meaning};
}

AxisKind convention() {
  return words("convention",
               {{"paper", {"semantics.name=paper"}},
                {"maxtext", {"semantics.name=maxtext"}},
                {"megatron", {"semantics.name=megatron"}},
                {"hf-fork", {"semantics.name=hf-fork"}},
                {"prime-rl", {"semantics.name=prime-rl"}},
                {"xtuner", {"semantics.name=xtuner"}}},
               "whose reading of the indexer's loss");
}

AxisKind teacher() {
  return words("teacher",
               {{"chosen",
                 {"semantics.teacher_softmax=chosen", "semantics.teacher_keys=chosen",
                  "semantics.student_keys=chosen"}},
                {"visible",
                 {"semantics.teacher_softmax=visible", "semantics.teacher_keys=visible",
                  "semantics.student_keys=visible"}}},
               "keys that teacher and student are compared on in the sparse stage");
}

/// AdamW without memory and with a large eps is a gradient step: g / (|g| + eps) is g / eps up to
/// |g| / eps, which clipping keeps below 1/1000. So the rates are 1000 times those of the gradient
/// step: 1 in the warm-up and 0.1 in the sparse stage, where the model learns as well. With AdamW's
/// rates the plain gradient moves nothing.
AxisKind optimizer() {
  return words("optimizer",
               {{"adam", {}},
                {"sgd",
                 {"optimizer.beta1=0", "optimizer.beta2=0", "optimizer.eps=1000",
                  "optimizer.weight_decay=0", "stage.warmup.lr=1000", "stage.sparse.lr=100"}}},
               "AdamW, or the plain gradient with a rate of 1 in the warm-up and 0.1 in sparse");
}

}  // namespace

const std::vector<AxisKind>& axis_kinds() {
  static const std::vector<AxisKind> all = {
      integers("topk", 1, {"model.index_topk"}, "keys that a query selects"),
      integers("context", 2, {"data.seq"}, "tokens of a row"),
      integers("seed", 0, {"run.seed"}, "of fresh parameters and of the data's order"),
      reals("coefficient", 1e9, {"stage.sparse.kl"}, "of the indexer's loss in the sparse stage"),
      reals("warmup_coefficient", 1e9, {"stage.warmup.kl"}, "of the indexer's loss in the warm-up"),
      convention(),
      teacher(),
      words("student",
            {{"chosen", {"semantics.student_keys=chosen"}},
             {"visible", {"semantics.student_keys=visible"}}},
            "keys that the student is a distribution over"),
      words("student_scale",
            {{"scaled", {"semantics.student_scaled=true"}},
             {"raw", {"semantics.student_scaled=false"}}},
            "the student's scores with the factor H^-1/2 D^-1/2, or without"),
      words("normalisation",
            {{"mean", {"semantics.tokens=mean"}}, {"sum", {"semantics.tokens=sum"}}},
            "of the indexer's loss over tokens"),
      words("detach",
            {{"inputs", {"semantics.detach=inputs"}},
             {"query_latent", {"semantics.detach=query_latent"}},
             {"nothing", {"semantics.detach=nothing"}}},
            "what of the indexer's input is a constant to its loss"),
      optimizer(),
      words("compute", {{"fp32", {"model.compute=fp32"}}, {"bf16", {"model.compute=bf16"}}},
            "format of the factors of products"),
      integers("heads", 1, {"model.index_n_heads"}, "of the indexer"),
      integers("head_dim", 1, {"model.index_head_dim"}, "of the indexer"),
      integers("warmup_steps", 1, {"stage.warmup.steps"}, "of the dense warm-up"),
      words(
          "adaptation",
          {{"frozen", {"stage.adapt.kind=sft"}},
           {"lora",
            {"stage.adapt.kind=lora", "stage.adapt.kl=0.01",
             "stage.adapt.lora_targets=.*(indexer|proj).*"}},
           {"full", {"stage.adapt.kind=sparse"}}},
          "what of the indexer is trained in the stage named adapt: nothing, adapters, everything"),
      integers("sparse_steps", 1, {"stage.sparse.steps"}, "of the sparse stage"),
  };
  return all;
}

}  // namespace dsa::sweep
