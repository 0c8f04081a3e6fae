// optimized/train/model/slots.hpp — every parameter as a pass sees it: its numbers, its gradient,
// the layouts that products read, and whether it is trained.
#pragma once

#include <functional>
#include <string>

#include "optimized/cpu/ops/linear.hpp"
#include "optimized/train/model.hpp"

namespace dsa::train {

struct Slot {
  View<const float, 2> value;
  View<float, 2> gradient;
  bool is_factor = false;  // of products: the matrices below hold `value`
  cpu::Matrix by_output;   // (out, in): for x W^T
  cpu::Matrix by_input;    // (in, out): for d_y W
  bool wanted = false;     // trained in this pass

  View<const float, 1> vector() const { return {value.data, {value.size()}}; }
  /// Without data where it is not wanted.
  View<float, 2> wanted_gradient() const { return wanted ? gradient : View<float, 2>{}; }
  View<float, 1> wanted_vector() const {
    return wanted ? View<float, 1>{gradient.data, {gradient.size()}} : View<float, 1>{};
  }
  bool present() const { return value.data != nullptr; }
};

using Slots = WeightsOf<Slot>;
using Layer = LayerOf<Slot>;
using Linear = LinearOf<Slot>;
using Mlp = MlpOf<Slot>;

/// Room for the config's parameters, as many prediction blocks as `like` has, and which of them own
/// their embedding and head.
template <class Leaf, class Like>
WeightsOf<Leaf> room_for(const Config& config, const Like& like) {
  WeightsOf<Leaf> w = empty_weights<Leaf>(config);
  w.mtp.resize(like.mtp.size());
  for (std::size_t i = 0; i < w.mtp.size(); ++i) {
    w.mtp[i].owns_embedding = like.mtp[i].owns_embedding;
    w.mtp[i].owns_head = like.mtp[i].owns_head;
  }
  return w;
}

/// Numbers of a checkpoint in fp32; and zeros of the same shapes.
Parameters read_parameters(const Model& checkpoint);
Parameters zeros_like(const Parameters&, const Config&);

/// Slots over parameters and gradients, which must stay where they are. The head of tied embeddings
/// and the shared tables of prediction blocks are the same slots under a second name.
Slots slots_over(const Config&, Parameters& values, Parameters& gradients, Dtype);

/// Lays out the factors anew; `turned`: those that the backward pass reads.
void pack_slots(cpu::Cpu, const Config&, Slots&, bool turned);

/// Marks what is trained.
void want(const Config&, Slots&, const std::function<bool(const std::string&)>& trained);

}  // namespace dsa::train
