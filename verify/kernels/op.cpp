#include "verify/kernels/op.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/safetensors.hpp"
#include "verify/kernels/cases/all.hpp"

namespace dsa::verify::kernels {
namespace {

constexpr std::byte guard_byte{0xff};
constexpr std::int32_t no_subscript = 0x7fc0a5a5;

Index elements(const std::vector<Index>& shape) {
  Index n = 1;
  for (const Index extent : shape) n *= extent;
  return n;
}

}  // namespace

Array::Array(Dtype dtype, std::vector<Index> shape) : dtype_(dtype), shape_(std::move(shape)) {
  const auto bytes = static_cast<std::size_t>(elements(shape_) * bits_of(dtype) / 8);
  store_.assign(bytes + 2 * guard, std::byte{0});
  std::fill_n(store_.begin(), guard, guard_byte);
  std::fill_n(store_.end() - guard, guard, guard_byte);
}

Array::Array(Dtype dtype, std::vector<Index> shape, std::span<const double> values)
    : Array(dtype, std::move(shape)) {
  require(static_cast<Index>(values.size()) == size(),
          fmt::format("{} values for an array of shape {}", values.size(), shape_text(shape_)));
  if (dtype == Dtype::i32) {
    std::transform(values.begin(), values.end(), reinterpret_cast<std::int32_t*>(bytes().data()),
                   [](double x) { return static_cast<std::int32_t>(x); });
  } else {
    encode(dtype, values.data(), size(), bytes().data());
  }
}

Index Array::size() const { return elements(shape_); }

std::vector<double> Array::values() const {
  std::vector<double> x(static_cast<std::size_t>(size()));
  decode(dtype_, bytes().data(), size(), x.data());
  return x;
}

std::byte* Array::checked(Dtype wanted, int rank) {
  const bool rows = wanted == Dtype::f8_e4m3 && dtype_ == Dtype::u8;
  require(dtype_ == wanted || rows,
          fmt::format("an array of {} is not one of {}", name_of(dtype_), name_of(wanted)));
  require(static_cast<int>(shape_.size()) == rank,
          fmt::format("an array of shape {} does not have rank {}", shape_text(shape_), rank));
  return bytes().data();
}

void Array::poison() {
  std::fill(bytes().begin(), bytes().end(), guard_byte);
  if (dtype_ != Dtype::i32) return;
  for (std::size_t i = 0; i < bytes().size(); i += sizeof no_subscript)
    std::memcpy(bytes().data() + i, &no_subscript, sizeof no_subscript);
}

bool Array::guards_intact() const {
  const auto intact = [](auto begin, auto end) {
    return std::all_of(begin, end, [](std::byte b) { return b == guard_byte; });
  };
  return intact(store_.begin(), store_.begin() + guard) &&
         intact(store_.end() - guard, store_.end());
}

Case Pose::operator()() const {
  Case c = pose();
  require(c.dtype == dtype && c.flops <= flops, "case " + c.name + " is not what was announced");
  if (c.flops == 0) c.flops = flops;
  return c;
}

bool Case::is_empty() const {
  return std::all_of(out.begin(), out.end(), [](const auto& o) { return o.second.size() == 0; });
}

std::string_view name_of(Inputs inputs) {
  return inputs == Inputs::dyadic     ? "dyadic"
         : inputs == Inputs::gaussian ? "gaussian"
                                      : "adversarial";
}

std::string_view name_of(Ran ran) {
  return ran == Ran::host ? "host" : ran == Ran::device ? "device" : "compiled";
}

std::string_view name_of(Sums sums) { return sums == Sums::fp32 ? "fp32" : "hopper-fp8"; }

std::span<const Op> all_ops() {
  static const std::vector<Op> ops = {embed_op(),
                                      rmsnorm_op(),
                                      layernorm_op(),
                                      rope_op(),
                                      hadamard_op(),
                                      latent_op(),
                                      linear_op(),
                                      swiglu_op(),
                                      router_op(),
                                      experts_op(),
                                      indexer_scores_op(),
                                      topk_select_op(),
                                      indexer_topk_op(),
                                      sparse_attention_op(),
                                      dense_attention_op(),
                                      expanded_attention_op(),
                                      embed_backward_op(),
                                      rmsnorm_backward_op(),
                                      layernorm_backward_op(),
                                      rope_backward_op(),
                                      linear_backward_op(),
                                      swiglu_backward_op(),
                                      router_scores_backward_op(),
                                      router_weights_backward_op(),
                                      balance_backward_op(),
                                      mixing_op(),
                                      mixing_backward_op(),
                                      cross_entropy_backward_op(),
                                      heads_attention_op(),
                                      heads_attention_backward_op(),
                                      indexer_scores_backward_op(),
                                      indexer_kl_backward_op()};
  return ops;
}

const Op& op_named(std::string_view name) {
  std::string names;
  for (const Op& op : all_ops()) {
    if (op.name == name) return op;
    names += (names.empty() ? "" : ", ") + std::string(op.name);
  }
  throw Error("there is no op \"" + std::string(name) + "\"; there are " + names);
}

std::vector<double> values_of(const Case& c, const Arrays& out, const std::string& name) {
  const auto found = out.find(name);
  require(found != out.end(), "output " + name + " is missing");
  const std::vector<Index>&shape = found->second.shape(), &wanted = c.out.at(name).shape();
  require(shape == wanted, "output " + name + " has shape " + shape_text(shape) + ", expected " +
                               shape_text(wanted));
  return found->second.values();
}

void allow_storing(Dtype dtype, const std::vector<double>& want, std::vector<double>& allowed) {
  for (std::size_t i = 0; i < want.size(); ++i) {
    if (!std::isfinite(want[i])) continue;
    const double low = round_to(dtype, want[i] - allowed[i]);
    const double high = round_to(dtype, want[i] + allowed[i]);
    allowed[i] = std::max(std::abs(want[i] - low), std::abs(high - want[i]));
  }
}

void allow_sums(Case& c, Sums sums) {
  if (sums == Sums::hopper_fp8 && c.allowed_on_hopper) c.allowed = c.allowed_on_hopper(c);
}

std::vector<OutputVerdict> judge_elementwise(const Case& c, const Arrays& out) {
  std::vector<OutputVerdict> verdicts;
  for (const auto& [name, asked] : c.out) {
    const std::vector<double> got = values_of(c, out, name);
    const std::vector<double>& want = c.want.at(name);
    std::vector<double> allowed = c.allowed.at(name);
    const Dtype stored = out.at(name).dtype();
    if (bits_of(stored) < bits_of(asked.dtype())) allow_storing(stored, want, allowed);
    verdicts.push_back({name, asked.shape(), compare(got, want, allowed)});
  }
  return verdicts;
}

}  // namespace dsa::verify::kernels
