#include "optimized/cuda/model/forward.cuh"

#include <algorithm>
#include <limits>

#include "optimized/cuda/model/pass.cuh"
#include "optimized/cuda/ops/embed.cuh"
#include "optimized/cuda/ops/experts.cuh"
#include "optimized/cuda/ops/norms.cuh"
#include "optimized/cuda/ops/router.cuh"
#include "optimized/cuda/ops/swiglu.cuh"
#include "optimized/engine/feeds.hpp"
#include "optimized/shared/rope_table.hpp"

namespace dsa::cuda::DSA_PLACE {
namespace {

/// One a feed, with room in its cache.
template <class Row>
std::vector<Segment<Row>> segments_of(std::span<const Feed> feeds) {
  std::vector<Segment<Row>> segments;
  Index begin = 0, first_key = 0;
  for (const Feed& feed : feeds) {
    auto* const cache = dynamic_cast<Cache<Row>*>(feed.cache);
    require(cache != nullptr,
            "a feed's cache is not one of this place and format; make it with new_cache() of the "
            "engine that runs the pass");
    cache->reserve(cache->rows() + feed.size());
    segments.push_back({cache, begin, begin + feed.size(), first_key});
    begin += feed.size();
    first_key += Index(cache->pages().size()) * cache_page_rows;
  }
  require(first_key <= std::numeric_limits<std::int32_t>::max(),
          "the caches of a pass's feeds have " + std::to_string(first_key) +
              " rows in all, expected fewer than 2^31; feed fewer sequences at a time");
  return segments;
}

template <class Row>
Index rows_of_longest(const std::vector<Segment<Row>>& segments) {
  Index most = 0;
  for (const Segment<Row>& s : segments) most = std::max(most, Index(s.cache->pages().size()));
  return most * cache_page_rows;
}

bool every_token_sees_all(const Config& config, std::span<const Feed> feeds) {
  if (!config.indexer) return true;
  for (const Feed& feed : feeds)
    for (Index t = 0; t < feed.size(); ++t)
      if (feed.cache->rows() + t + 1 - feed.begin[std::size_t(t)] > config.indexer->topk)
        return false;
  return true;
}

template <class Row>
void fill_inputs(const Inputs<HostMemory>& in, const Config& config, std::span<const Feed> feeds,
                 const std::vector<Segment<Row>>& segments) {
  std::vector<Index> positions;
  std::fill(in.flags.begin(), in.flags.end(), 0);
  for (std::size_t i = 0; i < feeds.size(); ++i) {
    const Feed& feed = feeds[i];
    const Segment<Row>& s = segments[i];
    const auto first_key = static_cast<std::int32_t>(s.first_key),
               first = first_key + static_cast<std::int32_t>(feed.cache->rows());
    std::transform(feed.tokens.begin(), feed.tokens.end(), in.tokens.data + s.begin,
                   [](Token token) { return static_cast<std::int32_t>(token); });
    std::transform(feed.begin.begin(), feed.begin.end(), in.begin.data + s.begin,
                   [&](std::int32_t begin) { return first_key + begin; });
    for (std::int32_t t = 0; t < feed.size(); ++t) in.end(s.begin + t) = first + t + 1;
    positions.insert(positions.end(), feed.positions.begin(), feed.positions.end());
    in.last(Index(i)) = static_cast<std::int32_t>(s.end - 1);
  }
  rope_table(in.cos, in.sin, positions, config.rope);
}

void check_flags(const std::int32_t (&flags)[2]) {
  const char* const what[] = {"a score of the indexer", "a logit of the router"};
  for (int i = 0; i < 2; ++i)
    if (flags[i] != 0)
      throw Error(std::string(what[i]) + " of layer " + std::to_string(flags[i] - 1) +
                  " is NaN: there is no order to select by");
}

}  // namespace

template <class X, class Row>
void Pass<X, Row>::tell(const std::string& name, DeviceView<const float, 2> x) const {
  if (!tap.tensor) return;
  Tensor<float, 2> all({x.shape[0], x.shape[1]});
  download(stream, all.data(), x.data, all.size());
  wait(stream);
  tap.tensor(name, all.view());
}

template <class X, class Row>
void Pass<X, Row>::norm(DeviceView<const float, 2> x, DeviceVector g) const {
  const Index n = x.shape[0];
  rmsnorm<float>(stream, rows(b.h_wide, 0, n), x, g, config.rms_norm_eps);
  if (!std::is_same_v<X, float>) narrowed(rows(b.h, 0, n), rows(b.h_wide, 0, n));
}

/// y = down( swiglu( gate_up h ) ).
template <class X, class Row>
void Pass<X, Row>::feed_forward(DeviceView<float, 2> y, const DeviceMlp<X>& w) const {
  const Index F = w.down.weight.shape[1];
  const DeviceView<float, 2> gate_up{b.gate_up.data, {T, 2 * F}};
  const DeviceView<X, 2> hidden{b.hidden.data, {T, F}};
  linear(gate_up, h(), w.gate_up);
  swiglu<X>(stream, hidden, gate_up);
  linear(y, hidden, w.down);
}

template <class X, class Row>
void Pass<X, Row>::moe(Index l) const {
  const DeviceLayer<X>& w = layer(l);
  linear_f32(b.router_logits, w.gate);
  tell(l, ".mlp.gate.logits", b.router_logits);
  router(stream, {b.experts, b.expert_weights}, b.router_logits, w.e_score_correction_bias, config);
  watch<float>(stream, rows(b.in.flags, 1, 2), std::int32_t(l + 1), b.expert_weights);
  tell_decision(l, ".mlp.gate.experts", b.experts, [](View<std::int32_t, 2>) {});
  tell(l, ".mlp.gate.weights", b.expert_weights);
  fill(stream, b.y, 0);
  experts<X>(stream, b.y,
             {.x = h(),
              .gate_up = w.experts_gate_up,
              .down = w.experts_down,
              .chosen = b.experts,
              .weights = b.expert_weights},
             b.experts_hidden, b.experts_scratch);
  if (config.n_shared_experts == 0) return;
  feed_forward(b.shared, w.mlp);
  add(stream, b.y, b.shared);
}

template <class X, class Row>
void Pass<X, Row>::run_layer(Index l) const {
  norm(b.x, layer(l).input_layernorm);
  tell(l, ".input_layernorm", b.h_wide);
  attention(l);
  add(stream, b.x, b.y);
  norm(b.x, layer(l).post_attention_layernorm);
  tell(l, ".post_attention_layernorm", b.h_wide);
  if (config.is_moe[std::size_t(l)])
    moe(l);
  else
    feed_forward(b.y, layer(l).mlp);
  tell(l, ".mlp", b.y);
  add(stream, b.x, b.y);
  tell(l, "", b.x);
}

template <class X, class Row>
void Pass<X, Row>::logits_of(Index begin, Index end) const {
  linear(rows(b.logits, 0, end - begin), rows(h(), begin, end), {model.lm_head, {}});
}

template <class X, class Row>
void Pass<X, Row>::body(LogitsOf which) const {
  if constexpr (std::is_same_v<X, float>) {
    embed<float>(stream, b.x, model.embed_tokens, b.in.tokens);
  } else {
    embed<X>(stream, b.h, model.embed_tokens, b.in.tokens);
    copy<float, X>(stream, b.x, 0, b.h, 0, config.hidden_size);
  }
  tell("model.embed_tokens", b.x);
  for (Index l = 0; l < config.num_hidden_layers; ++l) run_layer(l);
  const Index n = result_rows(which);
  DeviceView<const float, 2> x = b.x;
  if (which == LogitsOf::last_of_each_feed) {
    embed<float>(stream, rows(b.y, 0, n), x, b.in.last);
    x = rows(b.y, 0, n);
  }
  norm(x, model.norm);
  tell("model.norm", rows(b.h_wide, 0, n));
  logits_of(0, std::min(n, b.logits.shape[0]));
}

template struct Pass<float, float>;
template struct Pass<bf16, bf16>;
template struct Pass<bf16, e4m3>;

template <class X, class Row>
Runner<X, Row>::Runner(const Model& model, Index T)
    : model_(load<X>(model)),
      tokens_(T),
      layout_(model.config),
      memory_(workspace_bytes<X, Row>(model.config, T)),
      host_memory_(
          static_cast<std::size_t>(Inputs<HostMemory>(nullptr, model.config, T, T).bytes)) {}

template <class X, class Row>
DeviceView<Row* const, 1> Runner<X, Row>::list_of(const std::vector<Segment<Row>>& segments) {
  std::vector<Row*> pages;
  for (const Segment<Row>& s : segments)
    for (const Buffer<Row>& page : s.cache->pages()) pages.push_back(page.data());
  const Index n = Index(pages.size());
  if (pages != pages_) {
    pages_ = std::move(pages);
    if (n > list_.size()) list_ = Buffer<Row*>(n);
    upload(stream_, list_.data(), pages_.data(), n);
  }
  return {list_.data(), {n}};
}

template <class X, class Row>
void Runner<X, Row>::forward(std::span<const Feed> feeds, LogitsOf which, View<float, 2> logits,
                             const Tap& tap) {
  check_feeds(feeds, tokens_, config());
  const Index T = tokens_of(feeds), n_feeds = static_cast<Index>(feeds.size());
  const std::vector<Segment<Row>> segments = segments_of<Row>(feeds);
  const Pass<X, Row> pass{.model = model_,
                          .config = config(),
                          .stream = stream_,
                          .layout = layout_,
                          .segments = segments,
                          .pages = list_of(segments),
                          .longest = rows_of_longest(segments),
                          .sees_all = every_token_sees_all(config(), feeds),
                          .host = Inputs<HostMemory>(host_memory_.data(), config(), T, n_feeds),
                          .b = Buffers<X, Row>(memory_.data(), config(), T, n_feeds),
                          .tap = tap,
                          .T = T};
  const Index n = pass.result_rows(which), step = pass.b.logits.shape[0];
  expect_shape("logits", logits, {n, config().vocab_size});
  fill_inputs(pass.host, config(), feeds, segments);
  upload(pass.stream, memory_.data(), host_memory_.data(), pass.host.bytes);

  const bool is_decoding = T == n_feeds && n <= step && !tap.tensor && !tap.decision;
  if (is_decoding)  // what its launches depend on
    graph_.run(pass.stream,
               {static_cast<Index>(which), T, pass.longest, pass.sees_all, pass.pages.shape[0],
                static_cast<Index>(reinterpret_cast<std::uintptr_t>(pass.pages.data))},
               [&] { pass.body(which); });
  else
    pass.body(which);
  std::int32_t flags[2];
  download(pass.stream, flags, pass.b.in.flags.data, 2);
  for (Index begin = 0; begin < n; begin += step) {
    const Index end = std::min(n, begin + step);
    if (begin > 0) pass.logits_of(begin, end);
    download(pass.stream, logits[begin].data, pass.b.logits.data, (end - begin) * logits.shape[1]);
    wait(pass.stream);
    check_flags(flags);
  }
  if (tap.tensor) tap.tensor("lm_head", logits);
  for (const Segment<Row>& s : pass.segments) s.cache->commit(s.end - s.begin);
}

template class Runner<float, float>;
template class Runner<bf16, bf16>;
template class Runner<bf16, e4m3>;

}  // namespace dsa::cuda::DSA_PLACE
