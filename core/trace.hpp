// core/trace.hpp — named intermediate tensors of one run, of ours or from somebody's file.
//
// Names are the HuggingFace module paths (core/trace_names.hpp), so that our traces and those of
// others can be laid side by side without a translation table. An entry borrows its bytes and is
// decoded when somebody asks for its numbers: a large file stays on disk.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/safetensors.hpp"
#include "core/tensor.hpp"

namespace dsa {

/// One traced tensor as (T, width): leading axes of extent 1 dropped as long as more than two axes
/// are left, those after T flattened. Error: its dtype cannot be decoded.
Tensor<double, 2> trace_values(const StoredTensor&);

class Trace {
 public:
  struct Entry : StoredTensor {
    std::shared_ptr<const void> memory;  // keeps the bytes alive; null: somebody else does
    Tensor<double, 2> values() const { return trace_values(*this); }  // (T, width)
  };

  /// The numbers, widened: exact for fp32, bf16 and fp8. Error: the trace has one of that name.
  void put(const std::string& name, Tensor<double, 2> x);
  template <class Real>
  void put(const std::string& name, View<Real, 2> x) {
    Tensor<double, 2> wide(x.shape);
    auto out = wide.begin();
    for (auto value : x) *out++ = static_cast<double>(value);
    put(name, std::move(wide));
  }

  /// Bytes as they are. Error: the trace has one of that name.
  void put(Entry);

  void erase_if(const std::function<bool(const std::string& name)>&);

  const Entry* find(std::string_view name) const {
    const auto found = by_name_.find(name);
    return found == by_name_.end() ? nullptr : &entries_[found->second];
  }
  const Entry& at(std::string_view name) const;  // Error: there is none of that name
  bool contains(std::string_view name) const { return find(name) != nullptr; }
  bool empty() const { return entries_.empty(); }

  /// In order of execution, or as they were put.
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  std::vector<Entry> entries_;
  std::map<std::string, std::size_t, std::less<>> by_name_;
};

}  // namespace dsa
