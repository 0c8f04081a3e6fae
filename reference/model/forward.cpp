#include "reference/model/forward.hpp"

#include "core/trace_names.hpp"
#include "reference/model/block.hpp"

namespace dsa::reference {
namespace {

template <class Real>
Tensor<Real, 2> tapped(const Pass<Real>& pass, const std::string& name, Tensor<Real, 2> x) {
  if (pass.tap.tensor) pass.tap.tensor(name, x);
  return x;
}

template <class Real>
Tensor<Real, 2> rmsnorm(const Pass<Real>& pass, const std::string& name, const Tensor<Real, 2>& x,
                        const Parameter& g) {
  Tensor<Real, 2> y(x.shape());
  pass.ops.rmsnorm(name, y, x, g, pass.model.config.rms_norm_eps);
  return tapped(pass, name, std::move(y));
}

template <class Real>
Tensor<Real, 2> linear(const Pass<Real>& pass, const std::string& name, const Tensor<Real, 2>& x,
                       const Linear& w) {
  Tensor<Real, 2> y({x.shape()[0], w.weight.rows()});
  pass.ops.linear(name, y, x, w);
  return tapped(pass, name, std::move(y));
}

}  // namespace

template <class Real>
void Block<Real>::attend(Tensor<Real, 2>& x, bool computes_index, Tensor<Index, 2>& chosen) const {
  const Tensor<Real, 2> h =
      rmsnorm(names::input_layernorm, x, weights.input_layernorm, config.rms_norm_eps);
  pass.ops.add(at + names::attention_residual, x, attention(h, computes_index, chosen));
  x = tapped(at + names::attention_residual, std::move(x));
}

template <class Real>
void Block<Real>::feed(Tensor<Real, 2>& x, bool is_moe) const {
  const Tensor<Real, 2> g = rmsnorm(names::post_attention_layernorm, x,
                                    weights.post_attention_layernorm, config.rms_norm_eps);
  const Tensor<Real, 2> ffn = is_moe ? moe(g) : feed_forward(names::mlp, g, weights.mlp);
  pass.ops.add(name(), x, tapped(at + names::mlp, ffn));
  x = tapped(name(), std::move(x));
}

template <class Real>
void Block<Real>::run(Tensor<Real, 2>& x, bool computes_index, bool is_moe,
                      Tensor<Index, 2>& chosen) const {
  attend(x, computes_index, chosen);
  feed(x, is_moe);
}

template <class Real>
Tensor<Real, 2> embed(const Pass<Real>& pass, const Sequence& sequence) {
  Tensor<Real, 2> x({sequence.size(), pass.model.config.hidden_size});
  pass.ops.embed(names::embed_tokens, x, sequence.tokens, pass.model.weights.embed_tokens);
  return tapped(pass, names::embed_tokens, std::move(x));
}

template <class Real>
void run_layers(const Pass<Real>& pass, Tensor<Real, 2>& x, const Sequence& sequence,
                Cache<Real>& cache, Index begin, Index end) {
  const Config& config = pass.model.config;
  const Index first = cache.seen.size();
  append(cache.seen, sequence);
  cache.layers.resize(static_cast<std::size_t>(config.num_hidden_layers));

  const Angles<Real> angles(pass, sequence);
  const Visibility visible{first, cache.seen.documents};
  Tensor<Index, 2> chosen;  // of the last layer that selected
  for (Index l = begin; l < end; ++l) {
    const auto i = static_cast<std::size_t>(l);
    const bool computes_index = config.indexer && config.indexer->computes[i];
    require(!config.indexer || computes_index || chosen.size() > 0,
            "layer " + std::to_string(l) +
                " shares the selection of an earlier layer, which is outside the span; begin at "
                "a layer that computes its own");
    const Block<Real> block{pass,
                            config,
                            pass.model.weights.layers[i],
                            in_layer(l, ""),
                            sequence.size(),
                            angles.cos,
                            angles.sin,
                            visible,
                            cache.layers[i]};
    block.run(x, computes_index, config.is_moe[i], chosen);
  }
}

template <class Real>
Tensor<Real, 2> logits(const Pass<Real>& pass, const Tensor<Real, 2>& x) {
  const Weights& w = pass.model.weights;
  return linear(pass, names::lm_head, rmsnorm(pass, names::norm, x, w.norm), w.lm_head);
}

template <class Real>
Tensor<Real, 2> forward(const Pass<Real>& pass, const Sequence& sequence, Cache<Real>& cache) {
  Tensor<Real, 2> x = embed(pass, sequence);
  run_layers(pass, x, sequence, cache, 0, pass.model.config.num_hidden_layers);
  return logits(pass, x);
}

template <class Real>
MtpInput<Real>::MtpInput(const Pass<Real>& pass, const Tensor<Real, 2>& x,
                         const Sequence& sequence) {
  const Config& config = pass.model.config;
  require(!pass.model.weights.mtp.empty(),
          "the checkpoint holds no multi-token-prediction block; it was left out on conversion");
  require(sequence.size() >= 2, "multi-token prediction needs at least 2 tokens");
  const Mtp& w = pass.model.weights.mtp.front();
  const std::string at = in_layer(config.num_hidden_layers, "");
  const Index T = sequence.size() - 1, C = config.hidden_size;

  now = sequence;
  now.tokens.pop_back(), now.positions.pop_back(), now.documents.pop_back();
  next.assign(sequence.tokens.begin() + 1, sequence.tokens.end());
  e = h = Tensor<Real, 2>({T, C});
  both = Tensor<Real, 2>({T, 2 * C});
  pass.ops.embed(at + "embed_tokens", e, next, w.embed_tokens);
  std::copy_n(x.begin(), T * C, h.begin());
  const Tensor<Real, 2> e_norm = rmsnorm(pass, at + "enorm", e, w.enorm);
  const Tensor<Real, 2> h_norm = rmsnorm(pass, at + "hnorm", h, w.hnorm);
  for (Index t = 0; t < T; ++t)
    for (Index c = 0; c < C; ++c) both(t, c) = e_norm(t, c), both(t, C + c) = h_norm(t, c);
  y = linear(pass, at + "eh_proj", both, w.eh_proj);
}

template <class Real>
Tensor<Real, 2> mtp_logits(const Pass<Real>& pass, const Tensor<Real, 2>& x,
                           const Sequence& sequence) {
  MtpInput<Real> input(pass, x, sequence);
  const Config& config = pass.model.config;
  const Mtp& w = pass.model.weights.mtp.front();
  const std::string at = in_layer(config.num_hidden_layers, "");
  const Angles<Real> angles(pass, input.now);
  LayerCache<Real> cache;
  Tensor<Index, 2> chosen;
  const Block<Real> block{pass,
                          config,
                          w.block,
                          at,
                          input.now.size(),
                          angles.cos,
                          angles.sin,
                          Visibility{0, input.now.documents},
                          cache};
  block.run(input.y, config.indexer.has_value(), config.n_routed_experts > 0, chosen);
  return linear(pass, at + "shared_head.head",
                rmsnorm(pass, at + "shared_head.norm", input.y, w.shared_head_norm), w.shared_head);
}

#define DSA_INSTANTIATE(Real)                                                                  \
  template struct MtpInput<Real>;                                                              \
  template Tensor<Real, 2> embed(const Pass<Real>&, const Sequence&);                          \
  template void run_layers(const Pass<Real>&, Tensor<Real, 2>&, const Sequence&, Cache<Real>&, \
                           Index, Index);                                                      \
  template Tensor<Real, 2> logits(const Pass<Real>&, const Tensor<Real, 2>&);                  \
  template Tensor<Real, 2> forward(const Pass<Real>&, const Sequence&, Cache<Real>&);          \
  template Tensor<Real, 2> mtp_logits(const Pass<Real>&, const Tensor<Real, 2>&, const Sequence&);
DSA_INSTANTIATE(double)
DSA_INSTANTIATE(long double)
DSA_INSTANTIATE(Dual)

}  // namespace dsa::reference
