#include "optimized/cpu/kernels/block_softmax.hpp"

#include "optimized/cpu/kernels/seen.hpp"

namespace dsa::cpu::DSA_TIER {
namespace {

constexpr float infinity = __builtin_inff();

/// Row i of a running softmax.
void softmax_row(const ScoreBlock& block, const RunningSoftmax& sums, Index i) {
  float* const x = block.x + i * block.row;
  const Seen seen(block.begin[i], block.end[i]);
  const Index n = block.n;
  Vector top = fill(-infinity);
  for (Index j = 0; j < n; j += width) {
    const Vector z = seen(j) ? vector_at(x + j) * block.scale : fill(-infinity);
    put(x + j, z);
    top = larger(z, top);
  }
  const float before = sums.m[i], here = largest_of(top), m = here > before ? here : before;
  const float shift = m == -infinity ? 0 : m;
  Vector sum{};
  for (Index j = 0; j < n; j += width) {
    const Vector p = exponential(vector_at(x + j) - shift);
    put(x + j, p);
    sum += p;
  }
  const float fade = exponential(fill(before - shift))[0];
  sums.l[i] = sums.l[i] * fade + sum_of(sum);
  sums.m[i] = m;
  if (m == before) return;
  float* const out = sums.out + i * sums.row;
  for (Index u = 0; u < sums.U; u += width) put(out + u, vector_at(out + u) * fade);
}

}  // namespace

void softmax_block(const ScoreBlock& block, const RunningSoftmax& sums) {
  for (Index i = 0; i < block.m; ++i) softmax_row(block, sums, i);
}

void softmax_gradient_block(const ScoreBlock& block, float* d_p, const float* lse,
                            const float* delta) {
  for (Index i = 0; i < block.m; ++i) {
    const Seen seen(block.begin[i], block.end[i]);
    float* const x = block.x + i * block.row;
    float* const d = d_p + i * block.row;
    for (Index j = 0; j < block.n; j += width) {
      const Vector z = vector_at(x + j) * block.scale - lse[i];
      const Vector p = seen(j) ? exponential(z) : Vector{};
      const Vector slope = (vector_at(d + j) - delta[i]) * block.scale;
      put(x + j, p);
      put(d + j, p * slope);
    }
  }
}

void add_mass_block(float* u, Index u_row, const ScoreBlock& block, const float* lse,
                    Index lse_step) {
  for (Index i = 0; i < block.m; ++i) {
    const Seen seen(block.begin[i], block.end[i]);
    const float* const x = block.x + i * block.row;
    float* const to = u + i * u_row;
    for (Index j = 0; j < block.n; j += width) {
      const Vector p = exponential(vector_at(x + j) * block.scale - lse[i * lse_step]);
      put(to + j, vector_at(to + j) + (seen(j) ? p : Vector{}));
    }
  }
}

}  // namespace dsa::cpu::DSA_TIER
