#include "optimized/cpu/kernels/index_gradient.hpp"

#include "optimized/cpu/kernels/seen.hpp"

namespace dsa::cpu::DSA_TIER {

void differentiate_index_block(const IndexGradientBlock& p) {
  for (Index i = 0; i < p.m; ++i) {
    const Seen seen(p.begin[i], p.end[i]);
    float* const a = p.a + i * p.row;
    const float* const d_scores = p.d_scores + i * p.d_row;
    const float w = p.w[i * p.step];
    Vector d_w{};
    for (Index j = 0; j < p.n; j += width) {
      const Vector dot = vector_at(a + j);
      const Vector d = seen(j) ? vector_at(d_scores + j) : Vector{};
      const Vector active = p.relu ? (dot > 0.0f ? d : Vector{}) : d;
      d_w = fused(active, dot, d_w);
      put(a + j, active * w);
    }
    p.d_w[i * p.step] += sum_of(d_w);
  }
}

void weigh_chosen(float* scores, const float* a, const float* w, Index n, Index M, bool relu) {
  for (Index j = 0; j < n; ++j) {
    Vector sum{};
    for (Index h = 0; h < M; h += width) {
      const Vector dot = vector_at(a + j * M + h);
      sum = fused(vector_at(w + h), relu ? rectified(dot) : dot, sum);
    }
    scores[j] = sum_of(sum);
  }
}

void differentiate_chosen(float* a, float* d_w, const float* d_scores, const float* w, Index n,
                          Index M, bool relu) {
  for (Index h = 0; h < M; h += width) {
    const Vector weight = vector_at(w + h);
    Vector sum{};
    for (Index j = 0; j < n; ++j) {
      const Vector dot = vector_at(a + j * M + h), d = fill(d_scores[j]);
      const Vector active = relu ? (dot > 0.0f ? d : Vector{}) : d;
      sum = fused(active, dot, sum);
      put(a + j * M + h, active * weight);
    }
    put(d_w + h, sum);
  }
}

void gather_rows(float* to, const float* from, const std::int32_t* ids, Index n, Index row,
                 Index columns) {
  for (Index j = 0; j < n; ++j)
    for (Index c = 0; c < columns; c += width)
      put(to + j * row + c, vector_at(from + ids[j] * row + c));
}

void scatter_rows(float* to, const float* from, const std::int32_t* ids, Index n, Index row,
                  Index columns) {
  for (Index j = 0; j < n; ++j) {
    float* const at = to + ids[j] * row;
    const float* const x = from + j * row;
    for (Index c = 0; c < columns; c += width) put(at + c, vector_at(at + c) + vector_at(x + c));
  }
}

}  // namespace dsa::cpu::DSA_TIER
