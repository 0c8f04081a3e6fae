#include "experiments/bench/cuda/problems.hpp"

#include <algorithm>
#include <cmath>

namespace dsa::bench {
namespace {

double count(Index n) { return static_cast<double>(n); }

/// The letters of V3.2 and of the timed passes; tokens of a prefill, and sequences of a decoding.
struct Scale {
  Index T, N, R, P, K, H, D;
  std::vector<Index> contexts;      // of a prefill, the last one for the indexer's selection alone
  Index B, drafted, cached, paged;  // sequences, tokens of each, keys for attention, for scores
  Index few;                        // queries that v1 can take
  std::vector<std::pair<Index, Index>> linears;  // C, F
};

const Scale full = {.T = 4096,
                    .N = 128,
                    .R = 512,
                    .P = 64,
                    .K = 2048,
                    .H = 64,
                    .D = 128,
                    .contexts = {8192, 32768, 65536, 131072},
                    .B = 128,
                    .drafted = 2,
                    .cached = 32768,
                    .paged = 131072,
                    .few = 64,
                    .linears = {{7168, 1536}, {1536, 24576}, {16384, 7168}}};
const Scale tiny = {.T = 3,
                    .N = 4,
                    .R = 128,
                    .P = 32,
                    .K = 8,
                    .H = 2,
                    .D = 32,
                    .contexts = {16, 24, 32, 40},
                    .B = 2,
                    .drafted = 2,
                    .cached = 16,
                    .paged = 64,
                    .few = 2,
                    .linears = {{32, 24}}};

/// The kernel of an op, and the name of the problem.
struct Version {
  std::string dtype, rung, label;
};

double element(const std::string& dtype) { return dtype == "fp8" ? 1 : 2; }

/// Bytes of a cache's row (optimized/shared/rows.hpp).
double latent_bytes(const std::string& dtype, Index R, Index P) {
  return dtype == "fp8" ? count(R + 4 * ((R + 127) / 128) + 2 * P) : 2 * count(R + P);
}
double key_bytes(const std::string& dtype, Index D) {
  return dtype == "fp8" ? count(D + 4) : 2 * count(D);
}

/// Keys that some query of a sequence chose, where each chooses K of S at random.
double distinct_keys(Index queries, Index K, Index S) {
  return count(S) * (1 - std::pow(1 - count(K) / count(S), count(queries)));
}

DeviceProblem mla(const Scale& x, const Version& v, Index B, Index T, Index S, Index N) {
  DeviceProblem p{"mla_sparse",
                  v.dtype,
                  v.rung,
                  v.label,
                  {{'B', B}, {'T', T}, {'S', S}, {'N', N}, {'R', x.R}, {'P', x.P}, {'K', x.K}}};
  const double row = latent_bytes(v.dtype, x.R, x.P), pairs = count(T * x.K);
  const double q = 2 * count(T * N * (x.R + x.P)), chosen = 4 * pairs;
  p.output_bytes = 4 * count(T * N * (x.R + 1));
  p.input_bytes = q + chosen + count(B * S) * row;
  p.flops = 2 * pairs * count(N * (x.R + x.P + x.R));
  p.bytes = q + chosen + p.output_bytes + count(B) * distinct_keys(T / B, x.K, S) * row;
  return p;
}

/// Query and key pairs: the last T queries of a context of S; or S for each query where there are
/// several sequences.
double pairs_of(Index B, Index T, Index S) {
  return B > 1 ? count(T * S) : count(T) * count(S - T) + count(T) * count(T + 1) / 2;
}

DeviceProblem indexer(const Scale& x, const char* op, const Version& v, Index B, Index T, Index S) {
  DeviceProblem p{op,
                  v.dtype,
                  v.rung,
                  v.label,
                  {{'B', B}, {'T', T}, {'S', S}, {'H', x.H}, {'D', x.D}, {'K', x.K}}};
  p.input_bytes = count(T * x.H * x.D) * element(v.dtype) + 4 * count(T * x.H) +
                  count(B * S) * key_bytes(v.dtype, x.D);
  const bool selects = p.op == "indexer_topk";
  p.output_bytes = 4 * count(T * (selects ? x.K : S));
  p.flops = 2 * pairs_of(B, T, S) * count(x.H * x.D);
  p.bytes = p.input_bytes + p.output_bytes;
  const Index parts = std::max<Index>(T, 2 * 148);  // two a multiprocessor, where queries are few
  const double candidates = 8 * count(parts * (2 * x.K + 64));  // in v2
  const double panel = 4 * count(std::min<Index>(T, 264) * S);  // in v3
  if (selects)
    p.output_bytes += v.rung == "two passes" ? 4 * count(T * S) : std::max(candidates, panel);
  return p;
}

DeviceProblem topk(const Scale& x, const std::string& rung, Index T, Index S) {
  DeviceProblem p{
      "topk_select", "fp32", rung, "prefill", {{'B', 1}, {'T', T}, {'S', S}, {'K', x.K}}};
  p.input_bytes = 4 * count(T * S);
  p.output_bytes = 4 * count(T * x.K);
  p.bytes = p.input_bytes + p.output_bytes;
  return p;
}

DeviceProblem linear(const std::string& dtype, const std::string& rung, Index T, Index C, Index F) {
  DeviceProblem p{"linear", dtype, rung, "projection", {{'T', T}, {'C', C}, {'F', F}}};
  p.input_bytes = count(T * C + F * C) * element(dtype);
  p.output_bytes = 4 * count(T * F);
  p.flops = 2 * count(T) * count(C) * count(F);
  p.bytes = p.input_bytes + p.output_bytes;
  return p;
}

void add_mla(std::vector<DeviceProblem>& all, const Scale& x) {
  for (const Index S : x.contexts)
    all.push_back(mla(x, {"bf16", "dispatch", "prefill"}, 1, x.T, S, x.N));
  all.push_back(mla(x, {"bf16", "dispatch", "prefill"}, 1, x.T, x.contexts[1], x.N / 2));
  for (const Index N : {x.N, x.N / 2})
    all.push_back(mla(x, {"fp8", "dispatch", "decode"}, x.B, x.B * x.drafted, x.cached, N));
  all.push_back(mla(x, {"fp8", "dispatch", "decode"}, 1, 1, x.cached, x.N));
  for (const char* rung : {"v1", "dispatch"})
    all.push_back(mla(x, {"bf16", rung, "ladder"}, 1, x.few, x.contexts[0], x.N));
}

void add_indexer(std::vector<DeviceProblem>& all, const Scale& x) {
  const Index S = x.contexts[x.contexts.size() / 2], longest = x.contexts.back();
  const Index decoded = x.B * x.drafted;
  for (const char* dtype : {"fp8", "bf16"}) {
    all.push_back(indexer(x, "indexer_scores", {dtype, "dispatch", "prefill"}, 1, x.T, S));
    all.push_back(indexer(x, "indexer_topk", {dtype, "dispatch", "prefill"}, 1, x.T, S));
    all.push_back(indexer(x, "indexer_topk", {dtype, "two passes", "prefill"}, 1, x.T, S));
  }
  all.push_back(indexer(x, "indexer_scores", {"fp8", "dispatch", "decode"}, x.B, decoded, x.paged));
  for (const auto& [B, T] : {std::pair{x.B, decoded}, std::pair{Index{1}, Index{1}}})
    all.push_back(indexer(x, "indexer_topk", {"fp8", "dispatch", "decode"}, B, T, x.paged));
  for (const char* rung : {"v1", "dispatch"})
    all.push_back(indexer(x, "indexer_scores", {"fp8", rung, "ladder"}, 1, x.few, x.contexts[0]));
  for (const char* rung : {"v1", "dispatch"}) all.push_back(topk(x, rung, x.T, longest));
}

void add_linear(std::vector<DeviceProblem>& all, const Scale& x) {
  for (const Index T : {x.T, x.B})
    for (const auto& [C, F] : x.linears) {
      for (const char* rung : {"cublaslt", "v2", "cublas"})
        all.push_back(linear("bf16", rung, T, C, F));
      all.push_back(linear("fp8", "dispatch", T, C, F));
    }
  all.push_back(linear("bf16", "v1", x.B, x.linears[0].first, x.linears[0].second));
}

std::vector<DeviceProblem> problems(const Scale& x) {
  std::vector<DeviceProblem> all;
  add_mla(all, x);
  add_indexer(all, x);
  add_linear(all, x);
  return all;
}

}  // namespace

std::string DeviceProblem::shape() const {
  std::string text;
  for (const auto& [letter, n] : sizes)
    text += (text.empty() ? "" : " ") + std::string(1, letter) + std::to_string(n);
  return text;
}

const std::map<std::string, std::string>& formulas() {
  static const std::map<std::string, std::string> all = {
      {"mla_sparse",
       "flops 2 T K N (R+P + R); bytes: q, chosen, out and lse in fp32, and every row that some "
       "query chose once: S (1 - (1 - K/S)^(T/B)) of each of B sequences"},
      {"indexer_scores",
       "flops 2 H D a pair: T (S-T) + T (T+1)/2 pairs, or T S where B > 1; bytes: q, w, the keys "
       "once, T S scores in fp32"},
      {"indexer_topk",
       "flops as indexer_scores; bytes: q, w, the keys once, chosen; for the two passes as well"},
      {"topk_select", "bytes: the scores once, chosen"},
      {"linear", "flops 2 T C F; bytes: x, w, y in fp32"}};
  return all;
}

std::vector<DeviceProblem> device_problems() { return problems(full); }
std::vector<DeviceProblem> host_problems() { return problems(tiny); }

Index copies_of(const DeviceProblem& p) {
  constexpr double no_cache_holds = 256.0 * (1 << 20);
  return std::clamp<Index>(static_cast<Index>(std::ceil(no_cache_holds / p.input_bytes)), 2, 16);
}

double memory_of(const DeviceProblem& p) {
  return count(copies_of(p)) * p.input_bytes + p.output_bytes;
}

}  // namespace dsa::bench
