#include "experiments/bench/cuda/product.cuh"
#include "experiments/bench/cuda/work.cuh"
#include "optimized/cuda/ops/linear.cuh"

namespace dsa::bench::DSA_PLACE {
namespace {

template <class X>
struct Inputs {
  DeviceView<const X, 2> x, w;
};

template <class X>
Work work(const DeviceProblem& p) {
  const Index T = p.at('T'), C = p.at('C'), F = p.at('F');
  const auto memory = std::make_shared<Memory>();
  std::vector<Inputs<X>> copies;
  for (Index i = 0; i < copies_of(p); ++i)
    copies.push_back({memory->numbers<X, 2>({T, C}), memory->numbers<X, 2>({F, C})});
  Scales scales{};
  if (std::is_same_v<X, e4m3>)
    scales = {memory->numbers<float, 2>({T, (C + 127) / 128}),
              memory->numbers<float, 2>({(F + 127) / 128, (C + 127) / 128})};
  const auto y = memory->space<float, 2>({T, F});
  const auto product = p.rung == "cublas" ? std::make_shared<Product>() : nullptr;
  const bool v1 = p.rung == "v1", v2 = p.rung == "v2", lt = p.rung == "cublaslt";
  return [=](Index copy) {
    const Inputs<X>& in = copies[static_cast<std::size_t>(copy)];
    if constexpr (std::is_same_v<X, bf16>) {
      if (product) return (*product)(y, in.x, in.w);
      if (lt) return cublaslt::linear(Stream{}, y, in.x, in.w, scales, {});
    }
    if (v1)
      v1::linear(Stream{}, y, in.x, in.w, scales, {});
    else if (v2)
      v2::linear(Stream{}, y, in.x, in.w, scales, {});
    else
      linear(Stream{}, y, in.x, in.w, scales, {});
    (void)memory;
  };
}

}  // namespace

Work linear_work(const DeviceProblem& p) {
  return p.dtype == "fp8" ? work<e4m3>(p) : work<bf16>(p);
}

Work work_of(const DeviceProblem& p) {
  if (p.op == "linear") return linear_work(p);
  return p.op == "mla_sparse" ? attention_work(p) : indexer_work(p);
}

}  // namespace dsa::bench::DSA_PLACE
