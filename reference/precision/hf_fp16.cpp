#include "reference/precision/hf_fp16.hpp"

namespace dsa::reference {

Ops<double> hf_fp16_ops(const Rounded& run) {
  Rounded sums = run;
  sums.formats.wide = sums.formats.values = run.formats.model;
  Ops<double> ops = run.ops();
  ops.linear = [=](const std::string& name, View<double, 2> y, View<const double, 2> x,
                   const Linear& w) { sums.linear(name, y, x, w, sums.formats.model); };
  ops.mla_expanded = [=](const std::string& name, auto&&... a) { sums.mla(name, a...); };
  return ops;
}

}  // namespace dsa::reference
