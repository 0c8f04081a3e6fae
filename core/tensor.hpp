// core/tensor.hpp — dense, row-major, contiguous. A View borrows; a Tensor owns.
//
// There are no strides. A transposed copy is a new tensor with its own name.
#pragma once

#include <array>
#include <cassert>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "core/check.hpp"

namespace dsa {

using Index = std::int64_t;
template <int Rank>
using Shape = std::array<Index, Rank>;

template <int Rank>
constexpr Index volume(const Shape<Rank>& shape) {
  Index n = 1;
  for (Index extent : shape) n *= extent;
  return n;
}

/// Borrowed memory with a shape. Two words and a few integers: pass it by value.
template <class T, int Rank>
struct View {
  T* data = nullptr;
  Shape<Rank> shape{};

  constexpr Index size() const { return volume<Rank>(shape); }
  constexpr T* begin() const { return data; }
  constexpr T* end() const { return data + size(); }

  /// Element access, one subscript per axis: q(t, h, d).
  template <class... I>
  requires(sizeof...(I) == Rank) constexpr T& operator()(I... subscripts) const {
    const Shape<Rank> at{static_cast<Index>(subscripts)...};
    Index offset = 0;
    for (int axis = 0; axis < Rank; ++axis) {
      assert(0 <= at[axis] && at[axis] < shape[axis]);
      offset = offset * shape[axis] + at[axis];
    }
    return data[offset];
  }

  /// The i-th slice of the first axis: x[t] of a (T, H, D) view is (H, D).
  constexpr View<T, Rank - 1> operator[](Index i) const requires(Rank > 1) {
    assert(0 <= i && i < shape[0]);
    View<T, Rank - 1> slice;
    for (int axis = 1; axis < Rank; ++axis) slice.shape[axis - 1] = shape[axis];
    slice.data = data + i * slice.size();
    return slice;
  }

  /// A template, because nvcc warns (#554-D) about a plain const-to-const conversion.
  template <class U = T>
  requires(!std::is_const_v<U>) constexpr operator View<const U, Rank>() const {
    return {data, shape};
  }
};

/// Owned memory with a shape. Freed when it goes out of scope; copying it copies the numbers.
template <class T, int Rank>
class Tensor {
 public:
  Tensor() = default;
  explicit Tensor(Shape<Rank> shape, T fill = {})
      : shape_(shape), data_(static_cast<std::size_t>(volume<Rank>(shape)), fill) {}

  operator View<T, Rank>() { return {data_.data(), shape_}; }
  operator View<const T, Rank>() const { return {data_.data(), shape_}; }
  View<T, Rank> view() { return *this; }
  View<const T, Rank> view() const { return *this; }

  template <class... I>
  T& operator()(I... i) {
    return view()(i...);
  }
  template <class... I>
  const T& operator()(I... i) const {
    return view()(i...);
  }

  const Shape<Rank>& shape() const { return shape_; }
  Index size() const { return volume<Rank>(shape_); }
  T* data() { return data_.data(); }
  const T* data() const { return data_.data(); }
  auto begin() { return data_.begin(); }
  auto end() { return data_.end(); }
  auto begin() const { return data_.begin(); }
  auto end() const { return data_.end(); }

 private:
  Shape<Rank> shape_{};
  std::vector<T> data_;
};

template <int Rank>
std::string to_string(const Shape<Rank>& shape) {
  std::string text = "(";
  for (int axis = 0; axis < Rank; ++axis) text += (axis ? ", " : "") + std::to_string(shape[axis]);
  return text + ")";
}

/// Every op starts by stating the shapes it was promised.
template <class T, int Rank>
void expect_shape(const char* name, View<T, Rank> x, std::type_identity_t<Shape<Rank>> expected) {
  if (x.shape != expected)
    throw Error(std::string(name) + " has shape " + to_string<Rank>(x.shape) + ", expected " +
                to_string<Rank>(expected));
}

}  // namespace dsa
