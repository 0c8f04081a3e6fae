// core/trace.hpp — named intermediate tensors, in order of execution.
//
// Names are the HuggingFace module paths, e.g. "model.layers.3.self_attn.indexer.scores", so that
// our traces and the golden traces can be laid side by side without a translation table.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor.hpp"

namespace dsa {

class Trace {
 public:
  struct Entry {
    std::string name;
    Tensor<double, 2> values;  // (T, width); widened: exact for fp32, bf16 and fp8
  };

  template <class Real>
  void put(std::string name, View<Real, 2> x) {
    require(find(name) == nullptr, "the trace already holds " + name);
    by_name_[name] = entries_.size();
    entries_.push_back({std::move(name), Tensor<double, 2>(x.shape)});
    auto out = entries_.back().values.begin();
    for (auto value : x) *out++ = static_cast<double>(value);
  }

  /// The tensor of that name, to be written to: its rows come in pieces. New ones hold `fill`.
  View<double, 2> in_pieces(const std::string& name, Shape<2> shape, double fill) {
    const auto [found, is_new] = by_name_.try_emplace(name, entries_.size());
    if (is_new) entries_.push_back({name, Tensor<double, 2>(shape, fill)});
    Tensor<double, 2>& values = entries_[found->second].values;
    expect_shape(name.c_str(), values.view(), shape);
    return values;
  }

  const Entry* find(std::string_view name) const {
    const auto found = by_name_.find(name);
    return found == by_name_.end() ? nullptr : &entries_[found->second];
  }

  const std::vector<Entry>& entries() const { return entries_; }

 private:
  std::vector<Entry> entries_;
  std::map<std::string, std::size_t, std::less<>> by_name_;
};

}  // namespace dsa
