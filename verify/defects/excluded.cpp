// Known bugs that no variant of a forward pass can show, and why.
#include <algorithm>

#include "verify/defects/defect.hpp"

namespace dsa::verify {
namespace {

constexpr const char* backward = "training only: the forward pass is right";
constexpr const char* decode = "needs a cache and a second step; one prefill is right";
constexpr const char* crash = "crashes instead of answering";
constexpr const char* memory = "reads memory that holds nobody knows what";
constexpr const char* mtp = "goldens hold no logits of the multi-token-prediction block";
constexpr const char* equivalent = "changes nothing that can be seen: not a defect";

const std::vector<Excluded>& indexer_and_selection() {
  static const std::vector<Excluded> list = {
      {3, "A fused kernel hard-codes one convention of the indexer's rotation.",
       "the same numbers as 1, in one code path"},
      {28, "A sequence shorter than index_topk is not clamped.", crash},
      {30, "The valid length of a row is not passed on: padding lanes are read.", memory},
      {31, "Offsets of rows are confused in a packed batch.",
       "a sequence by itself is right; which rows are mixed up depends on the batch"},
      {38, "Scores are NaN, or a buffer is read before it is written.",
       "a race: no two runs agree; NaN is an error of its own"},
      {39, "A kernel's strides are those of head size 128.", memory},
      {40, "stride(0) is taken for stride(1).", memory},
      {41, "Draft rows use the sequence length of another row.", decode},
      {42, "Cache offsets overflow 32 bits.", "needs a cache of billions of elements"},
      {43, "A block without visible keys makes an online softmax 0/0.",
       "NaN, which the reader of a golden refuses"},
  };
  return list;
}

const std::vector<Excluded>& training() {
  static const std::vector<Excluded> list = {
      {48, "Gradients are absent, not zero, when the loss has coefficient 0.", backward},
      {50, "A custom gradient function returns gradients in the wrong order.", backward},
      {56, "Training selects in bf16 and rollout in FP8.",
       "each of the two is right at its own precision"},
      {84, "Load counts for the bias update are wrong.", backward},
      {204, "Plausible: the teacher averages heads where it should sum them.", equivalent},
      {208, "Plausible: the loss normalises its prediction over future keys too.", backward},
      {223, "Plausible: the expert bias is updated with the wrong sign.", backward},
  };
  return list;
}

const std::vector<Excluded>& numbers_and_caches() {
  static const std::vector<Excluded> list = {
      {73, "The cache is appended twice, or k_rope is written in a race.",
       "twice the same keys are the same softmax; a race is not reproducible"},
      {88, "ceil(log2) is computed in floating point.",
       "one unit in the last place of rare scales; the code is needed, not its output"},
      {89, "The guard of amax takes min for max.", "a block of zeros becomes NaN, all others 1e-4"},
      {92, "Values are not clamped before the cast to e4m3.",
       "NaN, which the reader of a golden refuses"},
      {93, "FP8 products are accumulated in 14 bits without promotion.",
       "hardware dependent, and as large as rounding: a limit finds it, a variant does not"},
      {96, "A token's index is used on a buffer indexed by pages.", decode},
      {97, "Several tokens at once are taken for a new sequence.", decode},
      {115, "An adapter of one projection is not applied, or merged twice.",
       "any weights are possible: `diagnose` names the projection from a trace, and from logits "
       "if it is told the other checkpoint (--weights-of)"},
      {118, "Prompts of more than index_topk keys take another path than shorter ones.",
       "one length shows one path: `golden` and `diagnose` say so of a file with prompts of both "
       "kinds, and `invariants` asks for both"},
      {110, "Exact ties are broken in another order.",
       "both orders are right; 36 has it for the sake of diagnosis"},
      {217, "Plausible: k_rope is cached before its rotation.", "the same numbers as 67"},
      {221, "Plausible: values come from an FP8 latent and keys from a bf16 one.", decode},
  };
  return list;
}

const std::vector<Excluded>& multi_token_prediction() {
  static const std::vector<Excluded> list = {
      {99, "Embedding and hidden state are concatenated in the wrong order.", mtp},
      {100, "The embedding of position 0 is zeroed, or is not.", mtp},
      {101, "The shared head lacks its norm, or is not initialised.", mtp},
      {106, "The causal mask is built from the cache's offset after the update.", crash},
      {107, "The indexer's backward pass accepts buffers of any type.", backward},
  };
  return list;
}

std::vector<Excluded> excluded_in_order() {
  std::vector<Excluded> all;
  for (const auto part :
       {indexer_and_selection, training, numbers_and_caches, multi_token_prediction})
    all.insert(all.end(), part().begin(), part().end());
  std::stable_sort(all.begin(), all.end(),
                   [](const Excluded& a, const Excluded& b) { return a.number < b.number; });
  return all;
}

}  // namespace

std::span<const Excluded> excluded_defects() {
  static const std::vector<Excluded> all = excluded_in_order();
  return all;
}

}  // namespace dsa::verify
