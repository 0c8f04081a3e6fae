#include "experiments/bench/cuda/work.cuh"
#include "optimized/cuda/ops/mla.cuh"

namespace dsa::bench::DSA_PLACE {
namespace {

template <class T>
struct Inputs {
  DeviceView<const bf16, 3> q;
  Pages<const T> kv;
  DeviceView<const std::int32_t, 2> chosen;
};

template <class T>
Work work(const DeviceProblem& p) {
  const Index B = p.at('B'), T_ = p.at('T'), S = p.at('S'), N = p.at('N'), R = p.at('R'),
              P = p.at('P'), K = p.at('K');
  const auto memory = std::make_shared<Memory>();
  std::vector<Inputs<T>> copies;
  for (Index i = 0; i < copies_of(p); ++i)
    copies.push_back({memory->numbers<bf16, 3>({T_, N, R + P}), memory->rows<T>(B * S, R, P),
                      memory->keys(T_, K, S, T_ / B)});
  const auto out = memory->space<float, 3>({T_, N, R});
  const auto lse = memory->space<float, 2>({T_, N});
  const auto workspace = memory->space<float, 1>({attention_workspace<T>(T_, N, R, P, K)});
  const double scale = 0.1352337788608801;  // V3.2's: 192^-1/2 (0.1 ln 40 + 1)^2
  const bool v1 = p.rung == "v1";
  return [=](Index copy) {
    const Inputs<T>& x = copies[static_cast<std::size_t>(copy)];
    if (v1)
      v1::attention<T>(Stream{}, out, lse, x.q, x.kv, Chosen{x.chosen}, scale);
    else
      mla_sparse(Stream{}, out, lse, x.q, x.kv, x.chosen, scale, workspace);
    (void)memory;
  };
}

}  // namespace

Work attention_work(const DeviceProblem& p) {
  return p.dtype == "fp8" ? work<e4m3>(p) : work<bf16>(p);
}

}  // namespace dsa::bench::DSA_PLACE
