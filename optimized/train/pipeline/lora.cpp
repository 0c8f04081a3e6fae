#include "optimized/train/pipeline/lora.hpp"

#include <algorithm>
#include <cmath>

#include "core/patterns.hpp"
#include "core/random.hpp"
#include "core/threads.hpp"

namespace dsa::train {
namespace {

/// As peft draws A: uniform in (-1, 1) / sqrt(in).
void draw(Leaf& a, std::uint64_t seed) {
  const double most = 1 / std::sqrt(static_cast<double>(a.shape()[1]));
  for (Index i = 0; i < a.size(); ++i)
    a.data()[i] = static_cast<float>(most * (2 * uniform(seed, static_cast<std::uint64_t>(i)) - 1));
}

/// Every target must match a matrix that learns.
void check_targets(const Stage& stage, const std::vector<Trained>& matrices, const Config& config) {
  for (const std::string& target : stage.lora.targets) {
    std::string without_gradient;
    bool learns = false;
    for (const Trained& one : matrices) {
      if (!any_matches({target}, one.name)) continue;
      if (gets_gradient(one.name, stage, config))
        learns = true;
      else
        without_gradient = one.name;
    }
    const std::string what =
        "stage " + stage.name + ": lora_targets has " + in_quotes(target) + ", ";
    require(learns || without_gradient.empty(),
            what + "but " + without_gradient +
                " gets no gradient in this stage: the indexer learns by stage.kl alone, "
                "everything else by stage.lm, a prediction block by stage.mtp");
    require(learns, what + "which matches no matrix of the model");
  }
}

}  // namespace

Adapters::Adapters(const Stage& stage, TrainedModel& model, std::uint64_t seed)
    : lora_(stage.lora) {
  std::vector<Trained> matrices = parameters_of(model);
  std::erase_if(matrices, [](const Trained& one) { return !one.is_matrix; });
  check_targets(stage, matrices, model.config());
  for (const Trained& one : matrices) {
    if (!any_matches(lora_.targets, one.name) || !gets_gradient(one.name, stage, model.config()))
      continue;
    const auto [out, in] = one.value->shape();
    Adapter adapter{one.name,
                    Leaf({lora_.r, in}),
                    Leaf({out, lora_.r}),
                    Leaf({lora_.r, in}),
                    Leaf({out, lora_.r}),
                    *one.value,
                    one.value,
                    one.gradient};
    draw(adapter.a, seed_of(one.name, seed));
    adapters_.push_back(std::move(adapter));
  }
}

bool Adapters::on(const std::string& parameter) const {
  return std::any_of(adapters_.begin(), adapters_.end(),
                     [&](const Adapter& adapter) { return adapter.name == parameter; });
}

void Adapters::apply() {
  const auto scale = static_cast<float>(lora_.alpha / static_cast<double>(lora_.r));
  for (Adapter& x : adapters_) {
    const Index O = x.base.shape()[0], I = x.base.shape()[1];
    parallel_for(O, lora_.r * I / 8 + 1, [&](Index o) {
      float* row = x.matrix->data() + o * I;
      std::copy_n(x.base.data() + o * I, I, row);
      for (Index r = 0; r < lora_.r; ++r) {
        const float factor = scale * x.b(o, r);
        const float* a = x.a.data() + r * I;
        for (Index i = 0; i < I; ++i) row[i] += factor * a[i];
      }
    });
  }
}

void Adapters::project() {
  const auto scale = static_cast<float>(lora_.alpha / static_cast<double>(lora_.r));
  for (Adapter& x : adapters_) {
    const Index O = x.base.shape()[0], I = x.base.shape()[1];
    parallel_for(O, lora_.r * I, [&](Index o) {
      for (Index r = 0; r < lora_.r; ++r) {
        float sum = 0;
        for (Index i = 0; i < I; ++i) sum += x.gradient->data()[o * I + i] * x.a(r, i);
        x.d_b(o, r) = scale * sum;
      }
    });
    parallel_for(lora_.r, O * I / 8 + 1, [&](Index r) {
      float* row = x.d_a.data() + r * I;
      std::fill_n(row, I, 0.0f);
      for (Index o = 0; o < O; ++o) {
        const float factor = scale * x.b(o, r);
        const float* g = x.gradient->data() + o * I;
        for (Index i = 0; i < I; ++i) row[i] += factor * g[i];
      }
    });
  }
}

void Adapters::restore() {
  for (Adapter& x : adapters_) std::copy(x.base.begin(), x.base.end(), x.matrix->begin());
}

std::vector<Trained> Adapters::trained() {
  std::vector<Trained> all;
  for (Adapter& x : adapters_) {
    all.push_back({x.name + ".lora_A", &x.a, &x.d_a, true});
    all.push_back({x.name + ".lora_B", &x.b, &x.d_b, true});
  }
  return all;
}

}  // namespace dsa::train
