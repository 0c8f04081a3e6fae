#include "optimized/train/model/slots.hpp"

#include <vector>

#include "optimized/cpu/ops/pack.hpp"

namespace dsa::train {
namespace {

Shape<2> shape_of(const std::vector<Index>& extents) {
  return {extents[0], extents.size() > 1 ? extents[1] : 1};
}

/// Matrices are multiplied with, but a table of embeddings, whose rows are only copied.
bool is_factor(const std::string& name, const std::vector<Index>& shape) {
  return shape.size() > 1 && !name.ends_with("embed_tokens.weight");
}

/// The router and the indexer's head weights decide, and are small: they stay in fp32, as the
/// official code and HuggingFace have it.
Dtype factor_dtype(const std::string& name, Dtype dtype) {
  const bool decides =
      name.ends_with("mlp.gate.weight") || name.ends_with("indexer.weights_proj.weight");
  return decides ? Dtype::f32 : dtype;
}

void make_factor(Slot& slot, Dtype dtype) {
  const Index out = slot.value.shape[0], in = slot.value.shape[1];
  slot.is_factor = true;
  slot.by_output = cpu::Matrix(out, in, dtype);
  slot.by_input = cpu::Matrix(in, out, dtype);
}

/// Calls f for every slot that products read.
template <class F>
void for_each_factor(const Config& config, Slots& slots, F f) {
  for_each_tensor(slots, config, [&](const std::string&, Slot& slot, const auto&) {
    if (slot.is_factor) f(slot);
  });
  if (config.tie_word_embeddings) f(slots.lm_head.weight);
}

}  // namespace

Parameters read_parameters(const Model& checkpoint) {
  Parameters parameters = room_for<Leaf>(checkpoint.config, checkpoint.weights);
  std::vector<Leaf*> leaves;
  for_each_tensor(parameters, checkpoint.config,
                  [&](const std::string&, Leaf& leaf, const auto&) { leaves.push_back(&leaf); });
  auto next = leaves.begin();
  for_each_tensor(checkpoint.weights, checkpoint.config,
                  [&](const std::string&, const Parameter& p, const std::vector<Index>& shape) {
                    Leaf& leaf = **next++;
                    leaf = Leaf(shape_of(shape));
                    read_rows(p, 0, p.rows(), leaf.data());
                  });
  return parameters;
}

Parameters zeros_like(const Parameters& parameters, const Config& config) {
  Parameters zeros = room_for<Leaf>(config, parameters);
  for_each_tensor(zeros, config,
                  [](const std::string&, Leaf& leaf, const std::vector<Index>& shape) {
                    leaf = Leaf(shape_of(shape));
                  });
  return zeros;
}

Slots slots_over(const Config& config, Parameters& values, Parameters& gradients, Dtype dtype) {
  Slots slots = room_for<Slot>(config, values);
  std::vector<Slot*> all;
  for_each_tensor(slots, config,
                  [&](const std::string&, Slot& slot, const auto&) { all.push_back(&slot); });
  auto next = all.begin();
  for_each_tensor(values, config, [&](const std::string&, const Leaf& leaf, const auto&) {
    (*next++)->value = leaf.view();
  });
  next = all.begin();
  for_each_tensor(gradients, config, [&](const std::string&, Leaf& leaf, const auto&) {
    (*next++)->gradient = leaf.view();
  });
  next = all.begin();
  for_each_tensor(values, config,
                  [&](const std::string& name, const Leaf&, const std::vector<Index>& shape) {
                    if (is_factor(name, shape)) make_factor(**next, factor_dtype(name, dtype));
                    ++next;
                  });
  if (config.tie_word_embeddings) {
    slots.lm_head.weight = slots.embed_tokens;
    make_factor(slots.lm_head.weight, dtype);
  }
  for (auto& mtp : slots.mtp) {
    if (!mtp.owns_embedding) mtp.embed_tokens = slots.embed_tokens;
    if (!mtp.owns_head) mtp.shared_head = slots.lm_head;
  }
  return slots;
}

void pack_slots(cpu::Cpu cpu, const Config& config, Slots& slots, bool turned) {
  std::vector<cpu::Packing> packings;
  for_each_factor(config, slots, [&](Slot& slot) {
    const Index in = slot.value.shape[1];
    if (turned)
      packings.push_back({&slot.by_input, slot.value.data, 1, in});
    else
      packings.push_back({&slot.by_output, slot.value.data, in, 1});
  });
  cpu::pack(cpu, packings);
}

void want(const Config& config, Slots& slots,
          const std::function<bool(const std::string&)>& trained) {
  for_each_tensor(slots, config, [&](const std::string& name, Slot& slot, const auto&) {
    slot.wanted = trained && !name.ends_with("e_score_correction_bias") && trained(name);
  });
  if (config.tie_word_embeddings) slots.lm_head.weight.wanted = slots.embed_tokens.wanted;
  for (auto& mtp : slots.mtp) {
    if (!mtp.owns_embedding) mtp.embed_tokens.wanted = slots.embed_tokens.wanted;
    if (!mtp.owns_head) mtp.shared_head.weight.wanted = slots.lm_head.weight.wanted;
  }
}

}  // namespace dsa::train
