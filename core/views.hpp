// core/views.hpp — parts and other shapes of a View.
#pragma once

#include "core/tensor.hpp"

namespace dsa {

/// Rows [begin, end) of the first axis.
template <class T, int Rank>
View<T, Rank> rows(View<T, Rank> x, Index begin, Index end) {
  const Index row = x.shape[0] > 0 ? x.size() / x.shape[0] : 0;
  x.data += begin * row;
  x.shape[0] = end - begin;
  return x;
}

/// The same numbers under another shape.
template <int To, class T, int From>
View<T, To> as(View<T, From> x, const Shape<To>& shape) {
  require(volume<To>(shape) == x.size(), "a reshape changes the number of elements");
  return {x.data, shape};
}

}  // namespace dsa
