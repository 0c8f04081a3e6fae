#include "optimized/train/pipeline/optimizer.hpp"

#include <algorithm>
#include <cmath>

#include "core/threads.hpp"

namespace dsa::train {
namespace {

constexpr Index block = numbers_of_a_block;  // summed or updated by one thread, in one go

/// The factors of one step on one parameter.
struct Step {
  float clip = 1, lr = 0, decay = 0;
  float beta1 = 0, beta2 = 0, eps = 0;
  float correct_m = 1, correct_v = 1;
  bool eps_inside_root = false, decoupled = true;
};

/// reference/ops/adamw.hpp on numbers [begin, end).
void update(const Step& s, float* p, float* m, float* v, const float* gradient, Index begin,
            Index end) {
  for (Index i = begin; i < end; ++i) {
    float g = gradient[i] * s.clip;
    if (s.decoupled)
      p[i] -= s.lr * s.decay * p[i];
    else
      g += s.decay * p[i];
    m[i] = s.beta1 * m[i] + (1 - s.beta1) * g;
    v[i] = s.beta2 * v[i] + (1 - s.beta2) * g * g;
    const float second = v[i] / s.correct_v;
    const float root = s.eps_inside_root ? std::sqrt(second + s.eps) : std::sqrt(second) + s.eps;
    p[i] -= s.lr * (m[i] / s.correct_m) / root;
  }
}

Step step_of(const AdamW& a, const Trained& parameter, double lr, double clip, Index steps) {
  const auto n = static_cast<double>(steps);
  const bool decayed = parameter.is_matrix || a.decayed == AdamW::Decayed::all;
  Step s;
  s.clip = static_cast<float>(clip);
  s.lr = static_cast<float>(lr);
  s.decay = decayed ? static_cast<float>(a.weight_decay) : 0;
  s.beta1 = static_cast<float>(a.beta1);
  s.beta2 = static_cast<float>(a.beta2);
  s.eps = static_cast<float>(a.eps);
  if (a.bias_correction) {
    s.correct_m = static_cast<float>(1 - std::pow(a.beta1, n));
    s.correct_v = static_cast<float>(1 - std::pow(a.beta2, n));
  }
  s.eps_inside_root = a.eps_inside_root;
  s.decoupled = a.decoupled;
  return s;
}

double square_of(const float* x, Index n) {
  double sum = 0;
  for (Index i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return sum;
}

Index blocks_of(Index numbers) { return (numbers + block - 1) / block; }

}  // namespace

void Optimizer::keep(const std::vector<Trained>& trained) {
  std::map<std::string, Moments> kept;
  for (const Trained& one : trained) {
    const auto at = moments_.find(one.name);
    const Shape<2> shape = one.value->shape();
    if (at != moments_.end() && at->second.shape == shape) {
      kept[one.name] = std::move(at->second);
      continue;
    }
    const Share share = share_of(one.name, one.value->size(), ranks_.rank(), ranks_.size());
    const std::vector<float> zeros(static_cast<std::size_t>(share.size()), 0.0f);
    kept[one.name] = {shape, share, zeros, zeros, 0};
  }
  moments_ = std::move(kept);
}

/// Every rank has the sums of all blocks, from the rank whose they are, and adds them in order.
double Optimizer::norm_of(const std::vector<Trained>& trained, const GradientSum& gradient) const {
  const int n = ranks_.size();
  std::vector<std::vector<double>> sums;
  std::vector<ranks::In> pieces(static_cast<std::size_t>(n));
  for (std::size_t p = 0; p < trained.size(); ++p) {
    const Index size = trained[p].value->size();
    std::vector<double>& blocks = sums.emplace_back(static_cast<std::size_t>(blocks_of(size)), 0.0);
    for (int k = 0; k < n; ++k) {
      const Share share = share_of(trained[p].name, size, k, n);
      pieces[static_cast<std::size_t>(k)].push_back(
          ranks::room_of(blocks.data() + share.begin / block, blocks_of(share.size())));
    }
    const Share share = share_of(trained[p].name, size, ranks_.rank(), n);
    const Index first = share.begin / block;
    parallel_for(blocks_of(share.size()), block, [&](Index b) {
      const Index numbers = std::min(block, share.size() - b * block);
      blocks[static_cast<std::size_t>(first + b)] = square_of(gradient.of(p) + b * block, numbers);
    });
  }
  fill_pieces(ranks_, pieces);
  double square = 0;
  for (const std::vector<double>& blocks : sums) {
    double sum = 0;
    for (const double one : blocks) sum += one;
    square += sum;
  }
  return std::sqrt(square);
}

double Optimizer::step(const std::vector<Trained>& trained, const GradientSum& gradient,
                       const AdamW& adamw, const Clip& clip, double lr) {
  const double norm = norm_of(trained, gradient);
  if (!std::isfinite(norm)) return norm;
  const double factor = clip.max_norm == 0 ? 1 : std::min(1.0, clip.max_norm / (norm + clip.eps));
  for (std::size_t p = 0; p < trained.size(); ++p) {
    const Trained& one = trained[p];
    Moments& moments = moments_.at(one.name);
    const Step step = step_of(adamw, one, lr, factor, ++moments.steps);
    const Index n = moments.share.size();
    float* const values = one.value->data() + moments.share.begin;
    parallel_for(blocks_of(n), 2 * block, [&](Index b) {
      update(step, values, moments.m.data(), moments.v.data(), gradient.of(p), b * block,
             std::min((b + 1) * block, n));
    });
  }
  share_values(trained);
  return norm;
}

/// Every rank gets the shares of the others.
void Optimizer::share_values(const std::vector<Trained>& trained) const {
  std::vector<ranks::In> pieces;
  for (int k = 0; k < ranks_.size(); ++k) pieces.push_back(values_of(trained, k, ranks_.size()));
  fill_pieces(ranks_, pieces);
}

std::vector<float> Optimizer::whole(const std::string& name,
                                    std::vector<float> Moments::*which) const {
  const Moments& moments = moments_.at(name);
  const std::vector<float>& own = moments.*which;
  const auto n = static_cast<std::size_t>(ranks_.size());
  std::vector<ranks::Out> out(n);
  std::vector<ranks::In> in(n);
  out[0] = {std::as_bytes(std::span(own))};
  std::vector<float> all;
  if (ranks_.is_first()) {
    const Index size = volume<2>(moments.shape);
    all.resize(static_cast<std::size_t>(size));
    for (int k = 0; k < ranks_.size(); ++k) {
      const Share share = share_of(name, size, k, ranks_.size());
      in[static_cast<std::size_t>(k)] = {ranks::room_of(all.data() + share.begin, share.size())};
    }
  }
  ranks_.exchange(out, in);
  return all;
}

void set_to_zero(Leaf& x) { std::fill(x.begin(), x.end(), 0.0f); }

void update_router_biases(Parameters& parameters, const Config& config,
                          const std::vector<std::vector<Index>>& load, double rate) {
  if (rate == 0 || !config.router.has_correction_bias) return;
  std::size_t layer_of_experts = 0;
  const auto update_layer = [&](LayerOf<Leaf>& layer) {
    if (layer_of_experts >= load.size()) return;
    const std::vector<Index>& tokens = load[layer_of_experts++];
    Index sum = 0;
    for (const Index n : tokens) sum += n;
    const double mean = static_cast<double>(sum) / static_cast<double>(tokens.size());
    for (std::size_t e = 0; e < tokens.size(); ++e) {
      const double behind = mean - static_cast<double>(tokens[e]);
      const double sign = behind > 0 ? 1 : behind < 0 ? -1 : 0;
      layer.moe.e_score_correction_bias.data()[e] += static_cast<float>(rate * sign);
    }
  };
  for (std::size_t l = 0; l < parameters.layers.size(); ++l)
    if (config.is_moe[l]) update_layer(parameters.layers[l]);
  for (auto& mtp : parameters.mtp)
    if (!mtp.block.moe.experts.empty()) update_layer(mtp.block);
}

}  // namespace dsa::train
