// verify/kernels/cases/mla.hpp — problems that mla_sparse and mla_dense share.
#pragma once

#include "verify/kernels/cases/pose.hpp"

namespace dsa::verify::kernels {

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

/// q sees only pairs of equal rope channels of a key, with opposite signs, and nothing before them:
/// every score is 0, in whatever order it is summed. The rope channels of q and of kv begin there.
void cancel(Latents&, Index q_rope, Index kv_rope);

/// Writes in["kv"] from x.kv (S, R+P). Then x.kv holds the exact numbers of the stored rows.
void store_rows(Case&, Draw&, const LatentPlan&, Latents& x);

/// q and kv as a case holds them. Error: rows that are not what R asks for.
Latents latents_in(const Case&, Index R);

/// Draws in["q"] and in["kv"] of a case; sets its scalars scale and R.
void draw_latents(Case&, Draw&, const LatentPlan&);

/// The keys of each query that attends to every visible key: in["begin"], in["end"].
std::vector<std::vector<Index>> visible_keys(const Case&);

/// For each of S keys, whether some query attends to it.
std::vector<bool> seen_keys(const std::vector<std::vector<Index>>& keys, Index S);

/// Rows of which every byte is 0xff, NaN in every format, where `seen` is false.
void make_unseen_nan(Array& kv, const std::vector<bool>& seen);

/// The weights of one query, of scores that a kernel may get wrong by up to `error`.
struct Weights {
  std::vector<double> p, e;  // softmax, and the relative error of each exp
  double lse = 0, lse_error = 0;
  double e_max = 0;
  bool p_is_one = false;  // every exp is of an exact 0
};
Weights weights_of(const std::vector<double>& score, const std::vector<double>& error);

/// The terms of one key in a sum: numbers, magnitudes, and their errors so far.
struct Value {
  const double *v, *size, *error;
};

/// out[:] = sum_i p[i] v[i][:] and its allowed error; `rounds_p`: p is rounded to bf16.
void sum_values(View<double, 1> out, View<double, 1> allowed, const Weights&,
                const std::vector<Value>&, bool rounds_p);

/// out["out"] (T, N, R) and out["lse"] (T, N), their answers and bounds; keys[t]: what query t
/// attends to. Scalars scale and R are read. Also flops.
void set_attention(Case&, const Latents&, const std::vector<std::vector<Index>>& keys);

}  // namespace dsa::verify::kernels
