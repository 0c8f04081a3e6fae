// v1: one block a token; an expert is chosen if fewer than num_experts_per_tok others come before
// it. v2: one warp a token, whose experts lie in its registers; the best one is taken k times.
#include "optimized/cuda/device/launch.cuh"
#include "optimized/cuda/device/numbers.cuh"
#include "optimized/cuda/ops/router.cuh"

namespace dsa::cuda::DSA_PLACE {
namespace {

constexpr int threads = 128;

/// The fields of a Config that the kernels read.
struct Rules {
  Router::Scoring scoring;
  Router::Groups groups;
  Index n_group, topk_group;
  float dropped;
  bool normalise;
  float factor;
};

/// 1 where there are no groups.
Index groups_of(const Config& config) {
  return config.router.groups == Router::Groups::none ? 1 : config.n_group;
}

Rules rules_of(const Config& config) {
  const Router& router = config.router;
  return {.scoring = router.scoring,
          .groups = router.groups,
          .n_group = groups_of(config),
          .topk_group = config.topk_group,
          .dropped = static_cast<float>(router.dropped_group_score),
          .normalise = router.norm_topk_prob,
          .factor = static_cast<float>(config.routed_scaling_factor)};
}

void expect_shapes(RouterOut y, DeviceView<const float, 2> logits, DeviceView<const float, 1> bias,
                   const Config& config) {
  const Index T = logits.shape[0], k = config.num_experts_per_tok;
  expect_shape("experts", y.experts, {T, k});
  expect_shape("weights", y.weights, {T, k});
  if (bias.shape[0] > 0) expect_shape("bias", bias, {logits.shape[1]});
}

/// The score of a logit z. A softmax takes the largest logit, and the sum of all exp(z - largest).
__device__ float score_of(float z, Router::Scoring scoring, float largest, float sum) {
  return scoring == Router::Scoring::softmax ? expf(z - largest) / sum : 1 / (1 + expf(-z));
}

/// The two largest of the choices of a group, in whatever order they come.
struct BestTwo {
  float best = -INFINITY, second = -INFINITY;

  __device__ void add(float choice) {
    second = fmaxf(second, fminf(best, choice));
    best = fmaxf(best, choice);
  }
  __device__ float score(Router::Groups groups) const {
    return groups == Router::Groups::maximum ? best : best + second;
  }
};

}  // namespace

namespace v1 {

/// An expert is chosen if fewer than num_experts_per_tok others come before it.
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
      score[e] = score_of(z(e), scoring, largest, sum);
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
      BestTwo two;
      for (Index e = g * size; e < (g + 1) * size; ++e) two.add(choice[e]);
      group[g] = two.score(rules.groups);
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

/// The chosen experts in order, by one thread. A place without an expert has -1 and weight 0.
__device__ void write_chosen(DeviceView<std::int32_t, 1> experts, DeviceView<float, 1> weights,
                             const Token& token, const Rules& rules) {
  const Index k = experts.shape[0];
  Index n = 0;
  float sum = 0;
  for (Index e = 0; e < token.E; ++e)
    if (token.taken[e] != 0) {
      experts(n) = std::int32_t(e);
      weights(n) = token.score[e];
      sum += token.score[e];
      ++n;
    }
  const float divisor = rules.normalise ? sum + 1e-20f : 1;
  for (Index i = 0; i < n; ++i) weights(i) = weights(i) / divisor * rules.factor;
  for (Index i = n; i < k; ++i) {
    experts(i) = -1;
    weights(i) = 0;
  }
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
    for (Index i = threadIdx.x; i < k; i += threads) {
      experts(t, i) = -1;
      weights(t, i) = NAN;
    }
    return;
  }
  if (rules.groups != Router::Groups::none) token.drop_groups(rules);
  for (Index e = threadIdx.x; e < E; e += threads)
    token.taken[e] = token.choice[e] > -INFINITY && Token::before(token.choice, E, e) < k;
  __syncthreads();
  if (threadIdx.x == 0) write_chosen(experts[t], weights[t], token, rules);
}

void router(Stream stream, RouterOut y, DeviceView<const float, 2> logits,
            DeviceView<const float, 1> bias, const Config& config) {
  expect_shapes(y, logits, bias, config);
  const Index T = logits.shape[0], E = logits.shape[1];
  launch(stream, "router v1", {grid_of(T), threads, Token::shared_bytes(E, groups_of(config))},
         router_kernel, y.experts, y.weights, logits, bias, rules_of(config));
}

}  // namespace v1

namespace v2 {

constexpr int experts_per_lane = 16, tokens_per_block = threads / warp_size;
constexpr Index most_experts = experts_per_lane * warp_size;

/// A token's experts over the lanes of a warp: lane l has experts l, l + 32, ...
struct Token {
  float score[experts_per_lane], choice[experts_per_lane];
  int E;
  unsigned taken = 0;  // bit i: the i-th of this lane's experts is chosen

  /// f(i, e) for every expert of this lane.
  template <class F>
  __device__ void each(F f) const {
#pragma unroll
    for (int i = 0; i < experts_per_lane; ++i)
      if (const int e = warp_size * i + int(threadIdx.x) % warp_size; e < E) f(i, e);
  }
  __device__ Token(DeviceView<const float, 1> z, DeviceView<const float, 1> bias,
                   Router::Scoring scoring)
      : E(int(z.shape[0])) {
    float largest = -INFINITY, sum = 0;
    if (scoring == Router::Scoring::softmax) {
      each([&](int, int e) { largest = Maximum{}(largest, z(e)); });
      largest = across_warp(largest, Maximum{});
      each([&](int, int e) { sum += expf(z(e) - largest); });
      sum = across_warp(sum, Sum{});
    }
    each([&](int i, int e) {
      score[i] = score_of(z(e), scoring, largest, sum);
      choice[i] = score[i] + (bias.shape[0] > 0 ? bias(e) : 0);
    });
  }
  __device__ bool has_nan() const {
    bool nan = false;
    each([&](int i, int) { nan = nan || choice[i] != choice[i]; });
    return __any_sync(all_lanes, nan);
  }

  /// Puts the choices of all but the best groups to `dropped`. Lane g scores group g, whose choices
  /// it finds in `all`, behind `first`; the lanes begin at different ones, because groups of 32 lie
  /// in the same banks.
  __device__ void drop_groups(const Rules& rules, Shared<float> all, int first) {
    const int G = int(rules.n_group), size = E / G, g = threadIdx.x % warp_size;
    each([&](int i, int e) { all[first + e] = choice[i]; });
    __syncwarp();
    BestTwo two;
    if (g < G)
      for (int i = 0; i < size; ++i) two.add(all[first + g * size + (i + g) % size]);
    const float mine = two.score(rules.groups);
    int before = 0;
    for (int other = 0; other < G; ++other) {
      const float theirs = __shfl_sync(all_lanes, mine, other);
      before += theirs > mine || (theirs == mine && other < g);
    }
    const unsigned kept = __ballot_sync(all_lanes, g < G && before < rules.topk_group);
    each([&](int i, int e) {
      if ((kept >> (e / size) & 1) == 0) choice[i] = rules.dropped;
    });
  }

  /// Takes the best of all that is not taken and above -infinity; of equals, the first.
  __device__ void take_best() {
    float best = -INFINITY;
    int at = E;
    each([&](int i, int e) {
      if ((taken >> i & 1) == 0 && choice[i] > best) {
        best = choice[i];
        at = e;
      }
    });
    for (int bit = warp_size / 2; bit > 0; bit /= 2) {
      const float other = __shfl_xor_sync(all_lanes, best, bit);
      const int other_at = __shfl_xor_sync(all_lanes, at, bit);
      if (other > best || (other == best && other_at < at)) {
        best = other;
        at = other_at;
      }
    }
    if (at < E && at % warp_size == int(threadIdx.x) % warp_size) taken |= 1u << at / warp_size;
  }

  /// The chosen experts in order. A place without an expert has -1 and weight 0.
  __device__ void write_chosen(DeviceView<std::int32_t, 1> experts, DeviceView<float, 1> weights,
                               const Rules& rules) const {
    const int lane = threadIdx.x % warp_size;
    float sum = 0;
    each([&](int i, int) { sum += taken >> i & 1 ? score[i] : 0; });
    const float divisor = rules.normalise ? across_warp(sum, Sum{}) + 1e-20f : 1;
    Index n = 0;
#pragma unroll
    for (int i = 0; i < experts_per_lane; ++i) {
      const bool mine = taken >> i & 1;
      const unsigned votes = __ballot_sync(all_lanes, mine);
      if (mine) {
        const Index place = n + population(votes & ((1u << lane) - 1));
        experts(place) = std::int32_t(warp_size * i + lane);
        weights(place) = score[i] / divisor * rules.factor;
      }
      n += population(votes);
    }
    for (Index place = n + lane; place < experts.shape[0]; place += warp_size) {
      experts(place) = -1;
      weights(place) = 0;
    }
  }
};

__global__ void __launch_bounds__(threads)
    router_kernel(DeviceView<std::int32_t, 2> experts, DeviceView<float, 2> weights,
                  DeviceView<const float, 2> logits, DeviceView<const float, 1> bias, Rules rules) {
  const int warp = threadIdx.x / warp_size, lane = threadIdx.x % warp_size;
  const Index t = blockIdx.x * Index(tokens_per_block) + warp, k = experts.shape[1];
  SharedMemory memory;
  const Shared<float> choices = memory.take<float>(tokens_per_block * logits.shape[1]);
  if (t >= logits.shape[0]) return;
  Token token(logits[t], bias, rules.scoring);
  if (token.has_nan()) {
    for (Index i = lane; i < k; i += warp_size) {
      experts(t, i) = -1;
      weights(t, i) = NAN;
    }
    return;
  }
  if (rules.groups != Router::Groups::none) token.drop_groups(rules, choices, warp * token.E);
  for (Index i = 0; i < k; ++i) token.take_best();
  token.write_chosen(experts[t], weights[t], rules);
}

std::string router_refuses(Index E, Index n_group) {
  if (E <= most_experts && n_group <= warp_size) return "";
  return "router v2 takes up to " + std::to_string(most_experts) + " experts in up to " +
         std::to_string(warp_size) + " groups, got " + std::to_string(E) + " in " +
         std::to_string(n_group);
}

void router(Stream stream, RouterOut y, DeviceView<const float, 2> logits,
            DeviceView<const float, 1> bias, const Config& config) {
  expect_shapes(y, logits, bias, config);
  const Index T = logits.shape[0], E = logits.shape[1];
  const std::string refusal = router_refuses(E, groups_of(config));
  require(refusal.empty(), refusal);
  launch(stream, "router v2",
         {grid_of(ceil_divide(T, tokens_per_block)), threads,
          shared_room<float>(tokens_per_block * E)},
         router_kernel, y.experts, y.weights, logits, bias, rules_of(config));
}

}  // namespace v2

void router(Stream stream, RouterOut y, DeviceView<const float, 2> logits,
            DeviceView<const float, 1> bias, const Config& config) {
  if (v2::router_refuses(logits.shape[1], groups_of(config)).empty())
    return v2::router(stream, y, logits, bias, config);
  v1::router(stream, y, logits, bias, config);
}

}  // namespace dsa::cuda::DSA_PLACE
