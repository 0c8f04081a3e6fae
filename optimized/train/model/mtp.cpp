// The first multi-token-prediction block: row t, made of the last layer's x[t] and token t+1,
// predicts token t+2. Definition: reference/model/{forward,backward}.cpp.
#include <algorithm>

#include "core/views.hpp"
#include "optimized/cpu/ops/embed.hpp"
#include "optimized/train/model/impl.hpp"

namespace dsa::train {
namespace {

/// The row's target has the weight that it has as the next row's.
void prediction_targets(Targets& targets, const Batch& batch) {
  targets.clear();
  for (Index t = 0; t + 2 < batch.rows(); ++t) {
    const auto i = static_cast<std::size_t>(t);
    const float weight = batch.target_weight[i + 1];
    if (weight != 0 && batch.has_next(t)) targets.add(t, batch.tokens[i + 2], weight);
  }
}

/// The first T rows, of which a decision's are fewer.
Kept of_rows(Kept kept, Index T) {
  kept.x = rows(kept.x, 0, T);
  kept.mid = rows(kept.mid, 0, T);
  kept.heads = rows(kept.heads, 0, T);
  kept.lse = rows(kept.lse, 0, T);
  if (kept.chosen.data) kept.chosen = rows(kept.chosen, 0, T);
  if (kept.experts.data) kept.experts = rows(kept.experts, 0, T);
  if (kept.mixing.data) kept.mixing = rows(kept.mixing, 0, T);
  return kept;
}

MtpBuffers of_rows(MtpBuffers b, Index T) {
  for (View<float, 2>* x : {&b.e, &b.d_e, &b.both, &b.d_both, &b.part, &b.y, &b.z, &b.d_z})
    *x = rows(*x, 0, T);
  return b;
}

}  // namespace

bool TrainedModel::Impl::mtp_learns() const {
  bool learns = false;
  const std::string at = "model.layers." + std::to_string(config.num_hidden_layers) + ".";
  for_each_tensor(slots_, config, [&](const std::string& name, const Slot& slot, const auto&) {
    learns |= slot.wanted && name.starts_with(at);
  });
  const auto& mtp = slots_.mtp.front();
  return learns || mtp.embed_tokens.wanted || mtp.shared_head.weight.wanted;
}

/// y = eh_proj [ norm(embedding of the next token) | norm(x) ]
void TrainedModel::Impl::mtp_input(const Pass& pass, const MtpBuffers& b,
                                   View<const std::int32_t, 1> next) {
  const auto& w = slots_.mtp.front();
  const double eps = config.rms_norm_eps;
  const Index C = config.hidden_size;
  cpu::embed<float, float>(pass.cpu, b.e, w.embed_tokens.value, next);
  rmsnorm(pass, b.part, b.e, w.enorm, eps);
  copy_columns(b.both, 0, b.part, 0, C);
  rmsnorm(pass, b.part, rows(buffers_->x, 0, pass.rows()), w.hnorm, eps);
  copy_columns(b.both, C, b.part, 0, C);
  linear(pass, b.y, b.both, w.eh_proj);
}

/// From b.d_z, the gradient of the block's output, to the gradient of x, which is added to.
void TrainedModel::Impl::mtp_backward(const Pass& pass, const MtpBuffers& b, const Block& block,
                                      View<const std::int32_t, 1> next) {
  const auto& w = slots_.mtp.front();
  const double eps = config.rms_norm_eps;
  const Index C = config.hidden_size, T = pass.rows();
  block.backward(b.d_z, b.y);
  linear_backward(pass, b.d_both, b.both, w.eh_proj, b.d_z);
  copy_columns(b.part, 0, b.d_both, 0, C);
  rmsnorm_backward(pass, b.d_e, b.e, w.enorm, eps, b.part);
  if (w.embed_tokens.wanted) cpu::embed_backward(pass.cpu, w.embed_tokens.gradient, next, b.d_e);
  copy_columns(b.part, 0, b.d_both, C, C);
  rmsnorm_backward(pass, rows(buffers_->d_x, 0, T), rows(buffers_->x, 0, T), w.hnorm, eps, b.part,
                   true);
}

void TrainedModel::Impl::mtp_loss(const Pass& whole, const Batch& batch, const Reach& reach,
                                  Losses& losses) {
  if (whole.objective.mtp == 0) return;
  require(!slots_.mtp.empty(),
          "the checkpoint holds no multi-token-prediction block, so it has no loss of it; leave "
          "the coefficient at 0");
  const Index T = whole.rows() - 1;
  require(T > 0, "multi-token prediction needs at least 2 tokens");
  Objective own;  // no other loss is asked of this block
  own.attention = whole.objective.attention;
  of_mtp_.begin(T);
  const Pass pass{cpu_,
                  config,
                  own,
                  memory_,
                  of_mtp_,
                  {whole.begin.data, {T}},
                  rows(whole.cos, 0, T),
                  rows(whole.sin, 0, T),
                  {whole.kl_weight.data, {T}}};
  const MtpBuffers b = of_rows(buffers_->mtp, T);
  Pieces pieces = buffers_->activations_at;
  const Activations activations(pieces, config, {T, T, 1});
  const Kept kept = of_rows(buffers_->kept.back(), T);
  const View<const std::int32_t, 1> next{buffers_->tokens.data + 1, {T}};
  const auto& w = slots_.mtp.front();
  const Block block{pass,
                    w.block,
                    activations,
                    kept,
                    kept.chosen,
                    config.indexer.has_value(),
                    config.n_routed_experts > 0,
                    expert_begin_};
  mtp_input(pass, b, next);
  block.attend(b.y);
  block.feed(b.z);
  if (block.is_moe) count_load(kept, losses);
  const bool back = reach.lowest < config.num_hidden_layers || mtp_learns();
  fill_zero(b.d_z);
  prediction_targets(targets_, batch);
  losses.mtp = head_loss(pass, buffers_->head, {w.shared_head_norm, w.shared_head}, targets_, b.z,
                         back ? whole.objective.mtp : 0, b.d_z);
  losses.mtp_weight = targets_.total_weight();
  if (back) mtp_backward(pass, b, block, next);
}

}  // namespace dsa::train
