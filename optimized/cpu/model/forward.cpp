#include "optimized/cpu/model/forward.hpp"

#include "core/threads.hpp"
#include "optimized/cpu/model/pass.hpp"
#include "optimized/cpu/ops/embed.hpp"
#include "optimized/cpu/ops/norms.hpp"
#include "optimized/cpu/ops/rope.hpp"
#include "optimized/cpu/ops/router.hpp"
#include "optimized/engine/feeds.hpp"
#include "optimized/shared/rope_table.hpp"

namespace dsa::cpu {
namespace {

void add(View<float, 2> x, View<const float, 2> y) {
  parallel_for(x.size(), 1, [&](Index i) { x.data[i] += y.data[i]; });
}

Cache& cache_of(const Feed& feed) {
  auto* cache = dynamic_cast<Cache*>(feed.cache);
  require(cache != nullptr,
          "a feed's cache is not one of the CPU backend; make it with new_cache() "
          "of the engine that runs the pass");
  return *cache;
}

}  // namespace

template <class X, class Row>
void Pass<X, Row>::prepare() {
  Index row = 0;
  for (const Feed& feed : feeds) {
    Segment s{&cache_of(feed), row, row + feed.size(), feed.cache->rows()};
    const auto first = static_cast<std::int32_t>(s.first);
    std::transform(feed.tokens.begin(), feed.tokens.end(), b.tokens.data + row,
                   [](Token token) { return static_cast<std::int32_t>(token); });
    std::copy(feed.positions.begin(), feed.positions.end(), b.positions.data + row);
    std::copy(feed.begin.begin(), feed.begin.end(), b.begin.data + row);
    for (std::int32_t t = 0; t < feed.size(); ++t) b.end(row + t) = first + t + 1;
    if (config.indexer)
      for (Index t = s.begin; t < s.end; ++t)
        s.sees_all &= b.end(t) - b.begin(t) <= config.indexer->topk;
    s.expanded = expands(s);
    s.cache->reserve(s.keys());
    segments.push_back(s);
    row = s.end;
  }
  rope_table(b.cos, b.sin, {b.positions.data, static_cast<std::size_t>(T)}, config.rope);
}

template <class X, class Row>
void Pass<X, Row>::norm(Index l, const char* name, const Tensor<float, 1>& g) const {
  rmsnorm(cpu(), b.h_wide, b.x, g, config.rms_norm_eps);
  narrowed(b.h, b.h_wide);
  tell(l, name, b.h_wide);
}

template <class X, class Row>
void Pass<X, Row>::moe(Index l) const {
  const PackedLayer& w = layer(l);
  cpu::linear<float, float>(cpu(), b.router_logits, View<const float, 2>(b.h_wide), w.gate, {},
                            b.scratch);
  tell(l, ".mlp.gate.logits", b.router_logits);
  router(cpu(), {b.experts, b.expert_weights}, b.router_logits, w.e_score_correction_bias, config,
         b.scratch);
  tell_decision(l, ".mlp.gate.experts", b.experts);
  tell(l, ".mlp.gate.weights", b.expert_weights);
  std::fill(b.y.begin(), b.y.end(), 0.0f);
  experts<X>(cpu(), b.y,
             {.x = h(), .chosen = b.experts, .weights = b.expert_weights, .networks = w.experts},
             b.scratch);
  if (config.n_shared_experts > 0) feed_forward<X>(cpu(), b.y, h(), w.mlp, /*add=*/true, b.scratch);
}

template <class X, class Row>
void Pass<X, Row>::run_layer(Index l) const {
  norm(l, ".input_layernorm", layer(l).input_layernorm);
  attention(l);
  add(b.x, b.y);
  norm(l, ".post_attention_layernorm", layer(l).post_attention_layernorm);
  if (config.is_moe[static_cast<std::size_t>(l)])
    moe(l);
  else
    feed_forward<X>(cpu(), b.y, h(), layer(l).mlp, /*add=*/false, b.scratch);
  tell(l, ".mlp", b.y);
  add(b.x, b.y);
  tell(l, "", b.x);
}

template <class X, class Row>
void Pass<X, Row>::head(LogitsOf which, View<float, 2> logits) const {
  View<float, 2> x = b.x;
  if (which == LogitsOf::last_of_each_feed) {
    x = rows(b.y, 0, static_cast<Index>(feeds.size()));
    Index i = 0;
    for (const Segment& s : segments)
      std::copy(b.x[s.end - 1].begin(), b.x[s.end - 1].end(), x[i++].begin());
  }
  const Index n = x.shape[0];
  expect_shape("logits", logits, {n, config.vocab_size});
  const View<float, 2> h_wide = rows(b.h_wide, 0, n);
  rmsnorm(cpu(), h_wide, x, model.norm, config.rms_norm_eps);
  if (tap.tensor) tap.tensor("model.norm", h_wide);
  cpu::linear<float, X>(cpu(), logits, narrowed(rows(b.h, 0, n), h_wide), model.lm_head, {},
                        b.scratch);
  if (tap.tensor) tap.tensor("lm_head", logits);
}

namespace {

template <class X, class Row>
void run(const PackedModel& model, Workspace& workspace, std::span<const Feed> feeds,
         LogitsOf which, View<float, 2> logits, const Tap& tap) {
  const Index T = tokens_of(feeds);
  Pass<X, Row> pass{.model = model,
                    .config = model.config,
                    .feeds = feeds,
                    .tap = tap,
                    .T = T,
                    .b = Buffers<X, Row>(workspace.memory(), model.config, T, workspace.threads())};
  pass.prepare();
  embed<float, X>(model.cpu, pass.b.x, std::get<Tensor<X, 2>>(model.embed_tokens).view(),
                  pass.b.tokens);
  if (tap.tensor) tap.tensor("model.embed_tokens", pass.b.x);
  for (Index l = 0; l < model.config.num_hidden_layers; ++l) pass.run_layer(l);
  pass.head(which, logits);
  for (const Segment& s : pass.segments) s.cache->commit(s.end - s.begin);
}

}  // namespace

void forward(const PackedModel& model, Workspace& workspace, std::span<const Feed> feeds,
             LogitsOf which, View<float, 2> logits, const Tap& tap) {
  check_feeds(feeds, workspace.tokens(), model.config);
  const Threads scope(workspace.threads());
  switch (model.format) {
    case Format::fp32:
      return run<float, float>(model, workspace, feeds, which, logits, tap);
    case Format::bf16:
      return run<bf16, bf16>(model, workspace, feeds, which, logits, tap);
    case Format::fp8:
      return run<bf16, e4m3>(model, workspace, feeds, which, logits, tap);
  }
}

}  // namespace dsa::cpu
