#include "reference/model/backward.hpp"

#include <set>

#include "core/trace_names.hpp"
#include "reference/model/block_backward.hpp"

namespace dsa::reference {
namespace {

Site site_of(const Model& model, Index l) {
  const Config& c = model.config;
  const auto i = static_cast<std::size_t>(l);
  if (l < c.num_hidden_layers)
    return {model.weights.layers[i], in_layer(l, ""), c.indexer && c.indexer->computes[i],
            c.is_moe[i]};
  return {model.weights.mtp.front().block, in_layer(l, ""), c.indexer.has_value(),
          c.n_routed_experts > 0};
}

/// What the forward pass keeps: each layer's input, and the selection it reads.
template <class Real>
struct Checkpoint {
  Tensor<Real, 2> x;
  Tensor<Index, 2> chosen;
};

/// The losses that arise inside of a layer.
template <class Real>
void add_losses(Losses<Real>& losses, const Rerun<Real>& run, const Objective<Real>& objective) {
  if (run.site.computes_index && !objective.kl.empty()) {
    const KlSetup<Real> setup(run, AttentionParts<Real>(run), objective.semantics);
    losses.kl_layers.push_back(run.block.pass.ops.index_kl(
        run.site.at + "self_attn.indexer", setup.inputs(), objective.kl, objective.semantics));
  }
  if (run.site.is_moe && objective.balance != 0)
    losses.balance += run.block.pass.ops.balance_loss(
        run.site.at + "mlp.gate",
        {router_scores_of(run), run.decided("mlp.gate.experts"), run.sequence.documents},
        objective.balance);
}

/// Blocks [begin, end) over x in place.
template <class Real>
std::vector<Checkpoint<Real>> sweep(const Pass<Real>& pass, const Sequence& sequence,
                                    const Objective<Real>& objective, Tensor<Real, 2>& x,
                                    Index begin, Index end, Losses<Real>& losses) {
  const Angles<Real> angles(pass, sequence);
  std::vector<Checkpoint<Real>> kept;
  Tensor<Index, 2> chosen;
  for (Index l = begin; l < end; ++l) {
    const Site site = site_of(pass.model, l);
    require(!pass.model.config.indexer || site.computes_index || chosen.size() > 0,
            "layer " + std::to_string(l) +
                " shares the selection of an earlier layer, which is outside the span; begin at "
                "a layer that computes its own");
    kept.push_back({x, chosen});
    Rerun<Real> run(pass, site, sequence, angles, kept.back().x, chosen);
    chosen = run.chosen;
    x = run.mid;
    run.block.feed(x, site.is_moe);
    add_losses(losses, run, objective);
  }
  Real sum = 0;
  for (Real kl : losses.kl_layers) sum += kl;
  const bool mean = objective.semantics.layers == KlSemantics::Reduction::mean;
  if (!losses.kl_layers.empty())
    losses.kl = mean ? sum / static_cast<Real>(losses.kl_layers.size()) : sum;
  return kept;
}

template <class Real>
std::vector<Token> lm_targets(const Objective<Real>& objective, const Sequence& sequence) {
  return objective.lm_targets.empty() ? targets_of(sequence, 1) : objective.lm_targets;
}

template <class Real>
std::vector<Token> mtp_targets(const Objective<Real>& objective, const Sequence& sequence) {
  if (!objective.mtp_targets.empty()) return objective.mtp_targets;
  std::vector<Token> targets = targets_of(sequence, 2);
  targets.pop_back();
  return targets;
}

/// Objective and sequence fit each other and the model.
template <class Real>
void check_objective(const Pass<Real>& pass, const Sequence& sequence,
                     const Objective<Real>& objective) {
  const auto expect = [&](const auto& values, Index n, const char* what) {
    require(values.empty() || static_cast<Index>(values.size()) == n,
            "there are " + std::to_string(values.size()) + " " + what +
                ", expected one for each of " + std::to_string(n) + " rows");
  };
  expect(objective.lm, sequence.size(), "weights of the language-model loss");
  expect(objective.lm_targets, sequence.size(), "targets of the language-model loss");
  expect(objective.mtp, sequence.size() - 1, "weights of the multi-token-prediction loss");
  expect(objective.mtp_targets, sequence.size() - 1, "targets of the multi-token-prediction loss");
  expect(objective.kl, sequence.size(), "weights of the indexer's KL");
  require(objective.kl.empty() || pass.model.config.indexer,
          "the model has no indexer, so it has no indexer loss; ask for other losses");
}

/// One pass backwards over a whole model or a span of it.
template <class Real>
class Backward {
 public:
  explicit Backward(const BackwardPass<Real>& asked) : pass_(asked), sequence_(asked.sequence) {
    pass_.give = [this, give = asked.give](const std::string& name, View<const Real, 2> gradient) {
      given_.insert(name);
      give(name, gradient);
    };
  }

  /// Does anything flow from layer to layer? A detached KL ends in its layer.
  bool has_chain() const {
    const Objective<Real>& o = pass_.objective;
    return !o.lm.empty() || !o.mtp.empty() || o.balance != 0 ||
           (!o.kl.empty() && o.semantics.detach != KlSemantics::Detach::inputs);
  }

  void layers(const std::vector<Checkpoint<Real>>& kept, Index begin, Tensor<Real, 2>& d_x,
              bool chain) {
    const Angles<Real> angles(pass_.forward, sequence_);
    for (Index i = static_cast<Index>(kept.size()); i-- > 0;) {
      const Site site = site_of(pass_.forward.model, begin + i);
      if (!chain && (!site.computes_index || pass_.objective.kl.empty())) continue;
      const Checkpoint<Real>& from = kept[static_cast<std::size_t>(i)];
      const Rerun<Real> run(pass_.forward, site, sequence_, angles, from.x, from.chosen);
      const BlockBackward<Real> block{pass_, run};
      if (chain)
        block.layer(d_x);
      else
        block.kl_only();
    }
  }

  /// From the logits to the last block's output: y = lm_head( norm(x) ).
  struct Head {
    std::string norm, head;
    const Parameter& gain;
    const Linear& matrix;
    Tensor<Real, 2>& d_matrix;  // (V, C)  added to; made when the first loss reaches it
  };
  void head(const Head& at, Tensor<Real, 2>& d_x, const Tensor<Real, 2>& x,
            std::span<const Token> targets, std::span<const Real> weights) {
    const Pass<Real>& forward = pass_.forward;
    const Linear& w = at.matrix;
    const double eps = forward.model.config.rms_norm_eps;
    Tensor<Real, 2> h(x.shape()), d_h(x.shape()), z({x.shape()[0], w.weight.rows()}),
        d_z(z.shape());
    Tensor<Real, 1> d_g({x.shape()[1]});
    const auto told = [&](const std::string& name, Tensor<Real, 2>& value) {
      if (forward.tap.tensor) forward.tap.tensor(name, value);
    };
    forward.ops.rmsnorm(at.norm, h, x, at.gain, eps);
    told(at.norm, h);
    forward.ops.linear(at.head, z, h, w);
    told(at.head, z);
    pass_.ops.cross_entropy(at.head, d_z, z, targets, weights);
    if (pass_.tap) pass_.tap(at.head, d_z);
    if (at.d_matrix.size() == 0)
      at.d_matrix = Tensor<Real, 2>({w.weight.rows(), w.weight.columns()});
    pass_.ops.linear(at.head, d_h, {at.d_matrix, {}}, h, w, d_z);
    if (pass_.tap) pass_.tap(at.norm, d_h);
    pass_.ops.rmsnorm(at.norm, d_x, d_g, x, at.gain, d_h, eps);
    pass_.give(at.norm + ".weight", {d_g.data(), {d_g.size(), 1}});
  }

  void embedding(Tensor<Real, 2>& d_rows, std::span<const Token> tokens,
                 const Tensor<Real, 2>& d_x) {
    const Parameter& table = pass_.forward.model.weights.embed_tokens;
    if (d_rows.size() == 0) d_rows = Tensor<Real, 2>({table.rows(), table.columns()});
    pass_.ops.embed("model.embed_tokens", d_rows, tokens, d_x);
  }

  /// The prediction block: adds to d_x, the gradient of the last block's output.
  void mtp(Tensor<Real, 2>& d_x, const Tensor<Real, 2>& x) {
    const Pass<Real>& forward = pass_.forward;
    const Mtp& w = forward.model.weights.mtp.front();
    const double eps = forward.model.config.rms_norm_eps;
    const Index l = forward.model.config.num_hidden_layers, T = x.shape()[0] - 1, C = x.shape()[1];
    const std::string at = in_layer(l, "");
    const MtpInput<Real> input(forward, x, sequence_);
    const Angles<Real> angles(forward, input.now);
    const Rerun<Real> run(forward, site_of(forward.model, l), input.now, angles, input.y, {});
    Tensor<Real, 2> y = run.mid;
    run.block.feed(y, run.site.is_moe);

    Tensor<Real, 2> d_y(y.shape());
    Tensor<Real, 2> d_own_head, d_own_table;  // of a block that does not share the main model's
    head({at + "shared_head.norm", at + "shared_head.head", w.shared_head_norm, w.shared_head,
          w.owns_head ? d_own_head : d_head},
         d_y, y, mtp_targets(pass_.objective, sequence_), pass_.objective.mtp);
    if (w.owns_head) give(at + "shared_head.head.weight", d_own_head);
    Objective<Real> lm_only;  // no other loss is asked of this block
    const BackwardPass<Real> inner{forward, pass_.ops, input.now, lm_only, pass_.give, pass_.tap};
    const BlockBackward<Real> block{inner, run};
    block.layer(d_y);

    Tensor<Real, 2> d_both(input.both.shape()), d_e_norm({T, C}), d_h_norm({T, C}), d_e({T, C}),
        d_h({T, C});
    block.linear(pass_.ops.linear, "eh_proj", d_both, input.both, w.eh_proj, d_y);
    for (Index t = 0; t < T; ++t)
      for (Index c = 0; c < C; ++c)
        d_e_norm(t, c) = d_both(t, c), d_h_norm(t, c) = d_both(t, C + c);
    block.rmsnorm("enorm", d_e, input.e, w.enorm, eps, d_e_norm);
    block.rmsnorm("hnorm", d_h, input.h, w.hnorm, eps, d_h_norm);
    for (Index i = 0; i < d_h.size(); ++i) d_x.data()[i] += d_h.data()[i];
    embedding(w.owns_embedding ? d_own_table : d_table, input.next, d_e);
    if (w.owns_embedding) give(at + "embed_tokens.weight", d_own_table);
  }

  /// What no loss reached, as exact zeros; of parameters whose name begins with one of `prefixes`.
  void give_zeros(const std::vector<std::string>& prefixes) {
    const Model& model = pass_.forward.model;
    for_each_tensor(
        model.weights, model.config, [&](const std::string& name, const Parameter& p, const auto&) {
          const bool ours =
              std::any_of(prefixes.begin(), prefixes.end(),
                          [&](const std::string& prefix) { return name.starts_with(prefix); });
          if (!ours || given_.contains(name) || name.ends_with("e_score_correction_bias")) return;
          pass_.give(name, Tensor<Real, 2>({p.rows(), p.columns()}));
        });
  }

  void give(const std::string& name, const Tensor<Real, 2>& gradient) {
    pass_.give(name, gradient);
  }
  void traced(const std::string& name, Tensor<Real, 2>& d_output) const {
    if (pass_.tap) pass_.tap(name, d_output);
  }

  Tensor<Real, 2> d_head, d_table;  // (V, C); made when a loss reaches them

 private:
  BackwardPass<Real> pass_;
  const Sequence& sequence_;
  std::set<std::string> given_;
};

/// The forward pass of a whole model, and the losses of it.
template <class Real>
std::vector<Checkpoint<Real>> run_forward(const Pass<Real>& pass, const Sequence& sequence,
                                          const Objective<Real>& objective, Tensor<Real, 2>& x,
                                          Losses<Real>& losses) {
  check_objective(pass, sequence, objective);
  x = embed(pass, sequence);
  auto kept = sweep(pass, sequence, objective, x, 0, pass.model.config.num_hidden_layers, losses);
  if (!objective.lm.empty())
    losses.lm = pass.ops.cross_entropy("lm_head", logits(pass, x), lm_targets(objective, sequence),
                                       objective.lm);
  if (!objective.mtp.empty())
    losses.mtp = pass.ops.cross_entropy(
        in_layer(pass.model.config.num_hidden_layers, "shared_head.head"),
        mtp_logits(pass, x, sequence), mtp_targets(objective, sequence), objective.mtp);
  return kept;
}

}  // namespace

template <class Real>
Objective<Real> lm_objective(const Sequence& sequence) {
  Objective<Real> objective;
  objective.lm = mean_over_targets<Real>(targets_of(sequence, 1));
  return objective;
}

template <class Real>
Objective<Real> kl_objective(const Sequence& sequence, const KlSemantics& semantics) {
  Objective<Real> objective;
  objective.kl = kl_weights<Real>(semantics, sequence);
  objective.semantics = semantics;
  return objective;
}

Sequence join(const std::vector<Sequence>& sequences) {
  Sequence all;
  Index first = 0;
  for (Sequence next : sequences) {
    Index last = -1;
    for (Index& document : next.documents)
      if (document >= 0) {
        last = std::max(last, document);
        document += first;
      }
    first += last + 1;
    append(all, next);
  }
  return all;
}

template <class Real>
Losses<Real> losses(const Pass<Real>& pass, const Sequence& sequence,
                    const Objective<Real>& objective) {
  Losses<Real> found;
  Tensor<Real, 2> x;
  run_forward(pass, sequence, objective, x, found);
  return found;
}

template <class Real>
Losses<Real> backward(const BackwardPass<Real>& pass) {
  const Weights& w = pass.forward.model.weights;
  const Objective<Real>& objective = pass.objective;
  Losses<Real> found;
  Tensor<Real, 2> x;
  const auto kept = run_forward(pass.forward, pass.sequence, objective, x, found);

  Backward<Real> run(pass);
  const bool chain = run.has_chain();
  Tensor<Real, 2> d_x(x.shape());
  if (!objective.lm.empty())
    run.head({"model.norm", "lm_head", w.norm, w.lm_head, run.d_head}, d_x, x,
             lm_targets(objective, pass.sequence), objective.lm);
  if (!objective.mtp.empty()) run.mtp(d_x, x);
  const bool tied = pass.forward.model.config.tie_word_embeddings;
  if (run.d_head.size() > 0 && !tied) run.give("lm_head.weight", run.d_head);
  run.layers(kept, 0, d_x, chain);
  if (chain) {
    run.traced("model.embed_tokens", d_x);
    run.embedding(run.d_table, pass.sequence.tokens, d_x);
    if (tied && run.d_head.size() > 0) add<Real>(run.d_table, run.d_head);
    run.give("model.embed_tokens.weight", run.d_table);
  }
  run.give_zeros({""});
  return found;
}

template <class Real>
Losses<Real> backward_layers(const BackwardPass<Real>& pass, const Tensor<Real, 2>& x,
                             Tensor<Real, 2>& d_x, Index begin, Index end) {
  check_objective(pass.forward, pass.sequence, pass.objective);
  Losses<Real> found;
  Tensor<Real, 2> y = x;
  const auto kept = sweep(pass.forward, pass.sequence, pass.objective, y, begin, end, found);
  Backward<Real> run(pass);
  run.layers(kept, begin, d_x, true);
  std::vector<std::string> prefixes;
  for (Index l = begin; l < end; ++l) prefixes.push_back(in_layer(l, ""));
  run.give_zeros(prefixes);
  return found;
}

#define DSA_INSTANTIATE_FORWARD(Real)                                         \
  template Objective<Real> lm_objective(const Sequence&);                     \
  template Objective<Real> kl_objective(const Sequence&, const KlSemantics&); \
  template Losses<Real> losses(const Pass<Real>&, const Sequence&, const Objective<Real>&);
#define DSA_INSTANTIATE(Real)                                                              \
  DSA_INSTANTIATE_FORWARD(Real)                                                            \
  template Losses<Real> backward(const BackwardPass<Real>&);                               \
  template Losses<Real> backward_layers(const BackwardPass<Real>&, const Tensor<Real, 2>&, \
                                        Tensor<Real, 2>&, Index, Index);
DSA_INSTANTIATE(double)
DSA_INSTANTIATE(long double)
DSA_INSTANTIATE_FORWARD(Dual)

}  // namespace dsa::reference
