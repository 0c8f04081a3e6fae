// optimized/train/model.hpp — a model that is trained: parameters and gradients in fp32, one
// forward and backward pass over a micro-batch.
//
// Definition: reference/model/{forward,backward}.hpp. Constants to a loss are as there: selections,
// routing, the indexer's teacher, and the indexer's inputs as KlSemantics says. Sums have a fixed
// order: results are the same bits for any number of threads.
//
// Memory: one layer's activations (a layer is run again in the backward pass), and what is kept of
// a token and layer: 2 C numbers of the residual stream, what attention made (N U), the selection
// (K). Attention and the indexer's loss stream over the keys, in both stages: O(T K + block), never
// O(T^2).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/kl_semantics.hpp"
#include "core/recipe.hpp"
#include "core/weights.hpp"
#include "optimized/shared/recall.hpp"
#include "optimized/train/batch.hpp"
#include "optimized/train/context.hpp"

namespace dsa::train {

/// A parameter of a trained model, or its gradient or moment: (rows, columns); a vector is (n, 1).
using Leaf = Tensor<float, 2>;
using Parameters = WeightsOf<Leaf>;

/// What is multiplied: fp32, or bf16 copies of the fp32 parameters and bf16 activations (but of the
/// router and of the indexer's head weights). Sums are fp32 in both.
enum class Compute { fp32, bf16 };

/// Whose selection sparse attention reads: the indexer's, or one it is measured against
/// (optimized/train/model/selectors.hpp). Losses of the indexer need its own.
enum class Selector { indexer, recent, random, oracle };

/// What the indexer's q and k are rounded to before they are multiplied: not at all; to bf16; to
/// e4m3 with a scale a row and head, as the serving code does it after a rotation by a Hadamard
/// matrix; the same with scales that are powers of two; or without the rotation.
enum class IndexFormat { exact, bf16, e4m3, e4m3_ue8m0, e4m3_unrotated };

/// What one micro-batch contributes to a step. Each factor is the loss's coefficient divided by
/// what its reduction over the whole step divides by, so that accumulation changes nothing. A loss
/// whose factor is 0 is not computed.
struct Objective {
  Recipe::Attention attention = Recipe::Attention::sparse;
  Selector selector = Selector::indexer;
  IndexFormat index_format = IndexFormat::exact;  // another has no gradient
  KlSemantics semantics = {};
  double lm = 0;       // per unit of target_weight
  double mtp = 0;      // likewise, of the first prediction block's rows, two tokens ahead: row t's
                       // target has the weight that it has as the target of row t+1
  double kl = 0;       // per row, of every layer that computes an index
  double balance = 0;  // per document, of every layer of experts
};

/// Sums over the micro-batch, without the factors of the objective.
struct Losses {
  double lm = 0, lm_weight = 0;  // sum of weight times cross entropy; sum of weights
  double mtp = 0, mtp_weight = 0;
  double balance = 0;      // sum over documents and layers
  std::vector<double> kl;  // sum over rows, one a layer that computes an index
  Index kl_rows = 0;
  /// Tokens that each expert got, a layer of experts; the prediction block's last, where it ran.
  std::vector<std::vector<Index>> load;
};

class TrainedModel {
 public:
  /// Parameters of a checkpoint, widened or rounded to fp32.
  TrainedModel(const Model& checkpoint, Compute);
  ~TrainedModel();

  const Config& config() const;
  Parameters& parameters();
  Parameters& gradients();

  /// After parameters were changed: derived copies (bf16, packed) are made anew.
  void refresh();

  /// Adds to the gradients of parameters for which `trained` holds (by name); the others' stay as
  /// they are and cost nothing. An empty function: nothing is trained, losses only.
  /// `context`: ranks that have the same batch take part. Losses and gradients are then those of
  /// this rank's rows; the sums over its ranks are the batch's.
  Losses run(const Batch&, const Objective&, const std::function<bool(const std::string&)>& trained,
             Context* context = nullptr);

  /// Logits (T, V) of a batch, without gradients.
  Tensor<float, 2> logits(const Batch&, Recipe::Attention, Selector = Selector::indexer,
                          IndexFormat = IndexFormat::exact);

  /// One entry a layer that computes an index, of a pass with dense attention; K as the config says
  /// where it is 0.
  std::vector<Recall> recall(const Batch&, Index K = 0, IndexFormat = IndexFormat::exact);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dsa::train
