// optimized/cuda/router.cu — v1: one block a token; an expert is chosen if fewer than
// num_experts_per_tok others come before it.
#include "optimized/cuda/launch.cuh"
#include "optimized/cuda/numbers.cuh"
#include "optimized/cuda/router.cuh"

namespace dsa::cuda::DSA_PLACE {
namespace {

constexpr int threads = 128;

/// What the kernel needs of a Config.
struct Rules {
  Router::Scoring scoring;
  Router::Groups groups;
  Index n_group, topk_group;
  float dropped;
  bool normalise;
  float factor;
};

struct Token {
  Shared<float> score, choice, group, scratch;  // (E), (E), (G), (warps)
  Shared<std::int32_t> taken;                   // (E), and then kept groups (G)
  Index E;

  __device__ Token(SharedMemory& memory, Index E_, Index G)
      : score(memory.take<float>(E_)),
        choice(memory.take<float>(E_)),
        group(memory.take<float>(G)),
        scratch(memory.take<float>(threads / warp_size)),
        taken(memory.take<std::int32_t>(E_ + G)),
        E(E_) {}
  static Index shared_bytes(Index E, Index G) {
    return 2 * shared_room<float>(E) + shared_room<float>(G) +
           shared_room<float>(threads / warp_size) + shared_room<std::int32_t>(E + G);
  }

  __device__ void score_logits(DeviceView<const float, 1> z, Router::Scoring scoring) const {
    float largest = -INFINITY, sum = 0;
    if (scoring == Router::Scoring::softmax) {
      for (Index e = threadIdx.x; e < E; e += threads) largest = Maximum{}(largest, z(e));
      largest = across_block(largest, Maximum{}, scratch);
      for (Index e = threadIdx.x; e < E; e += threads) sum += expf(z(e) - largest);
      sum = across_block(sum, Sum{}, scratch);
    }
    for (Index e = threadIdx.x; e < E; e += threads)
      score[e] =
          scoring == Router::Scoring::softmax ? expf(z(e) - largest) / sum : 1 / (1 + expf(-z(e)));
  }

  /// How many of x[0 ... n-1] come before x[i]: larger, or equal and of a lower subscript.
  __device__ static Index before(Shared<float> x, Index n, Index i) {
    const float mine = x[i];
    Index count = 0;
    for (Index j = 0; j < n; ++j) {
      const float other = x[j];
      count += other > mine || (other == mine && j < i);
    }
    return count;
  }

  /// Puts the choices of all but the best groups to `dropped`.
  __device__ void drop_groups(const Rules& rules) const {
    const Index G = rules.n_group, size = E / G;
    for (Index g = threadIdx.x; g < G; g += threads) {
      float best = -INFINITY, second = -INFINITY;
      for (Index e = g * size; e < (g + 1) * size; ++e) {
        const float c = choice[e];
        second = fmaxf(second, fminf(best, c));
        best = fmaxf(best, c);
      }
      group[g] = rules.groups == Router::Groups::maximum ? best : best + second;
    }
    __syncthreads();
    for (Index g = threadIdx.x; g < G; g += threads)
      taken[E + g] = before(group, G, g) < rules.topk_group;
    __syncthreads();
    for (Index e = threadIdx.x; e < E; e += threads)
      if (taken[E + e / size] == 0) choice[e] = rules.dropped;
    __syncthreads();
  }
};

/// The chosen ones in order, by one thread; places without an expert: -1 and 0.
__device__ void write_chosen(DeviceView<std::int32_t, 1> experts, DeviceView<float, 1> weights,
                             const Token& token, const Rules& rules) {
  const Index k = experts.shape[0];
  Index n = 0;
  float sum = 0;
  for (Index e = 0; e < token.E; ++e)
    if (token.taken[e] != 0) {
      experts(n) = std::int32_t(e);
      sum += weights(n++) = token.score[e];
    }
  const float divisor = rules.normalise ? sum + 1e-20f : 1;
  for (Index i = 0; i < n; ++i) weights(i) = weights(i) / divisor * rules.factor;
  for (Index i = n; i < k; ++i) experts(i) = -1, weights(i) = 0;
}

__global__ void router_kernel(DeviceView<std::int32_t, 2> experts, DeviceView<float, 2> weights,
                              DeviceView<const float, 2> logits, DeviceView<const float, 1> bias,
                              Rules rules) {
  const Index t = blockIdx.x, E = logits.shape[1], k = experts.shape[1];
  SharedMemory memory;
  const Token token(memory, E, rules.n_group);
  token.score_logits(logits[t], rules.scoring);
  __syncthreads();
  float nan = 0;
  for (Index e = threadIdx.x; e < E; e += threads) {
    const float choice = token.score[e] + (bias.shape[0] > 0 ? bias(e) : 0);
    token.choice[e] = choice;
    if (choice != choice) nan = 1;
  }
  if (across_block(nan, Maximum{}, token.scratch) > 0) {
    for (Index i = threadIdx.x; i < k; i += threads) experts(t, i) = -1, weights(t, i) = NAN;
    return;
  }
  if (rules.groups != Router::Groups::none) token.drop_groups(rules);
  for (Index e = threadIdx.x; e < E; e += threads)
    token.taken[e] = token.choice[e] > -INFINITY && Token::before(token.choice, E, e) < k;
  __syncthreads();
  if (threadIdx.x == 0) write_chosen(experts[t], weights[t], token, rules);
}

}  // namespace

void router(Stream stream, DeviceView<std::int32_t, 2> experts, DeviceView<float, 2> weights,
            DeviceView<const float, 2> logits, DeviceView<const float, 1> bias,
            const Config& config) {
  const Index T = logits.shape[0], E = logits.shape[1], k = config.num_experts_per_tok;
  const Router& router = config.router;
  expect_shape("experts", experts, {T, k});
  expect_shape("weights", weights, {T, k});
  if (bias.shape[0] > 0) expect_shape("bias", bias, {E});
  const Rules rules{router.scoring,
                    router.groups,
                    router.groups == Router::Groups::none ? 1 : config.n_group,
                    config.topk_group,
                    static_cast<float>(router.dropped_group_score),
                    router.norm_topk_prob,
                    static_cast<float>(config.routed_scaling_factor)};
  launch(stream, "router v1", {grid_of(T), threads, Token::shared_bytes(E, rules.n_group)},
         router_kernel, experts, weights, logits, bias, rules);
}

}  // namespace dsa::cuda::DSA_PLACE
