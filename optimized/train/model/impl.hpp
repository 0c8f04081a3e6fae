// optimized/train/model/impl.hpp — a trained model and the memory of its passes.
#pragma once

#include <optional>
#include <vector>

#include "optimized/train/model/block.hpp"
#include "optimized/train/model/head.hpp"

namespace dsa::train {

struct TrainedModel::Impl {
  Impl(const Model& checkpoint, Compute);

  void refresh();
  Losses run(const Batch&, const Objective&, const std::function<bool(const std::string&)>& trained,
             Context*);
  Tensor<float, 2> logits(const Batch&, Recipe::Attention, Selector, IndexFormat);
  std::vector<Recall> recall(const Batch&, Index K, IndexFormat);

  Config config;
  Parameters parameters, gradients;

 private:
  /// What a pass has to reach backwards.
  struct Reach {
    bool head = false;  // the head's parameters, or what lies below
    Index lowest = 0;   // the lowest layer with something to learn; -1: the embedding
    bool visits(Index l) const { return l >= lowest; }
  };

  Pass begin(const Batch&, const Objective&, Context&);
  void check_batch(const Batch&) const;
  void prepare(Rows);
  void pack_if_stale(bool turned);
  Reach reach(const Objective&) const;

  Block block(const Pass&, Index l);
  void forward(const Pass&, const std::function<void(const Block&, Index l)>& after_attention,
               const std::function<void(const Block&)>& after_layer);
  Losses forward_losses(const Pass&, const Reach&);
  void backward(const Pass&, const Reach&, Losses&);
  void language_loss(const Pass&, const Batch&, const Reach&, Losses&);
  void mtp_loss(const Pass&, const Batch&, const Reach&, Losses&);
  void mtp_input(const Pass&, const MtpBuffers&, View<const std::int32_t, 1> next);
  void mtp_backward(const Pass&, const MtpBuffers&, const Block&, View<const std::int32_t, 1> next);
  bool mtp_learns() const;
  void count_load(const Kept&, Losses&) const;

  cpu::Cpu cpu_;
  Slots slots_;
  bool stale_[2] = {true, true};  // by_output, by_input
  cpu::TrainMemory memory_;
  std::shared_ptr<std::byte> buffers_memory_;
  Index buffers_bytes_ = 0;
  std::optional<Buffers> buffers_;
  std::vector<Index> expert_begin_;
  Targets targets_;
  Context alone_, of_mtp_;  // all rows are here
};

}  // namespace dsa::train
