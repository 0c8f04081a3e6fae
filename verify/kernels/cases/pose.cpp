#include "verify/kernels/cases/pose.hpp"

#include <algorithm>

namespace dsa::verify::kernels {
Dtype storage_of(const std::string& dtype) {
  return dtype == "fp32" ? Dtype::f32 : dtype == "bf16" ? Dtype::bf16 : Dtype::f8_e4m3;
}

Case start_case(std::string_view op, const std::string& dtype, const Extents& extents,
                Inputs inputs, const std::string& tag) {
  Case c;
  c.op = &op_named(op);
  c.dtype = dtype;
  c.inputs = inputs;
  c.name = dtype;
  for (const auto& [axis, extent] : extents) {
    c.sizes[axis] = extent;
    c.name += "-" + std::string(1, axis) + std::to_string(extent);
  }
  c.name += "-" + std::string(name_of(inputs)) + (tag.empty() ? "" : "-" + tag);
  return c;
}

Case finished(Case c) {
  for (auto& [name, array] : c.out) array.poison();
  if (c.bytes == 0)
    for (const Arrays* arrays : {&c.in, &c.out})
      for (const auto& [name, array] : *arrays)
        c.bytes += static_cast<double>(array.bytes().size());
  for (const auto& [name, allowed] : c.allowed)
    for (const double a : allowed)
      require(std::isfinite(a) && a >= 0,
              "case " + c.name + " allows " + name + " an error of " + std::to_string(a));
  return c;
}

Draw::Draw(const Case& c, std::uint64_t seed)
    : inputs_(c.inputs), seed_(random_bits(seed, seed_of(c.name, seed_of(c.op->name)))) {}

Array Draw::numbers(Dtype dtype, std::vector<Index> shape, double scale) {
  Array x(dtype, shape);
  std::vector<double> values(static_cast<std::size_t>(x.size()));
  const std::uint64_t stream = bits();
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = scale * (inputs_ == Inputs::dyadic ? dyadic(stream, i) : gaussian(stream, i));
  return Array(dtype, std::move(shape), values);
}

Array Draw::scales(std::vector<Index> shape, bool powers_of_two) {
  Array x(Dtype::f32, shape);
  std::vector<double> values(static_cast<std::size_t>(x.size()));
  for (double& value : values) {
    const double exponent = 2 * uniform(seed_, next_++) - 1;
    value = std::exp2(powers_of_two ? std::round(exponent) : exponent);
  }
  return Array(Dtype::f32, std::move(shape), values);
}

Index Draw::below(Index n) { return static_cast<Index>(bits() % static_cast<std::uint64_t>(n)); }

std::vector<Index> Draw::subset(Index k, Index n) {
  std::vector<Index> all(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<Index>(i);
  for (Index i = 0; i < k; ++i)  // the first k steps of Fisher and Yates' shuffle
    std::swap(all[static_cast<std::size_t>(i)], all[static_cast<std::size_t>(i + below(n - i))]);
  all.resize(static_cast<std::size_t>(k));
  std::sort(all.begin(), all.end());
  return all;
}

Parameter parameter(const std::string& name, const Array& x) {
  Parameter p;
  p.name = name, p.dtype = x.dtype(), p.shape = x.shape(), p.data = x.bytes().data();
  return p;
}

void answer(Case& c, const std::string& output, std::vector<double> want,
            std::vector<double> allowed, bool exact) {
  const Dtype dtype = c.out.at(output).dtype();
  exact = exact && c.inputs == Inputs::dyadic;
  if (exact) std::fill(allowed.begin(), allowed.end(), 0.0);
  if (exact || dtype != Dtype::f32) allow_storing(dtype, want, allowed);
  c.want[output] = std::move(want);
  c.allowed[output] = std::move(allowed);
}

}  // namespace dsa::verify::kernels
