// optimized/train/pipeline/lora.hpp — adapters of low rank on chosen matrices (arXiv 2106.09685).
//
//   forward: W' = W + (alpha / r) B A                 A (r, in), B (out, r)
//   so:      dA = (alpha / r) B^T dW'                 dB = (alpha / r) dW' A^T
//
// The model runs with W' in the place of W; W itself never changes. B is 0 in the beginning: so is
// the adapter's effect.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "optimized/train/model.hpp"
#include "optimized/train/pipeline/names.hpp"

namespace dsa::train {

struct Adapter {
  std::string name;  // of the matrix: "model.layers.0.self_attn.o_proj.weight"
  Leaf a, b;         // (r, in), (out, r)
  Leaf d_a, d_b;
  Leaf base;                       // W
  Leaf* matrix = nullptr;          // W' in the model
  const Leaf* gradient = nullptr;  // dW'
};

class Adapters {
 public:
  /// On every matrix that a target matches and that a loss of the stage reaches. Errors: a target
  /// that matches no matrix, or only such as no loss reaches (one is named).
  Adapters(const Stage&, TrainedModel&, std::uint64_t seed);

  /// W' from A and B, into the model; the caller refreshes it.
  void apply();

  /// dA and dB, from dW'.
  void project();

  /// W back into the model, bit for bit.
  void restore();

  bool on(const std::string& parameter) const;
  std::vector<Trained> trained();  // NAME.lora_A, NAME.lora_B
  std::vector<Adapter>& all() { return adapters_; }
  const std::vector<Adapter>& all() const { return adapters_; }
  const Lora& lora() const { return lora_; }

 private:
  Lora lora_;
  std::vector<Adapter> adapters_;
};

}  // namespace dsa::train
