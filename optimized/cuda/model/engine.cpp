#include "optimized/cuda/model/engine.hpp"

#include <algorithm>

#include "optimized/cuda/device/device.cuh"
#include "optimized/cuda/model/forward.cuh"
#include "optimized/shared/format.hpp"
#include "optimized/shared/memory.hpp"

namespace dsa::cuda::DSA_PLACE {
namespace {

#ifdef DSA_CUDA_ON_HOST

Index memory_of_device() { return available_memory(); }
std::string where() { return ""; }
std::string name_in(const std::string& format) { return "cuda-host (" + format + ")"; }

#else

cudaDeviceProp properties() {
  int device = 0;
  cudaDeviceProp found;
  CUDA_TRY(cudaGetDevice(&device));
  CUDA_TRY(cudaGetDeviceProperties(&found, device));
  return found;
}

Index memory_of_device() {
  std::size_t available = 0, all = 0;
  CUDA_TRY(cudaMemGetInfo(&available, &all));
  return static_cast<Index>(available);
}

std::string where() { return "on the device"; }
std::string name_in(const std::string& format) {
  return "cuda (" + format + ", " + properties().name + ")";
}

#endif

void expect_device() {
  const std::string missing = what_is_missing();
  require(missing.empty(), "--backend cuda needs " + missing +
                               "; --backend cuda-host runs the same kernels on the processor");
}

template <class X, class Row>
class CudaEngine final : public Engine {
 public:
  CudaEngine(const Model& model, const EngineOptions& o, Index largest_length)
      : name_(name_in(o.format)), largest_length_(largest_length), runner_(model, o.chunk) {}

  const Config& config() const override { return runner_.config(); }
  std::string name() const override { return name_; }
  Index pass_tokens() const override { return runner_.tokens(); }
  Index largest_length() const override { return largest_length_; }
  std::unique_ptr<SequenceCache> new_cache() const override {
    return std::make_unique<Cache<Row>>(runner_.cache_layout());
  }
  void forward(std::span<const Feed> feeds, LogitsOf which, View<float, 2> logits,
               const Tap& tap) override {
    runner_.forward(feeds, which, logits, tap);
  }

 private:
  std::string name_;
  Index largest_length_;
  Runner<X, Row> runner_;
};

/// f<X, Row>() of the format: what matrices are multiplied with, and what caches hold.
template <class F>
auto in_format(const std::string& name, F&& f) {
  switch (format_named(name)) {
    case Format::fp32:
      return f.template operator()<float, float>();
    case Format::bf16:
      return f.template operator()<bf16, bf16>();
    default:
      return f.template operator()<bf16, e4m3>();
  }
}

}  // namespace

Plan plan(const Config& c, const EngineOptions& o, Index S, Index) {
  expect_device();
  return in_format(o.format, [&]<class X, class Row>() {
    Plan p;
    p.S = S;
    p.chunk = o.chunk;
    p.weights = weight_bytes<X>(c);
    p.cache = cache_bytes<Row>(c, S);
    p.logits = logits_rows(o.chunk) * c.vocab_size * Index{sizeof(float)};
    p.workspace = workspace_bytes<X, Row>(c, o.chunk) - p.logits;
    p.memory = o.memory > 0 ? o.memory : memory_of_device();
    p.where = where();
    const Index left = p.memory - p.total() + p.cache;
    p.largest_S = std::max<Index>(0, left) / cache_bytes<Row>(c, 1) * cache_page_rows;
    return p;
  });
}

std::unique_ptr<Engine> open(const Model& model, const EngineOptions& o) {
  const Plan least = plan(model.config, o, 1, 1);
  require_fits(least);
  return in_format(o.format, [&]<class X, class Row>() -> std::unique_ptr<Engine> {
    return std::make_unique<CudaEngine<X, Row>>(model, o, least.largest_S);
  });
}

}  // namespace dsa::cuda::DSA_PLACE
