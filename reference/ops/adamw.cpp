#include "reference/ops/adamw.hpp"

#include <algorithm>
#include <cmath>

namespace dsa::reference {

template <class Real>
void adamw_step(const AdamWState<Real>& state, std::span<const Real> gradient, const AdamW& a,
                Real lr, Real factor, Index steps) {
  require(state.p.size() == gradient.size() && state.m.size() == gradient.size() &&
              state.v.size() == gradient.size(),
          "adamw_step: parameter, moments and gradient differ in size");
  const Real b1 = a.beta1, b2 = a.beta2, eps = a.eps;
  const Real decay = state.decayed ? a.weight_decay : 0;
  const Real n = static_cast<Real>(steps);
  const Real correct_m = a.bias_correction ? 1 - std::pow(b1, n) : 1;
  const Real correct_v = a.bias_correction ? 1 - std::pow(b2, n) : 1;
  for (std::size_t i = 0; i < gradient.size(); ++i) {
    Real &p = state.p[i], &m = state.m[i], &v = state.v[i];
    Real g = gradient[i] * factor;
    if (a.decoupled)
      p -= lr * decay * p;
    else
      g += decay * p;
    m = b1 * m + (1 - b1) * g;
    v = b2 * v + (1 - b2) * g * g;
    const Real second = v / correct_v;
    const Real root = a.eps_inside_root ? std::sqrt(second + eps) : std::sqrt(second) + eps;
    p -= lr * (m / correct_m) / root;
  }
}

template <class Real>
Real clip_factor(Real norm, const Clip& clip) {
  if (clip.max_norm == 0) return 1;
  return std::min(Real(1), static_cast<Real>(clip.max_norm) / (norm + static_cast<Real>(clip.eps)));
}

template void adamw_step(const AdamWState<double>&, std::span<const double>, const AdamW&, double,
                         double, Index);
template void adamw_step(const AdamWState<long double>&, std::span<const long double>, const AdamW&,
                         long double, long double, Index);
template double clip_factor(double, const Clip&);
template long double clip_factor(long double, const Clip&);

}  // namespace dsa::reference
