#include "verify/kernels/given.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/safetensors.hpp"
#include "verify/kernels/cases/pose.hpp"

namespace dsa::verify::kernels {
namespace {

using Kind = InputRule::Kind;

Dtype storage_of(const InputRule& rule, const std::string& dtype) {
  switch (rule.kind) {
    case Kind::fp32:
      return Dtype::f32;
    case Kind::int32:
      return Dtype::i32;
    case Kind::rows:
      return dtype == "fp8" ? Dtype::u8 : kernels::storage_of(dtype);
    case Kind::bf16_or_fp32:
      return dtype == "fp32" ? Dtype::f32 : Dtype::bf16;
    case Kind::stored:
      break;
  }
  return kernels::storage_of(dtype);
}

bool is_of(Dtype dtype, double x) {
  if (dtype == Dtype::u8) return x == std::floor(x) && 0 <= x && x <= 255;
  if (dtype == Dtype::i32) return x == std::floor(x) && -0x1p31 <= x && x < 0x1p31;
  return std::isnan(x) || round_to(dtype, x) == x;
}

std::string letters(std::string_view axes) {
  std::string text;
  for (const char axis : axes) text += (text.empty() ? "" : ", ") + std::string(1, axis);
  return "(" + text + ")";
}

/// The input as it is stored; its extents become the case's sizes, or are held against them.
Array stored(Case& c, const InputRule& rule, const GivenArray& given) {
  const std::string name(rule.name);
  require(given.shape.size() == rule.axes.size(),
          fmt::format("{} of {} has shape {}, expected {}", name, c.op->name,
                      shape_text(given.shape), letters(rule.axes)));
  for (std::size_t i = 0; i < rule.axes.size(); ++i) {
    const char axis = rule.axes[i];
    if (axis == '?') continue;
    const Index extent = c.sizes.emplace(axis, given.shape[i]).first->second;
    require(given.shape[i] == extent,
            fmt::format("{} of {} has shape {}, expected {} with {} = {}", name, c.op->name,
                        shape_text(given.shape), letters(rule.axes), axis, extent));
  }
  const Dtype dtype = storage_of(rule, c.dtype);
  for (const double x : given.values)
    require(is_of(dtype, x),
            fmt::format("{} of {} holds {}, expected numbers of {}, which a kernel of {} reads; "
                        "round the input first, then give both sides the same numbers",
                        name, c.op->name, x, name_of(dtype), c.dtype));
  Array array(dtype, given.shape);
  if (dtype != Dtype::u8) return Array(dtype, given.shape, given.values);
  std::transform(given.values.begin(), given.values.end(), array.bytes().begin(),
                 [](double x) { return static_cast<std::byte>(x); });
  return array;
}

template <class Rules>
std::string names_of(const Rules& rules) {
  std::string names;
  for (const auto& rule : rules) names += (names.empty() ? "" : ", ") + std::string(rule.name);
  return names.empty() ? "none" : names;
}

template <class Rules, class Values>
void refuse_strangers(const Op& op, const Rules& rules, const Values& values, const char* noun) {
  for (const auto& [name, value] : values)
    require(
        std::any_of(rules.begin(), rules.end(), [&](auto& r) { return r.name == name; }),
        fmt::format("{} has no {} called {}, expected {}", op.name, noun, name, names_of(rules)));
}

double scalar_of(const Op& op, const ScalarRule& rule, const std::map<std::string, double>& given) {
  const auto found = given.find(std::string(rule.name));
  const double value = found == given.end() ? rule.value : found->second;
  require(!std::isnan(value), fmt::format("{} needs the scalar {}, a number", op.name, rule.name));
  require(
      !rule.is_whole || (value == std::floor(value) && std::abs(value) < 0x1p31),
      fmt::format("{} of {} is {}, expected a whole number below 2^31", rule.name, op.name, value));
  return value;
}

void expect_finite_bounds(const Case& c) {
  for (const auto& [name, allowed] : c.allowed)
    for (const double a : allowed)
      require(std::isfinite(a) && a >= 0,
              fmt::format("no finite bound of {}'s {} follows from these inputs: they hold NaN, an "
                          "infinity, or numbers whose sums overflow fp32",
                          c.op->name, name));
}

}  // namespace

Case given_case(const Op& op, const std::string& dtype,
                const std::map<std::string, GivenArray>& inputs,
                const std::map<std::string, double>& scalars) {
  require(op.set_answer != nullptr,
          fmt::format("{} answers the suite's own inputs only; `dsa-verify ops --dump` writes them",
                      op.name));
  require(std::find(op.dtypes.begin(), op.dtypes.end(), dtype) != op.dtypes.end(),
          fmt::format("{} has no bounds for a kernel of dtype {}, expected {}", op.name, dtype,
                      fmt::join(op.dtypes, ", ")));
  refuse_strangers(op, op.inputs, inputs, "input");
  refuse_strangers(op, op.scalars, scalars, "scalar");
  Case c;
  c.op = &op, c.name = "given", c.dtype = dtype;
  for (const ScalarRule& rule : op.scalars)
    c.scalars[std::string(rule.name)] = scalar_of(op, rule, scalars);
  for (const InputRule& rule : op.inputs) {
    const auto found = inputs.find(std::string(rule.name));
    if (found != inputs.end()) {
      c.in.emplace(rule.name, stored(c, rule, found->second));
    } else {
      require(rule.is_optional, fmt::format("{} needs the input {} of shape {}", op.name, rule.name,
                                            letters(rule.axes)));
    }
  }
  op.set_answer(c);
  expect_finite_bounds(c);
  return c;
}

}  // namespace dsa::verify::kernels
