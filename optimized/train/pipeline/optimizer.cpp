#include "optimized/train/pipeline/optimizer.hpp"

#include <algorithm>
#include <cmath>

namespace dsa::train {
namespace {

constexpr Index block = 4096;  // numbers that are summed or updated by one thread, in one go

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

double square_of(const Leaf& x) {
  const Index blocks = (x.size() + block - 1) / block;
  std::vector<double> sums(static_cast<std::size_t>(blocks), 0);
#pragma omp parallel for schedule(static)
  for (Index b = 0; b < blocks; ++b) {
    double sum = 0;
    for (Index i = b * block; i < std::min((b + 1) * block, x.size()); ++i)
      sum += static_cast<double>(x.data()[i]) * static_cast<double>(x.data()[i]);
    sums[static_cast<std::size_t>(b)] = sum;
  }
  double sum = 0;
  for (const double one : sums) sum += one;
  return sum;
}

}  // namespace

void Optimizer::keep(const std::vector<Trained>& trained) {
  std::map<std::string, Moments> kept;
  for (const Trained& one : trained) {
    const auto at = moments_.find(one.name);
    const Shape<2> shape = one.value->shape();
    if (at != moments_.end() && at->second.m.shape() == shape)
      kept[one.name] = std::move(at->second);
    else
      kept[one.name] = {Leaf(shape), Leaf(shape), 0};
  }
  moments_ = std::move(kept);
}

double gradient_norm(const std::vector<Trained>& trained) {
  double sum = 0;
  for (const Trained& one : trained) sum += square_of(*one.gradient);
  return std::sqrt(sum);
}

double Optimizer::step(const std::vector<Trained>& trained, const AdamW& adamw, const Clip& clip,
                       double lr) {
  const double norm = gradient_norm(trained);
  if (!std::isfinite(norm)) return norm;
  const double factor = clip.max_norm == 0 ? 1 : std::min(1.0, clip.max_norm / (norm + clip.eps));
  for (const Trained& one : trained) {
    Moments& moments = moments_.at(one.name);
    const Step step = step_of(adamw, one, lr, factor, ++moments.steps);
    const Index n = one.value->size();
#pragma omp parallel for schedule(static)
    for (Index begin = 0; begin < n; begin += block)
      update(step, one.value->data(), moments.m.data(), moments.v.data(), one.gradient->data(),
             begin, std::min(begin + block, n));
  }
  return norm;
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
