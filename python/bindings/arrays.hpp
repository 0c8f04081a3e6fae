// python/bindings/arrays.hpp — arrays between Python and the library.
//
// In: contiguous float64 or int64 in memory of the host, lent for the call; dsa/_arrays.py has
// widened them. Out: arrays of numpy that own their numbers.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/tensor.hpp"

namespace dsa::python {

namespace nb = nanobind;

using Numbers = nb::ndarray<const double, nb::c_contig, nb::device::cpu>;
using Integers = nb::ndarray<const std::int64_t, nb::c_contig, nb::device::cpu>;

template <class Array>
std::vector<Index> shape_of(const Array& x) {
  std::vector<Index> shape;
  for (std::size_t axis = 0; axis < x.ndim(); ++axis)
    shape.push_back(static_cast<Index>(x.shape(axis)));
  return shape;
}

/// Error: another number of axes.
template <int Rank, class T>
View<const T, Rank> view(const char* name,
                         const nb::ndarray<const T, nb::c_contig, nb::device::cpu>& x) {
  require(x.ndim() == Rank, std::string(name) + " has " + std::to_string(x.ndim()) +
                                " axes, expected " + std::to_string(Rank));
  View<const T, Rank> result;
  result.data = x.data();
  for (int axis = 0; axis < Rank; ++axis)
    result.shape[static_cast<std::size_t>(axis)] =
        static_cast<Index>(x.shape(static_cast<std::size_t>(axis)));
  return result;
}

template <class T>
std::span<const T> list(const char* name,
                        const nb::ndarray<const T, nb::c_contig, nb::device::cpu>& x) {
  const View<const T, 1> row = view<1>(name, x);
  return {row.data, static_cast<std::size_t>(row.size())};
}

/// A copy that a function may work on in place.
template <class T, int Rank>
Tensor<T, Rank> copied(View<const T, Rank> x) {
  Tensor<T, Rank> copy(x.shape);
  std::copy(x.begin(), x.end(), copy.begin());
  return copy;
}

/// An array of numpy over numbers that it takes away.
template <class T>
nb::object as_numpy(std::vector<T> values, const std::vector<Index>& shape) {
  auto* const kept = new std::vector<T>(std::move(values));
  const nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  const std::vector<std::size_t> extents(shape.begin(), shape.end());
  return nb::cast(nb::ndarray<nb::numpy, T>(kept->data(), extents.size(), extents.data(), owner));
}

template <class T, int Rank>
nb::object as_numpy(const Tensor<T, Rank>& x) {
  return as_numpy(std::vector<T>(x.begin(), x.end()), {x.shape().begin(), x.shape().end()});
}

/// Error: an entry of `subscripts` outside [lowest, extent).
inline void expect_subscripts(const char* name, std::span<const Index> subscripts, Index lowest,
                              Index extent) {
  for (const Index i : subscripts)
    require(lowest <= i && i < extent, std::string(name) + " holds " + std::to_string(i) +
                                           ", expected " + std::to_string(lowest) + " to " +
                                           std::to_string(extent - 1));
}

void bind_network(nb::module_&);
void bind_indexer(nb::module_&);
void bind_attention(nb::module_&);
void bind_router(nb::module_&);
void bind_training(nb::module_&);
void bind_kernels(nb::module_&);

}  // namespace dsa::python
