#include "optimized/train/model.hpp"

#include <algorithm>

#include "optimized/cpu/ops/embed.hpp"
#include "optimized/cpu/ops/index_recall.hpp"
#include "optimized/shared/memory.hpp"
#include "optimized/shared/rope_table.hpp"
#include "optimized/train/model/impl.hpp"

namespace dsa::train {
namespace {

/// The layer that a parameter belongs to: -1 the embedding, L the final norm, head and prediction
/// blocks.
Index layer_of(const std::string& name, Index L) {
  const std::string at = "model.layers.";
  if (name == "model.embed_tokens.weight") return -1;
  if (!name.starts_with(at)) return L;
  return std::min(static_cast<Index>(std::stoll(name.substr(at.size()))), L);
}

bool of_indexer(const std::string& name) { return name.find(".indexer.") != std::string::npos; }

}  // namespace

TrainedModel::Impl::Impl(const Model& checkpoint, Compute compute)
    : config(checkpoint.config),
      parameters(read_parameters(checkpoint)),
      gradients(zeros_like(parameters, config)),
      slots_(slots_over(config, parameters, gradients,
                        compute == Compute::fp32 ? Dtype::f32 : Dtype::bf16)),
      expert_begin_(static_cast<std::size_t>(config.n_routed_experts + 1)) {
  require(!config.indexer || config.indexer->unit == Indexer::Unit::token,
          "the model's indexer selects blocks of keys, and only selections of single keys are "
          "trained here");
}

void TrainedModel::Impl::refresh() { stale_[0] = stale_[1] = true; }

void TrainedModel::Impl::pack_if_stale(bool turned) {
  if (!stale_[turned]) return;
  pack_slots(cpu_, config, slots_, turned);
  stale_[turned] = false;
}

void TrainedModel::Impl::check_batch(const Batch& batch) const {
  const auto T = static_cast<std::size_t>(batch.rows());
  require(T > 0, "a batch has no rows, expected at least one token");
  const auto expect = [&](const char* what, std::size_t n) {
    require(n == T, "a batch has " + std::to_string(n) + " " + what +
                        ", expected one for each of " + std::to_string(T) + " tokens");
  };
  expect("positions", batch.positions.size());
  expect("first rows of documents", batch.begin.size());
  expect("weights of targets", batch.target_weight.size());
  for (Index t = 0; t < batch.rows(); ++t)
    require(batch.target_weight[static_cast<std::size_t>(t)] == 0 || batch.has_next(t),
            "row " + std::to_string(t) +
                " of a batch ends its document and has a target with a weight, expected weight 0");
}

/// Buffers for so many rows: in the memory of the largest batch so far.
void TrainedModel::Impl::prepare(Rows rows) {
  const bool has_mtp = !parameters.mtp.empty();
  Pieces count;
  Buffers(count, config, rows, has_mtp);
  if (count.bytes() > buffers_bytes_) {
    buffers_bytes_ = count.bytes();
    buffers_memory_ =
        allocate(buffers_bytes_, "training on " + std::to_string(rows.own) + " tokens");
  }
  Pieces pieces(buffers_memory_.get());
  buffers_.emplace(pieces, config, rows, has_mtp);
}

Pass TrainedModel::Impl::begin(const Batch& batch, const Objective& objective, Context& context) {
  check_batch(batch);
  context.begin(batch.rows());
  prepare({batch.rows(), context.rows(), static_cast<Index>(context.runs().size())});
  pack_if_stale(false);
  Buffers& b = *buffers_;
  std::vector<Index> positions;
  for (const Run& run : context.runs()) {
    std::copy_n(batch.tokens.begin() + run.begin, run.size(), b.tokens.begin() + run.at);
    positions.insert(positions.end(), batch.positions.begin() + run.begin,
                     batch.positions.begin() + run.end);
  }
  std::copy(batch.begin.begin(), batch.begin.end(), b.begin.begin());
  std::fill(b.kl_weight.begin(), b.kl_weight.end(), static_cast<float>(objective.kl));
  rope_table(b.cos, b.sin, positions, config.rope);
  return {cpu_, config, objective, memory_, context, b.begin, b.cos, b.sin, b.kl_weight};
}

Block TrainedModel::Impl::block(const Pass& pass, Index l) {
  const auto i = static_cast<std::size_t>(l);
  const auto& kept = buffers_->kept;
  const bool computes = config.indexer && config.indexer->computes[i];
  std::size_t source = i;  // of the selection
  while (source > 0 && config.indexer && !config.indexer->computes[source]) --source;
  return {pass,     slots_.layers[i], buffers_->activations, kept[i], kept[source].chosen,
          computes, config.is_moe[i], expert_begin_};
}

void TrainedModel::Impl::forward(const Pass& pass,
                                 const std::function<void(const Block&, Index l)>& after_attention,
                                 const std::function<void(const Block&)>& after_layer) {
  const Index L = config.num_hidden_layers;
  Buffers& b = *buffers_;
  cpu::embed<float, float>(pass.cpu, b.kept[0].x, slots_.embed_tokens.value, b.tokens);
  for (Index l = 0; l < L; ++l) {
    const auto i = static_cast<std::size_t>(l);
    const Block at = block(pass, l);
    at.attend(b.kept[i].x);
    after_attention(at, l);
    at.feed(l + 1 < L ? b.kept[i + 1].x : b.x);
    after_layer(at);
  }
}

void TrainedModel::Impl::count_load(const Kept& kept, Losses& losses) const {
  std::vector<Index> load(static_cast<std::size_t>(config.n_routed_experts));
  for (const std::int32_t e : kept.experts) ++load[static_cast<std::size_t>(e)];
  losses.load.push_back(std::move(load));
}

Losses TrainedModel::Impl::forward_losses(const Pass& pass, const Reach& reach) {
  Losses losses;
  if (pass.has_kl()) losses.kl_rows = pass.rows();
  forward(
      pass,
      [&](const Block& at, Index l) {
        if (!at.computes_index || !pass.has_kl()) return;
        const bool later = reach.visits(l) && !pass.kl_ends();
        losses.kl.push_back(later ? 0 : at.indexer_loss(false));
      },
      [&](const Block& at) {
        if (!at.is_moe) return;
        count_load(at.kept, losses);
        if (pass.objective.balance != 0) losses.balance += at.balance();
      });
  return losses;
}

TrainedModel::Impl::Reach TrainedModel::Impl::reach(const Objective& o) const {
  const Index L = config.num_hidden_layers;
  const bool kl_flows =
      config.indexer && o.kl != 0 && o.semantics.detach != KlSemantics::Detach::inputs;
  const bool chain = o.lm != 0 || o.mtp != 0 || o.balance != 0 || kl_flows;
  Reach reach{false, L};
  for_each_tensor(slots_, config, [&](const std::string& name, const Slot& slot, const auto&) {
    if (!slot.wanted || !chain || (of_indexer(name) && !kl_flows)) return;
    reach.head = true;
    reach.lowest = std::min(reach.lowest, layer_of(name, L));
  });
  return reach;
}

void TrainedModel::Impl::language_loss(const Pass& pass, const Batch& batch, const Reach& reach,
                                       Losses& losses) {
  if (pass.objective.lm == 0) return;
  targets_.clear();
  for (const Run& run : pass.context.runs())
    for (Index t = run.begin; t < run.end; ++t) {
      const auto i = static_cast<std::size_t>(t);
      if (batch.target_weight[i] != 0)
        targets_.add(run.at + t - run.begin, batch.tokens[i + 1], batch.target_weight[i]);
    }
  const View<float, 2> d_x =
      reach.lowest < config.num_hidden_layers ? buffers_->d_x : View<float, 2>{};
  losses.lm = head_loss(pass, buffers_->head, {slots_.norm, slots_.lm_head}, targets_, buffers_->x,
                        reach.head ? pass.objective.lm : 0, d_x);
  losses.lm_weight = targets_.total_weight();
}

void TrainedModel::Impl::backward(const Pass& pass, const Reach& reach, Losses& losses) {
  auto kl = losses.kl.rbegin();
  for (Index l = config.num_hidden_layers; l-- > 0 && reach.visits(l);) {
    const Block at = block(pass, l);
    const View<const float, 2> x = at.kept.x;
    at.attend_again(x);
    const double loss = at.backward(buffers_->d_x, x);
    if (at.computes_index && pass.has_kl() && !pass.kl_ends()) *kl++ = loss;
  }
  if (slots_.embed_tokens.wanted)
    cpu::embed_backward(pass.cpu, slots_.embed_tokens.gradient, buffers_->tokens, buffers_->d_x);
}

Losses TrainedModel::Impl::run(const Batch& batch, const Objective& objective,
                               const std::function<bool(const std::string&)>& trained,
                               Context* divided) {
  Context& context = divided ? *divided : alone_;
  require(!context.is_divided() || (objective.mtp == 0 && objective.balance == 0 &&
                                    objective.selector == Selector::indexer),
          "ranks that hold a micro-batch together have no loss of multi-token prediction and no "
          "balance loss; leave mtp and balance at 0, or run.context_ranks at 1");
  check(objective.semantics);
  require(objective.kl == 0 || config.indexer,
          "the model has no indexer, so it has no indexer loss; ask for other losses");
  require(
      objective.index_format == IndexFormat::exact || objective.kl == 0,
      "the indexer's loss was asked for with rounded q and k, which have no gradient; train with "
      "IndexFormat::exact");
  want(config, slots_, trained);
  const Pass pass = begin(batch, objective, context);
  const Reach reach = this->reach(objective);
  if (reach.head || pass.has_kl()) pack_if_stale(true);
  Losses losses = forward_losses(pass, reach);
  fill_zero(buffers_->d_x);
  language_loss(pass, batch, reach, losses);
  mtp_loss(pass, batch, reach, losses);
  if (reach.lowest < config.num_hidden_layers) backward(pass, reach, losses);
  return losses;
}

Tensor<float, 2> TrainedModel::Impl::logits(const Batch& batch, Recipe::Attention attention,
                                            Selector selector, IndexFormat format) {
  Objective objective;
  objective.attention = attention;
  objective.selector = selector;
  objective.index_format = format;
  const Pass pass = begin(batch, objective, alone_);
  forward(
      pass, [](const Block&, Index) {}, [](const Block&) {});
  Tensor<float, 2> logits({batch.rows(), config.vocab_size});
  head_logits(pass, buffers_->head, {slots_.norm, slots_.lm_head}, logits, buffers_->x);
  return logits;
}

std::vector<Recall> TrainedModel::Impl::recall(const Batch& batch, Index K, IndexFormat format) {
  require(config.indexer.has_value(), "the model has no indexer, whose recall could be measured");
  Objective objective;
  objective.index_format = format;
  Pass pass = begin(batch, objective, alone_);
  pass.for_recall = true;
  std::vector<Recall> all;
  forward(
      pass,
      [&](const Block& at, Index) {
        if (!at.computes_index) return;
        const Run& whole = pass.context.runs().front();
        all.push_back(cpu::index_recall(pass.cpu, at.index_in(whole),
                                        at.teacher(at.kept.lse, whole),
                                        K > 0 ? K : config.indexer->topk, pass.memory));
      },
      [](const Block&) {});
  return all;
}

TrainedModel::TrainedModel(const Model& checkpoint, Compute compute)
    : impl_(std::make_unique<Impl>(checkpoint, compute)) {}
TrainedModel::~TrainedModel() = default;

const Config& TrainedModel::config() const { return impl_->config; }
Parameters& TrainedModel::parameters() { return impl_->parameters; }
Parameters& TrainedModel::gradients() { return impl_->gradients; }
void TrainedModel::refresh() { impl_->refresh(); }
Losses TrainedModel::run(const Batch& batch, const Objective& objective,
                         const std::function<bool(const std::string&)>& trained, Context* context) {
  return impl_->run(batch, objective, trained, context);
}
Tensor<float, 2> TrainedModel::logits(const Batch& batch, Recipe::Attention attention,
                                      Selector selector, IndexFormat format) {
  return impl_->logits(batch, attention, selector, format);
}
std::vector<Recall> TrainedModel::recall(const Batch& batch, Index K, IndexFormat format) {
  return impl_->recall(batch, K, format);
}

}  // namespace dsa::train
