#include "verify/kernels/peers/peer_layouts.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/safetensors.hpp"
#include "verify/kernels/peers/layouts.hpp"

namespace dsa::verify::kernels {
namespace {

constexpr double inf = std::numeric_limits<double>::infinity();

/// Rows of `bytes` bytes from one array to another, whose rows may be longer; from byte `first` of
/// each to byte `at`.
struct Strip {
  Index bytes, first = 0, at = 0;
};
void copy_strips(const Array& from, Index from_row, Array& to, Index to_row, Index rows, Strip x) {
  for (Index i = 0; i < rows; ++i)
    std::memcpy(to.bytes().data() + i * to_row + x.at, from.bytes().data() + i * from_row + x.first,
                static_cast<std::size_t>(x.bytes));
}

Array reshaped(const Array& x, std::vector<Index> shape) {
  Array y(x.dtype(), std::move(shape));
  require(y.size() == x.size(), "a shape of other size");
  std::copy_n(x.bytes().data(), x.bytes().size(), y.bytes().data());
  return y;
}

const Array& output_of(const Arrays& theirs, const std::string& name, const Arrays& like) {
  const auto found = theirs.find(name);
  require(found != theirs.end(), "there is no output " + name);
  const std::vector<Index>& shape = like.at(name).shape();
  require(found->second.shape() == shape, "output " + name + " has shape " +
                                              shape_text(found->second.shape()) + ", expected " +
                                              shape_text(shape));
  return found->second;
}

// Sparse attention of FlashMLA and TileLang: [c_kv 512 | k_rope 64], 64 or 128 heads.

constexpr Index latent = 512, rope = 64, width = latent + rope, run = 128;

Index heads_of(const Case& c) { return c.sizes.at('N') <= 64 ? 64 : 128; }

std::string sparse_refuses(const Case& c, const std::string& who) {
  if (c.dtype == "fp32") return who + " has no fp32 kernel";
  if (c.sizes.at('N') > 128) return who + " takes up to 128 heads";
  if (c.sizes.at('R') > latent || c.sizes.at('P') > rope)
    return who + " takes up to 512 + 64 channels";
  if (c.sizes.at('T') * c.sizes.at('S') == 0) return who + " takes no empty tensors";
  return "";
}

std::string flashmla_refuses(const Case& c) { return sparse_refuses(c, "FlashMLA"); }

/// bf16 (n, R + P) as (n, 576).
Array wide_latents(const Array& x, Index n, Index R, Index P) {
  Array y(Dtype::bf16, {n, width});
  copy_strips(x, 2 * (R + P), y, 2 * width, n, {2 * R});
  copy_strips(x, 2 * (R + P), y, 2 * width, n, {2 * P, 2 * R, 2 * latent});
  return y;
}

/// e4m3 rows of R + P channels as rows of 512 + 64, of 656 bytes; further runs have a scale of 1.
Array wide_rows(const Array& x, Index R, Index P) {
  const Index S = x.shape()[0], from = x.shape()[1], scales = 4 * ((R + run - 1) / run);
  const Index all_scales = 4 * latent / run, to = latent + all_scales + 2 * rope;
  Array y(Dtype::u8, {S, to});
  const Array ones(Dtype::f32, {latent / run}, std::vector<double>(latent / run, 1.0));
  copy_strips(ones, 0, y, to, S, {all_scales, 0, latent});
  copy_strips(x, from, y, to, S, {R});
  copy_strips(x, from, y, to, S, {scales, R, latent});
  copy_strips(x, from, y, to, S, {2 * P, R + scales, latent + all_scales});
  return y;
}

/// bf16 (T, N, R + P) as (T, heads, 576).
Array wide_queries(const Case& c) {
  const Index T = c.sizes.at('T'), N = c.sizes.at('N'), heads = heads_of(c);
  const Array narrow = wide_latents(c.in.at("q"), T * N, c.sizes.at('R'), c.sizes.at('P'));
  Array q(Dtype::bf16, {T, heads, width});
  copy_strips(narrow, 2 * N * width, q, 2 * heads * width, T, {2 * N * width});
  return q;
}

Arrays flashmla_inputs(const Case& c) {
  const Index T = c.sizes.at('T'), S = c.sizes.at('S'), R = c.sizes.at('R'), P = c.sizes.at('P');
  const Array q = wide_queries(c);
  Arrays in;
  if (c.dtype == "bf16") {  // flash_mla_sparse_fwd
    const Array indices = flashmla_indices(c.in.at("chosen"), {}, 128);
    in["q"] = q;
    in["kv"] = reshaped(wide_latents(c.in.at("kv"), S, R, P), {S, 1, width});
    in["indices"] = reshaped(indices, {T, 1, indices.shape()[1]});
  } else {  // flash_mla_with_kvcache: a query is a sequence, and all share their blocks
    const std::vector<Index> blocks = blocks_of(S);
    const Array indices = flashmla_indices(c.in.at("chosen"), blocks, 64);
    in["q"] = reshaped(q, {T, 1, heads_of(c), width});
    in["k_cache"] = flashmla_cache(wide_rows(c.in.at("kv"), R, P), blocks);
    in["indices"] = reshaped(indices, {T, 1, indices.shape()[1]});
  }
  return in;
}

Arrays flashmla_outputs(const Case& c) {
  const Index T = c.sizes.at('T'), heads = heads_of(c);
  const bool paged = c.dtype == "fp8";
  Arrays out;
  out["out"] = Array(Dtype::bf16, paged ? std::vector<Index>{T, 1, heads, latent}
                                        : std::vector<Index>{T, heads, latent});
  out["lse"] =
      Array(Dtype::f32, paged ? std::vector<Index>{T, heads, 1} : std::vector<Index>{T, heads});
  return out;
}

/// The outputs without their padding.
Arrays sparse_ours(const Case& c, const Arrays& theirs, const Arrays& like,
                   const LseConvention& convention) {
  const Index T = c.sizes.at('T'), N = c.sizes.at('N'), R = c.sizes.at('R'), heads = heads_of(c);
  const Array &out = output_of(theirs, "out", like), &lse = output_of(theirs, "lse", like);
  const std::vector<double> o = out.values(), l = lse.values();
  std::vector<double> our_out, our_lse;
  for (Index t = 0; t < T; ++t)
    for (Index n = 0; n < N; ++n) {
      const Index head = t * heads + n;
      our_lse.push_back(lse_of(l[static_cast<std::size_t>(head)], convention));
      our_out.insert(our_out.end(), o.begin() + head * latent, o.begin() + head * latent + R);
    }
  Arrays ours;
  ours["out"] = Array(out.dtype(), {T, N, R}, our_out);
  ours["lse"] = Array(lse.dtype(), {T, N}, our_lse);
  return ours;
}

Arrays flashmla_ours(const Case& c, const Arrays& theirs) {
  return sparse_ours(c, theirs, flashmla_outputs(c), flashmla_lse);
}

std::string tilelang_refuses(const Case& c) {
  return c.dtype == "fp8" ? "TileLang's sparse MLA is of bf16" : sparse_refuses(c, "TileLang");
}

/// The kernel hides keys behind a query's own position, so that the queries follow all keys; no key
/// is an index behind the last of them. Its position is above kv_stride, which is 1.
Arrays tilelang_inputs(const Case& c) {
  const Index T = c.sizes.at('T'), S = c.sizes.at('S');
  const Index start = std::max<Index>(S, 2), nowhere = start + T;
  Array indices = flashmla_indices(c.in.at("chosen"), {}, 128);
  const Index K = indices.shape()[1];
  for (std::int32_t& s : indices.as<std::int32_t, 2>())
    if (s < 0) s = static_cast<std::int32_t>(nowhere);
  Arrays in;
  in["q"] = reshaped(wide_queries(c), {1, T, heads_of(c), width});
  in["kv"] =
      reshaped(wide_latents(c.in.at("kv"), S, c.sizes.at('R'), c.sizes.at('P')), {1, S, 1, width});
  in["indices"] = reshaped(indices, {1, T, 1, K});
  in["q_start_index_s"] = Array(Dtype::i32, {1}, std::vector<double>{static_cast<double>(start)});
  return in;
}

Arrays tilelang_outputs(const Case& c) {
  const Index T = c.sizes.at('T'), heads = heads_of(c);
  return {{"out", Array(Dtype::bf16, {1, T, heads, latent})},
          {"lse", Array(Dtype::f32, {1, T, heads})}};
}

/// Their result is 0/0 for a query that chose nothing.
Arrays tilelang_ours(const Case& c, const Arrays& theirs) {
  Arrays ours = sparse_ours(c, theirs, tilelang_outputs(c), tilelang_lse);
  std::vector<double> out = ours["out"].values();
  const auto chosen = c.in.at("chosen").as<std::int32_t, 2>();
  const Index T = chosen.shape[0], row = c.sizes.at('N') * c.sizes.at('R');
  for (Index t = 0; t < T; ++t)
    if (std::all_of(chosen[t].begin(), chosen[t].end(), [](std::int32_t s) { return s == -1; }))
      std::replace_if(
          out.begin() + t * row, out.begin() + (t + 1) * row,
          [](double x) { return std::isnan(x); }, 0.0);
  ours["out"] = Array(ours["out"].dtype(), ours["out"].shape(), out);
  return ours;
}

// DeepGEMM: 32 or 64 heads of 32, 64 or 128 channels.

Index index_heads_of(const Case& c) { return c.sizes.at('H') <= 32 ? 32 : 64; }
Index channels_of(const Case& c) {
  const Index D = c.sizes.at('D');
  return D <= 32 ? 32 : D <= 64 ? 64 : 128;
}

std::string deepgemm_refuses(const Case& c) {
  if (c.dtype != "fp8") return "DeepGEMM's index scores are of e4m3";
  if (!c.flag("relu")) return "DeepGEMM's index scores have a relu";
  if (c.sizes.at('H') > 64 || c.sizes.at('D') > 128)
    return "DeepGEMM takes up to 64 index heads of up to 128 channels";
  if (c.sizes.at('T') * c.sizes.at('S') == 0) return "DeepGEMM takes no empty tensors";
  return "";
}

/// The same keys twice: for fp8_mqa_logits, and paged for fp8_paged_mqa_logits, where a query is a
/// sequence of its own that sees what is before its end.
Arrays deepgemm_inputs(const Case& c) {
  const Index T = c.sizes.at('T'), S = c.sizes.at('S'), h = c.sizes.at('H'), d = c.sizes.at('D');
  const Index H = index_heads_of(c), D = channels_of(c);
  Array heads(Dtype::f8_e4m3, {T * h, D}), q(Dtype::f8_e4m3, {T, H, D}), w(Dtype::f32, {T, H});
  copy_strips(c.in.at("q"), d, heads, D, T * h, {d});
  copy_strips(heads, h * D, q, H * D, T, {h * D});
  copy_strips(c.in.at("w"), 4 * h, w, 4 * H, T, {4 * h});
  Array k(Dtype::f8_e4m3, {S, D}), scale(Dtype::f32, {S}), rows(Dtype::u8, {S, D + 4});
  copy_strips(c.in.at("k"), d + 4, k, D, S, {d});
  copy_strips(c.in.at("k"), d + 4, scale, 4, S, {4, d});
  copy_strips(k, D, rows, D + 4, S, {D});
  copy_strips(scale, 4, rows, D + 4, S, {4, 0, D});
  const std::vector<Index> blocks = blocks_of(S);
  std::vector<double> table;
  for (Index t = 0; t < T; ++t) table.insert(table.end(), blocks.begin(), blocks.end());
  return {{"q", q},
          {"weights", w},
          {"k", k},
          {"k_scale", scale},
          {"k_start", c.in.at("begin")},
          {"k_end", c.in.at("end")},
          {"kv_cache", deepgemm_cache(rows, blocks)},
          {"block_table", Array(Dtype::i32, {T, static_cast<Index>(blocks.size())}, table)}};
}

Arrays deepgemm_outputs(const Case& c) {
  return {{"logits", Array(Dtype::f32, {c.sizes.at('T'), c.sizes.at('S')})}};
}

/// Their scores of invisible keys are not defined unless the kernel is told to clean them.
Arrays deepgemm_ours(const Case& c, const Arrays& theirs) {
  const Array& logits = output_of(theirs, "logits", deepgemm_outputs(c));
  std::vector<double> scores = logits.values();
  const auto begin = c.in.at("begin").as<std::int32_t, 1>(),
             end = c.in.at("end").as<std::int32_t, 1>();
  const Index S = c.sizes.at('S');
  for (Index t = 0; t < c.sizes.at('T'); ++t)
    for (Index s = 0; s < S; ++s)
      if (s < begin(t) || s >= end(t)) scores[static_cast<std::size_t>(t * S + s)] = -inf;
  return {{"scores", Array(logits.dtype(), logits.shape(), scores)}};
}

constexpr PeerLayout layouts[] = {
    {"flashmla", "mla_sparse", flashmla_refuses, flashmla_inputs, flashmla_outputs, flashmla_ours},
    {"tilelang", "mla_sparse", tilelang_refuses, tilelang_inputs, tilelang_outputs, tilelang_ours},
    {"deepgemm", "indexer_scores", deepgemm_refuses, deepgemm_inputs, deepgemm_outputs,
     deepgemm_ours}};

}  // namespace

const PeerLayout& peer_layout_named(const std::string& name) {
  for (const PeerLayout& layout : layouts)
    if (layout.name == name) return layout;
  throw Error("there is no layout \"" + name + "\"; there are flashmla, tilelang and deepgemm");
}

}  // namespace dsa::verify::kernels
