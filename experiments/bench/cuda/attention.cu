#include "experiments/bench/cuda/work.cuh"
#include "optimized/cuda/ops/mla.cuh"

namespace dsa::bench::DSA_PLACE {
namespace {

template <class Row>
struct Inputs {
  MlaIn<Row> in;
  DeviceView<const std::int32_t, 2> chosen;
};

template <class Row>
Work work(const DeviceProblem& p) {
  const Index B = p.at('B'), T = p.at('T'), S = p.at('S'), N = p.at('N'), R = p.at('R'),
              P = p.at('P'), K = p.at('K');
  const double scale = 0.1352337788608801;  // V3.2's: 192^-1/2 (0.1 ln 40 + 1)^2
  const auto memory = std::make_shared<Memory>();
  std::vector<Inputs<Row>> copies;
  for (Index i = 0; i < copies_of(p); ++i)
    copies.push_back({{.q = memory->numbers<bf16, 3>({T, N, R + P}),
                       .kv = memory->rows<Row>(B * S, R, P),
                       .scale = scale},
                      memory->keys(T, K, S, T / B)});
  const MlaOut y{.out = memory->space<float, 3>({T, N, R}), .lse = memory->space<float, 2>({T, N})};
  const auto workspace = memory->space<float, 1>({mla_workspace<Row>(T, N, R, P, K)});
  const bool v1 = p.rung == "v1";
  return [=](Index copy) {
    const Inputs<Row>& x = copies[static_cast<std::size_t>(copy)];
    if (v1)
      v1::mla(Stream{}, y, x.in, Chosen{x.chosen});
    else
      mla_sparse(Stream{}, y, x.in, x.chosen, workspace);
    (void)memory;
  };
}

}  // namespace

Work attention_work(const DeviceProblem& p) {
  return p.dtype == "fp8" ? work<e4m3>(p) : work<bf16>(p);
}

}  // namespace dsa::bench::DSA_PLACE
