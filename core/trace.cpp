#include "core/trace.hpp"

#include <fmt/format.h>

#include <span>

namespace dsa {

Tensor<double, 2> trace_values(const StoredTensor& tensor) {
  require(is_decodable(tensor.dtype),
          fmt::format("trace {} is stored as {}, expected F64, F32, BF16, F16 or integers",
                      tensor.name, name_of(tensor.dtype)));
  std::span<const Index> shape = tensor.shape;
  while (shape.size() > 2 && shape[0] == 1) shape = shape.subspan(1);
  const Index T = shape.empty() ? 1 : shape[0];
  Index width = 1;
  for (const Index extent : shape.subspan(shape.empty() ? 0 : 1)) width *= extent;
  Tensor<double, 2> values({T, width});
  decode(tensor.dtype, tensor.data, tensor.size(), values.data());
  return values;
}

void Trace::put(const std::string& name, Tensor<double, 2> x) {
  const auto owned = std::make_shared<const Tensor<double, 2>>(std::move(x));
  Entry entry;
  entry.name = name, entry.dtype = Dtype::f64;
  entry.shape = {owned->shape()[0], owned->shape()[1]};
  entry.data = reinterpret_cast<const std::byte*>(owned->data());
  entry.memory = owned;
  put(std::move(entry));
}

void Trace::put(Entry entry) {
  const bool is_new = by_name_.emplace(entry.name, entries_.size()).second;
  require(is_new, "the trace already holds " + entry.name);
  entries_.push_back(std::move(entry));
}

void Trace::erase_if(const std::function<bool(const std::string& name)>& is_unwanted) {
  std::erase_if(entries_, [&](const Entry& entry) { return is_unwanted(entry.name); });
  by_name_.clear();
  for (std::size_t i = 0; i < entries_.size(); ++i) by_name_[entries_[i].name] = i;
}

const Trace::Entry& Trace::at(std::string_view name) const {
  const Entry* entry = find(name);
  require(entry != nullptr, fmt::format("the trace has no tensor {}", name));
  return *entry;
}

}  // namespace dsa
