#include "experiments/bench/shapes.hpp"

#include <algorithm>

#include "verify/kernels/cases/indexer.hpp"
#include "verify/kernels/cases/pose.hpp"

namespace dsa::bench {
namespace {

using namespace dsa::verify;
using namespace dsa::verify::kernels;

// bench-mid; T tokens of a pass against a cache of S rows.
constexpr Index C = 1024, V = 8192, A = 384, N = 16, R = 512, P = 64, H = 16, D = 128, K = 512,
                E = 16, k = 4, F = 512;

Case start(const char* op, const std::string& dtype, const Extents& extents) {
  return start_case(op, dtype, extents, Inputs::gaussian, "timed");
}

double count(Index n) { return static_cast<double>(n); }

/// Rows of rows.hpp in e4m3 whose scales are all 1: `before` e4m3, `scales` floats, `behind` bf16.
Array e4m3_rows(Draw& draw, Index S, Index before, Index scales, Index behind) {
  const Index bytes = before + 4 * scales + 2 * behind;
  Array rows(Dtype::u8, {S, bytes});
  const Array codes = draw.numbers(Dtype::f8_e4m3, {S, before});
  const Array rope = draw.numbers(Dtype::bf16, {S, behind});
  const Array ones(Dtype::f32, {scales},
                   std::vector<double>(static_cast<std::size_t>(scales), 1.0));
  for (Index s = 0; s < S; ++s) {
    std::byte* row = rows.bytes().data() + s * bytes;
    std::copy_n(codes.bytes().data() + s * before, before, row);
    std::copy_n(ones.bytes().data(), 4 * scales, row + before);
    std::copy_n(rope.bytes().data() + s * 2 * behind, 2 * behind, row + before + 4 * scales);
  }
  return rows;
}

Case index_case(const char* op, const std::string& dtype, Index T, Index S) {
  Case c = start(op, dtype, {{'T', T}, {'S', S}, {'H', H}, {'D', D}, {'K', K}});
  Draw draw(c, 1);
  c.scalars = {{"relu", 1}, {"topk", count(K)}};
  c.in["q"] = draw.numbers(storage_of(dtype), {T, H, D});
  c.in["k"] =
      dtype == "fp8" ? e4m3_rows(draw, S, D, 1, 0) : draw.numbers(storage_of(dtype), {S, D});
  c.in["w"] = draw.numbers(Dtype::f32, {T, H});
  std::tie(c.in["begin"], c.in["end"]) = ranges(Sees::causal, T, S);
  if (std::string_view(op) == "indexer_scores")
    c.out["scores"] = Array(Dtype::f32, {T, S});
  else
    c.out["chosen"] = Array(Dtype::i32, {T, K});
  c.flops = 2 * count(H * D) * (count(T) * count(S - T) + count(T) * count(T + 1) / 2);
  return finished(std::move(c));
}

Case topk_case(Index T, Index S) {
  Case c = start("topk_select", "fp32", {{'T', T}, {'S', S}, {'K', K}});
  Draw draw(c, 1);
  c.scalars["topk"] = count(K);
  c.in["scores"] = draw.numbers(Dtype::f32, {T, S});
  c.out["chosen"] = Array(Dtype::i32, {T, K});
  return finished(std::move(c));
}

/// q and kv of both attentions; `keys` of a query on average.
Case attention_case(const char* op, const std::string& dtype, Index T, Index S, double keys) {
  Case c = start(op, dtype, {{'T', T}, {'S', S}, {'N', N}, {'R', R}, {'P', P}});
  Draw draw(c, 1);
  c.scalars = {{"scale", 0.1352338}, {"R", count(R)}};
  c.in["q"] = draw.numbers(dtype == "fp32" ? Dtype::f32 : Dtype::bf16, {T, N, R + P});
  c.in["kv"] = dtype == "fp8" ? e4m3_rows(draw, S, R, R / 128, P)
                              : draw.numbers(storage_of(dtype), {S, R + P});
  c.out["out"] = Array(Dtype::f32, {T, N, R});
  c.out["lse"] = Array(Dtype::f32, {T, N});
  c.flops = 2 * count(T * N) * keys * count(R + P + R);
  return c;
}

Case sparse_case(const std::string& dtype, Index T, Index S) {
  Case c = attention_case("mla_sparse", dtype, T, S, count(std::min(K, S)));
  c.sizes['K'] = std::min(K, S);
  Draw draw(c, 2);
  std::vector<double> chosen;
  for (Index t = 0; t < T; ++t)
    for (const Index s : draw.subset(std::min(K, S), S)) chosen.push_back(count(s));
  c.in["chosen"] = Array(Dtype::i32, {T, std::min(K, S)}, chosen);
  c = finished(std::move(c));
  const double unread = 1 - count(std::min(T * K, S)) / count(S);
  c.bytes -= unread * count(static_cast<Index>(c.in["kv"].bytes().size()));
  return c;
}

Case dense_case(const std::string& dtype, Index T, Index S) {
  Case c = attention_case("mla_dense", dtype, T, S, count(S) - count(T - 1) / 2);
  std::tie(c.in["begin"], c.in["end"]) = ranges(Sees::causal, T, S);
  return finished(std::move(c));
}

/// The same queries and keys as in dense_case.
Case expanded_case(const std::string& dtype, Index T, Index S) {
  constexpr Index B = 128, U = 128;
  Case c = start("mla_expanded", dtype,
                 {{'T', T}, {'S', S}, {'N', N}, {'R', R}, {'P', P}, {'B', B}, {'U', U}});
  Draw draw(c, 1);
  const Dtype stored = dtype == "fp32" ? Dtype::f32 : Dtype::bf16;
  c.scalars["scale"] = 0.1352338;
  c.in["q"] = draw.numbers(stored, {T, N, B + P});
  c.in["kv_b"] = draw.numbers(stored, {N, B + U, R}, 1 / 22.6);
  c.in["kv"] = dtype == "fp8" ? e4m3_rows(draw, S, R, R / 128, P)
                              : draw.numbers(storage_of(dtype), {S, R + P});
  std::tie(c.in["begin"], c.in["end"]) = ranges(Sees::causal, T, S);
  c.out["out"] = Array(Dtype::f32, {T, N, U});
  c.out["lse"] = Array(Dtype::f32, {T, N});
  const double pairs = count(T) * (count(S) - count(T - 1) / 2);
  c.flops = 2 * count(N) * (pairs * count(B + P + U) + count(S) * count(R * (B + U)));
  return finished(std::move(c));
}

Case linear_case(const std::string& dtype, Index T, Index in, Index out) {
  Case c = start("linear", dtype, {{'T', T}, {'C', in}, {'F', out}});
  Draw draw(c, 1);
  c.in["x"] = draw.numbers(storage_of(dtype), {T, in});
  c.in["w"] = draw.numbers(storage_of(dtype), {out, in});
  c.out["y"] = Array(Dtype::f32, {T, out});
  c.flops = 2 * count(T) * count(in) * count(out);
  return finished(std::move(c));
}

Case experts_case(const std::string& dtype, Index T) {
  Case c = start("experts", dtype, {{'T', T}, {'K', k}, {'E', E}, {'C', C}, {'F', F}});
  Draw draw(c, 1);
  c.in["x"] = draw.numbers(storage_of(dtype), {T, C});
  c.in["gate_up"] = draw.numbers(storage_of(dtype), {E, 2 * F, C}, 1 / 32.0);
  c.in["down"] = draw.numbers(storage_of(dtype), {E, C, F}, 1 / 22.6);
  c.in["weights"] = draw.scales({T, k}, false);
  std::vector<double> chosen;
  for (Index t = 0; t < T; ++t)
    for (const Index e : draw.subset(k, E)) chosen.push_back(count(e));
  c.in["chosen"] = Array(Dtype::i32, {T, k}, chosen);
  c.out["y"] = Array(Dtype::f32, {T, C});
  c.flops = 6 * count(T * k) * count(C * F);
  const double read = count(std::min(T * k, E)) / count(E);
  c.bytes = read *
            count(static_cast<Index>(c.in["gate_up"].bytes().size() + c.in["down"].bytes().size()));
  return finished(std::move(c));
}

Case router_case(Index T) {
  Case c = start("router", "fp32", {{'T', T}, {'E', E}, {'K', k}});
  Draw draw(c, 1);
  c.scalars = {{"num_experts_per_tok", count(k)},
               {"n_group", 4},
               {"topk_group", 2},
               {"scoring", 0},
               {"groups", 1},
               {"norm_topk_prob", 1},
               {"routed_scaling_factor", 2.5},
               {"dropped", -INFINITY}};
  c.in["logits"] = draw.numbers(Dtype::f32, {T, E});
  c.in["bias"] = draw.numbers(Dtype::f32, {E}, 0.1);
  c.out["experts"] = Array(Dtype::i32, {T, k});
  c.out["weights"] = Array(Dtype::f32, {T, k});
  return finished(std::move(c));
}

Case norm_case(const char* op, const std::string& dtype, Index T, Index width) {
  Case c = start(op, dtype, {{'T', T}, {'C', width}});
  Draw draw(c, 1);
  c.scalars["eps"] = 1e-6;
  c.in["x"] = draw.numbers(Dtype::f32, {T, width});
  c.in["g"] = draw.numbers(Dtype::f32, {width});
  if (std::string_view(op) == "layernorm") c.in["b"] = draw.numbers(Dtype::f32, {width});
  c.out["y"] = Array(storage_of(dtype), {T, width});
  return finished(std::move(c));
}

Case rope_case(Index T) {
  Case c = start("rope", "fp32", {{'T', T}, {'H', N}, {'D', 192}, {'P', P}});
  Draw draw(c, 1);
  c.scalars = {{"first", 128}, {"interleaved", 1}};
  c.in["x"] = draw.numbers(Dtype::f32, {T, N, 192});
  c.in["cos"] = draw.numbers(Dtype::f32, {T, P / 2});
  c.in["sin"] = draw.numbers(Dtype::f32, {T, P / 2});
  c.out["y"] = Array(Dtype::f32, {T, N, 192});
  return finished(std::move(c));
}

Case embed_case(const std::string& dtype, Index T) {
  Case c = start("embed", dtype, {{'T', T}, {'V', V}, {'C', C}});
  Draw draw(c, 1);
  c.in["table"] = draw.numbers(storage_of(dtype), {V, C});
  std::vector<double> tokens;
  for (Index t = 0; t < T; ++t) tokens.push_back(count(draw.below(V)));
  c.in["tokens"] = Array(Dtype::i32, {T}, tokens);
  c.out["y"] = Array(storage_of(dtype), {T, C});
  c.bytes = 2 * count(static_cast<Index>(c.out["y"].bytes().size()));
  return finished(std::move(c));
}

Case swiglu_case(const std::string& dtype, Index T) {
  Case c = start("swiglu", dtype, {{'T', T}, {'F', F}});
  Draw draw(c, 1);
  c.in["gate_up"] = draw.numbers(Dtype::f32, {T, 2 * F});
  c.out["h"] = Array(storage_of(dtype), {T, F});
  return finished(std::move(c));
}

Case hadamard_case(Index rows) {
  Case c = start("hadamard_e4m3", "fp8", {{'T', rows}, {'D', D}});
  Draw draw(c, 1);
  c.scalars["ue8m0"] = 1;
  const std::vector<double> x = draw.numbers(Dtype::bf16, {rows, D}).values();
  c.in["x"] = Array(Dtype::f32, {rows, D}, x);
  c.out["y"] = Array(Dtype::f8_e4m3, {rows, D});
  c.out["scale"] = Array(Dtype::f32, {rows});
  return finished(std::move(c));
}

Case latent_case(Index T) {
  Case c = start("latent_e4m3", "fp8", {{'T', T}, {'R', R}, {'P', P}});
  Draw draw(c, 1);
  c.scalars = {{"R", count(R)}, {"ue8m0", 1}};
  c.in["x"] = draw.numbers(Dtype::f32, {T, R + P});
  c.out["y"] = Array(Dtype::u8, {T, R + 4 * (R / 128) + 2 * P});
  return finished(std::move(c));
}

}  // namespace

Case chunk_case(const std::string& op, const std::string& dtype, Index T, Index S) {
  if (op == "indexer_topk") return index_case("indexer_topk", dtype, T, S);
  if (op == "mla_sparse") return sparse_case(dtype, T, S);
  return op == "mla_expanded" ? expanded_case(dtype, T, S) : dense_case(dtype, T, S);
}

std::vector<Shape> bench_mid_shapes() {
  using std::string;
  std::vector<Shape> shapes;
  const auto add = [&](string op, string label, auto pose) {
    shapes.push_back({std::move(op), std::move(label), pose});
  };
  for (const Index T : {512, 1}) {
    const string tokens = "T" + std::to_string(T);
    for (const Index S : {4096, 16384, 65536}) {
      const string size = tokens + "_S" + std::to_string(S);
      for (const char* op : {"indexer_scores", "indexer_topk"})
        add(op, size, [=](const string& d) { return index_case(op, d, T, S); });
      add("topk_select", size, [=](const string&) { return topk_case(T, S); });
      add("mla_sparse", size, [=](const string& d) { return sparse_case(d, T, S); });
      if (S > 16384) continue;
      add("mla_dense", size, [=](const string& d) { return dense_case(d, T, S); });
      add("mla_expanded", size, [=](const string& d) { return expanded_case(d, T, S); });
    }
    for (const auto& [in, out] :
         {std::pair{C, A}, {A, N * 192}, {N * 128, C}, {C, 2 * 2816}, {C, V}})
      add("linear", tokens + "_" + std::to_string(in) + "x" + std::to_string(out),
          [=, in = in, out = out](const string& d) { return linear_case(d, T, in, out); });
    add("experts", tokens, [=](const string& d) { return experts_case(d, T); });
    add("router", tokens, [=](const string&) { return router_case(T); });
    add("rmsnorm", tokens, [=](const string& d) { return norm_case("rmsnorm", d, T, C); });
    add("layernorm", tokens, [=](const string& d) { return norm_case("layernorm", d, T, D); });
    add("rope", tokens, [=](const string&) { return rope_case(T); });
    add("embed", tokens, [=](const string& d) { return embed_case(d, T); });
    add("swiglu", tokens, [=](const string& d) { return swiglu_case(d, T * k); });
    add("hadamard_e4m3", tokens, [=](const string&) { return hadamard_case(T * H); });
    add("latent_e4m3", tokens, [=](const string&) { return latent_case(T); });
  }
  return shapes;
}

}  // namespace dsa::bench
