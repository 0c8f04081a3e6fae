#include "core/views.hpp"
#include "optimized/cpu/ops/norms.hpp"
#include "optimized/cpu/ops/norms_backward.hpp"
#include "optimized/cpu/ops/quantise.hpp"
#include "optimized/cpu/ops/rope.hpp"
#include "optimized/train/model/block.hpp"

namespace dsa::train {
namespace {

bool from_latent(const Indexer& indexer) {
  return indexer.query_source == Indexer::QuerySource::q_latent;
}
bool has_projected_weights(const Indexer& indexer) {
  return indexer.head_weights == Indexer::HeadWeights::projected;
}

}  // namespace

/// The rotary channels of each of the indexer's heads lie before or behind the rest.
void Block::rotate_index(View<float, 3> x, bool back) const {
  const Indexer& i = *pass.config.indexer;
  const Index first = i.rope_first ? 0 : i.head_dim - pass.config.qk_rope_head_dim;
  const auto turn = back ? cpu::rope_backward : cpu::rope;
  turn(pass.cpu, x, pass.cos, pass.sin, first, i.rope_layout);
}

void Block::index_norm() const {
  const Indexer& i = *pass.config.indexer;
  switch (i.key_norm) {
    case Indexer::KeyNorm::layer_norm:
      return cpu::layernorm<float>(pass.cpu, a.k_index, a.k_raw, w.indexer.k_norm.vector(),
                                   w.indexer.k_norm_bias.vector(), i.key_norm_eps);
    case Indexer::KeyNorm::rms_norm:
      return rmsnorm(pass, a.k_index, a.k_raw, w.indexer.k_norm, i.key_norm_eps);
    case Indexer::KeyNorm::none:
      return copy(a.k_index, a.k_raw);
  }
}

void Block::index_norm_backward() const {
  const Indexer& i = *pass.config.indexer;
  const Slot &gain = w.indexer.k_norm, &bias = w.indexer.k_norm_bias;
  switch (i.key_norm) {
    case Indexer::KeyNorm::layer_norm:
      return cpu::layernorm_backward(
          pass.cpu, a.d_k_raw, gain.wanted_vector(), bias.wanted_vector(),
          {a.k_raw, gain.vector(), a.d_k_index, i.key_norm_eps}, false, pass.memory);
    case Indexer::KeyNorm::rms_norm:
      return rmsnorm_backward(pass, a.d_k_raw, a.k_raw, gain, i.key_norm_eps, a.d_k_index);
    case Indexer::KeyNorm::none:
      return copy(a.d_k_raw, a.d_k_index);
  }
}

/// Section 3 of the V3.2 report: what the scores are made of.
void Block::index_projections() const {
  const Indexer& i = *pass.config.indexer;
  linear(pass, flat(a.q_index), from_latent(i) ? a.c_q : a.h, w.indexer.wq_b);
  rotate_index(a.q_index, false);
  linear(pass, a.k_raw, a.h, w.indexer.wk);
  index_norm();
  rotate_index(as<3>(a.k_index, {rows(), 1, i.head_dim}), false);
  if (has_projected_weights(i)) linear(pass, a.head_weights, a.h, w.indexer.weights_proj);
  round_index(as<2>(a.q_index, {rows() * i.n_heads, i.head_dim}));
  round_index(a.k_index);
  put_own(a.all_k_index, a.k_index);
  pass.context.gather({a.all_k_index});
}

void Block::round_index(View<float, 2> x) const {
  switch (pass.objective.index_format) {
    case IndexFormat::exact:
      return;
    case IndexFormat::bf16:
      return cpu::through_bf16(x);
    case IndexFormat::e4m3:
      return cpu::through_e4m3(pass.cpu, x, true, false);
    case IndexFormat::e4m3_ue8m0:
      return cpu::through_e4m3(pass.cpu, x, true, true);
    case IndexFormat::e4m3_unrotated:
      return cpu::through_e4m3(pass.cpu, x, false, false);
  }
}

cpu::IndexIn Block::index_in(const Run& run) const {
  const Indexer& i = *pass.config.indexer;
  return {own(a.q_index, run),
          seen(a.all_k_index, run),
          own(a.head_weights, run),
          seen(pass.begin, run),
          i.dot_scale,
          i.weight_scale,
          i.activation == Indexer::Activation::relu};
}

bool Block::indexer_learns() const {
  const auto& i = w.indexer;
  return i.wq_b.weight.wanted || i.wk.weight.wanted || i.k_norm.wanted || i.k_norm_bias.wanted ||
         i.weights_proj.weight.wanted;
}

double Block::indexer_loss(bool through) const {
  const bool learns = indexer_learns() || (through && !pass.kl_ends());
  const KlSemantics& semantics = pass.objective.semantics;
  const View<const float, 2> lse = lse_over(semantics.teacher_softmax);
  for_runs_back([&](const Run& run, bool is_last) {
    const View<float, 2> d_k = is_last ? a.d_all_k_index : a.d_k_index_of_run;
    cpu::KlOut out{own(a.row_loss, run), {}};
    if (learns) out.gradient = {own(a.d_q_index, run), seen(d_k, run), own(a.d_head_weights, run)};
    cpu::index_kl(
        pass.cpu, out,
        {index_in(run), teacher(lse, run), own(chosen, run), own(pass.kl_weight, run), semantics},
        pass.memory);
    if (learns) join_run(a.d_all_k_index, d_k, run, is_last);
  });
  if (learns) {
    pass.context.add_up({a.d_all_k_index});
    take_own(a.d_k_index, a.d_all_k_index);
    indexer_backward(through);
  }
  double loss = 0;
  for (const double of_row : a.row_loss) loss += of_row;
  return loss;
}

/// From the gradients of what scores are made of to the indexer's parameters; and to its inputs, as
/// far as they are not constants of this reading of the loss.
void Block::indexer_backward(bool through) const {
  using Detach = KlSemantics::Detach;
  const Indexer& i = *pass.config.indexer;
  const Detach detach = pass.objective.semantics.detach;
  const View<float, 2> none, d_h = through && detach != Detach::inputs ? a.d_h : none,
                             d_c_q = through && detach == Detach::nothing ? a.d_c_q : none;
  rotate_index(a.d_q_index, true);
  const View<const float, 2> d_q = flat<const float>(a.d_q_index);
  if (from_latent(i))
    linear_backward(pass, d_c_q, a.c_q, w.indexer.wq_b, d_q, true);
  else
    linear_backward(pass, d_h, a.h, w.indexer.wq_b, d_q, true);
  rotate_index(as<3>(a.d_k_index, {rows(), 1, i.head_dim}), true);
  index_norm_backward();
  linear_backward(pass, d_h, a.h, w.indexer.wk, a.d_k_raw, true);
  if (has_projected_weights(i))
    linear_backward(pass, d_h, a.h, w.indexer.weights_proj, a.d_head_weights, true);
}

}  // namespace dsa::train
