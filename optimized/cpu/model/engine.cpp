#include "optimized/cpu/model/engine.hpp"

#include <algorithm>

#include "core/threads.hpp"
#include "optimized/cpu/model/forward.hpp"
#include "optimized/shared/memory.hpp"

namespace dsa::cpu {
namespace {

/// The options, resolved for this machine.
struct Settings {
  Format format;
  Cpu cpu;
  MlaForm mla = MlaForm::automatic;
  int threads;

  explicit Settings(const EngineOptions& o)
      : format(format_named(o.format)), threads(o.threads > 0 ? o.threads : dsa::threads()) {
    if (!o.tier.empty()) cpu.tier = tier_named(o.tier);
    if (!o.mla.empty()) mla = mla_form_named(o.mla);
  }
};

class CpuEngine final : public Engine {
 public:
  CpuEngine(const Model& model, const Settings& s, Index chunk, Index largest_length)
      : largest_length_(largest_length),
        model_(pack(model, s.format, s.cpu, s.mla)),
        workspace_(model.config, s.format, chunk, s.threads) {}

  const Config& config() const override { return model_.config; }
  std::string name() const override {
    const std::string form =
        model_.mla == MlaForm::automatic ? "" : ", " + std::string(name_of(model_.mla));
    return "cpu (" + std::string(name_of(model_.format)) + ", " +
           std::string(name_of(model_.cpu.tier)) + form + ")";
  }
  Index pass_tokens() const override { return workspace_.tokens(); }
  Index largest_length() const override { return largest_length_; }
  std::unique_ptr<SequenceCache> new_cache() const override {
    return std::make_unique<Cache>(model_.config, model_.format);
  }
  void forward(std::span<const Feed> feeds, LogitsOf which, View<float, 2> logits,
               const Tap& tap) override {
    cpu::forward(model_, workspace_, feeds, which, logits, tap);
  }

 private:
  Index largest_length_;
  PackedModel model_;
  Workspace workspace_;
};

}  // namespace

Plan plan(const Config& c, const EngineOptions& o, Index S, Index logits_rows) {
  const Settings s(o);
  Plan p;
  p.S = S;
  p.chunk = o.chunk;
  p.weights = weight_bytes(c, s.format);
  p.cache = cache_bytes(c, s.format, S);
  p.workspace = workspace_bytes(c, s.format, o.chunk, s.threads);
  p.logits = logits_rows * c.vocab_size * static_cast<Index>(sizeof(float));
  p.memory = o.memory > 0 ? o.memory : available_memory();
  const Index page = cache_bytes(c, s.format, Cache::page_rows),
              left = p.memory - p.total() + p.cache;
  p.largest_S = std::max<Index>(0, left) / page * Cache::page_rows;
  return p;
}

std::unique_ptr<Engine> open(const Model& model, const EngineOptions& o) {
  const Plan least = plan(model.config, o, 1, 1);
  require_fits(least);
  return std::make_unique<CpuEngine>(model, Settings(o), o.chunk, least.largest_S);
}

}  // namespace dsa::cpu
