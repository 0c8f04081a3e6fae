// reference/model/block.hpp — one transformer block at work; the parts of
// reference/model/forward.cpp.
//
// attention.cpp holds MLA and the indexer, moe.cpp the feed-forward networks, forward.cpp the rest.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "core/views.hpp"
#include "reference/dual.hpp"
#include "reference/model/forward.hpp"

namespace dsa::reference {

template <class Real>
View<const Real, 2> rows_of(const std::vector<Real>& x, Index width) {
  return {x.data(), {static_cast<Index>(x.size()) / width, width}};
}

inline void append(Sequence& seen, const Sequence& more) {
  const auto join = [](auto& a, const auto& b) { a.insert(a.end(), b.begin(), b.end()); };
  join(seen.tokens, more.tokens);
  join(seen.positions, more.positions);
  join(seen.documents, more.documents);
}

template <class Real>
void append(std::vector<Real>& cache, const Tensor<Real, 2>& x) {
  cache.insert(cache.end(), x.begin(), x.end());
}

/// Channels [begin, end) of every head of x (T, heads * width), as (T, heads * (end - begin)).
template <class Real>
Tensor<Real, 2> slice(const Tensor<Real, 2>& x, Index heads, Index begin, Index end) {
  const Index T = x.shape()[0], width = x.shape()[1] / heads;
  Tensor<Real, 2> part({T, heads * (end - begin)});
  for (Index t = 0; t < T; ++t)
    for (Index h = 0; h < heads; ++h)
      for (Index i = begin; i < end; ++i)
        part(t, h * (end - begin) + i - begin) = x(t, h * width + i);
  return part;
}

template <class Real>
struct Angles {
  Tensor<Real, 2> cos, sin;  // (T, P/2)

  Angles(const Pass<Real>& pass, const Sequence& sequence)
      : cos({sequence.size(), pass.model.config.qk_rope_head_dim / 2}), sin(cos.shape()) {
    pass.ops.rope_table("model.rotary_emb", cos, sin, sequence.positions, pass.model.config.rope);
  }
};

/// What the first multi-token-prediction block reads: row t is made of x[t] and token t+1.
template <class Real>
struct MtpInput {
  Sequence now;             // tokens 0 to T-2
  std::vector<Token> next;  // tokens 1 to T-1
  Tensor<Real, 2> e, h;     // (T-1, C)   embedding of the next token, and x; before their norms
  Tensor<Real, 2> both;     // (T-1, 2C)  the two, normalised
  Tensor<Real, 2> y;        // (T-1, C)   eh_proj of it: the block's input

  MtpInput(const Pass<Real>&, const Tensor<Real, 2>& x, const Sequence&);
};

/// Where the tokens go, and with what weight.
template <class Real>
struct Routing {
  Tensor<Index, 2> experts;  // (T, num_experts_per_tok)
  Tensor<Real, 2> weights;   // (T, num_experts_per_tok)
};

/// One block at work: what is the same for all of its ops.
template <class Real>
struct Block {
  const Pass<Real>& pass;
  const Config& config;
  const Layer& weights;
  std::string at;  // "model.layers.3."
  Index T;
  const Tensor<Real, 2>&cos, &sin;  // (T, P/2)
  Visibility visible;
  LayerCache<Real>& cache;

  Tensor<Real, 2> tapped(const std::string& name, Tensor<Real, 2> x) const {
    if (pass.tap.tensor) pass.tap.tensor(name, x);
    return x;
  }
  void decide(const std::string& name, const Tensor<Real, 2>& scores,
              Tensor<Index, 2>& chosen) const {
    pass.ops.topk_select(name, chosen, scores);
    if (pass.tap.decision) pass.tap.decision(name, scores, chosen);
  }
  Tensor<Real, 2> linear(const std::string& name, View<const Real, 2> x, const Linear& w) const {
    Tensor<Real, 2> y({x.shape[0], w.weight.rows()});
    pass.ops.linear(at + name, y, x, w);
    return tapped(at + name, std::move(y));
  }
  Tensor<Real, 2> rmsnorm(const std::string& name, const Tensor<Real, 2>& x, const Parameter& g,
                          double eps) const {
    Tensor<Real, 2> y(x.shape());
    pass.ops.rmsnorm(at + name, y, x, g, eps);
    return tapped(at + name, std::move(y));
  }
  Tensor<Real, 2> rotated(const std::string& name, Tensor<Real, 2> x, Index heads,
                          RopeLayout layout) const {
    pass.ops.rope(at + name, as<3>(x.view(), {T, heads, config.qk_rope_head_dim}), cos, sin,
                  layout);
    return tapped(at + name, std::move(x));
  }

  Tensor<Real, 2> index_rotated(const std::string& name, const Tensor<Real, 2>& x,
                                Index heads) const;
  Tensor<Index, 2> select(const Tensor<Real, 2>& x, const Tensor<Real, 2>& c_q) const;
  Tensor<Index, 2> all_visible() const;
  Tensor<Real, 2> attention(const Tensor<Real, 2>& x, bool computes_index,
                            Tensor<Index, 2>& chosen) const;

  Tensor<Real, 2> feed_forward(const std::string& name, const Tensor<Real, 2>& x,
                               const Mlp& w) const;
  Routing<Real> route(const Tensor<Real, 2>& x) const;
  Tensor<Real, 2> moe(const Tensor<Real, 2>& x) const;

  std::string name() const { return at.substr(0, at.size() - 1); }  // "model.layers.3"
  void attend(Tensor<Real, 2>& x, bool computes_index, Tensor<Index, 2>& chosen) const;
  void feed(Tensor<Real, 2>& x, bool is_moe) const;
  void run(Tensor<Real, 2>& x, bool computes_index, bool is_moe, Tensor<Index, 2>& chosen) const;
};

}  // namespace dsa::reference
