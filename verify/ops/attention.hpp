// verify/ops/attention.hpp — problems that sparse_attention and dense_attention share.
#pragma once

#include "verify/ops/pose.hpp"

namespace dsa::verify {

/// Queries and latent rows of one problem, as stored and as numbers.
struct Latents {
  Tensor<double, 3> q;     // (T, N, R+P)
  Tensor<double, 2> kv;    // (S, R+P): what the stored rows stand for, exactly
  double dequantised = 0;  // relative rounding of a row that is read: of an e4m3 row whose scales
                           // are no powers of two, that of bf16
};

/// How the numbers are made: scores of size `size`, all of them 0 where the inputs are dyadic.
struct LatentPlan {
  std::string dtype;
  Index T, S, N, R, P;
  double size = 1;
  bool powers_of_two = true;  // the scales of e4m3 rows
};

/// Draws in["q"] and in["kv"] of a case.
Latents draw_latents(Case&, Draw&, const LatentPlan&);

/// Rows of which every byte is 0xff, NaN in every format, where `seen` is false.
void make_unseen_nan(Array& kv, const std::vector<bool>& seen);

/// out["out"] (T, N, R) and out["lse"] (T, N), their answers and bounds; keys[t]: what query t
/// attends to. Scalars scale and R are read. Also flops.
void set_attention(Case&, const Latents&, const std::vector<std::vector<Index>>& keys);

}  // namespace dsa::verify
