// optimized/cuda/device/tensor.cuh — views of memory that lives on the GPU.
//
// They are types of their own on purpose: a host loop over device memory does not compile.
#pragma once

#include <cstdint>

#include "core/dtype.hpp"
#include "optimized/cuda/device/place.cuh"

namespace dsa::cuda::DSA_PLACE {

/// Dense, row-major, as View. On the host every subscript is checked.
template <class T, int Rank>
struct DeviceView {
  T* data = nullptr;
  Index shape[Rank] = {};

  template <class... I>
  __device__ T& operator()(I... subscripts) const {
    static_assert(sizeof...(I) == Rank, "one subscript per axis");
    const Index at[Rank] = {static_cast<Index>(subscripts)...};
    Index offset = 0;
    for (int axis = 0; axis < Rank; ++axis) {
#ifdef DSA_CUDA_ON_HOST
      check_subscript(at[axis], shape[axis], axis);
#endif
      offset = offset * shape[axis] + at[axis];
    }
    return data[offset];
  }
  /// The i-th slice of the first axis.
  __device__ DeviceView<T, Rank - 1> operator[](Index i) const {
#ifdef DSA_CUDA_ON_HOST
    check_subscript(i, shape[0], 0);
#endif
    DeviceView<T, Rank - 1> slice;
    Index size = 1;
    for (int axis = 1; axis < Rank; ++axis) {
      slice.shape[axis - 1] = shape[axis];
      size *= shape[axis];
    }
    slice.data = data + i * size;
    return slice;
  }
  template <class U = T>
  requires(!std::is_const_v<U>) operator DeviceView<const U, Rank>() const {
    DeviceView<const U, Rank> view{data, {}};
    for (int axis = 0; axis < Rank; ++axis) view.shape[axis] = shape[axis];
    return view;
  }
};

/// Rows [begin, end) of the first axis.
template <class T, int Rank>
DeviceView<T, Rank> rows(DeviceView<T, Rank> x, Index begin, Index end) {
  Index row = 1;
  for (int axis = 1; axis < Rank; ++axis) row *= x.shape[axis];
  x.data += begin * row;
  x.shape[0] = end - begin;
  return x;
}

/// Four neighbours, read or written in one access. Their address is a multiple of their size.
template <class T>
struct alignas(4 * sizeof(T)) Four {
  T at[4];
};
template <class T>
__device__ Four<std::remove_const_t<T>> load_four(T* p) {
  using Bundle = Four<std::remove_const_t<T>>;
#ifdef DSA_CUDA_ON_HOST
  check_wide(p, sizeof(Bundle));
#endif
  return *reinterpret_cast<const Bundle*>(p);
}
/// The same, of what is read once: it takes the place of nothing in the first cache.
__device__ inline Four<float> load_four_once(const float* p) {
#ifdef DSA_CUDA_ON_HOST
  return load_four(p);
#else
  Four<float> x;
  asm volatile("ld.global.nc.L1::no_allocate.v4.f32 {%0,%1,%2,%3}, [%4];"
               : "=f"(x.at[0]), "=f"(x.at[1]), "=f"(x.at[2]), "=f"(x.at[3])
               : "l"(p));
  return x;
#endif
}
template <class T>
__device__ void store_four(T* p, Four<T> x) {
#ifdef DSA_CUDA_ON_HOST
  check_wide(p, sizeof x);
#endif
  *reinterpret_cast<Four<T>*>(p) = x;
}

/// A cache that grows without being copied: row s lies on page s / page_rows, of one sequence or of
/// several, one after the other. The list of pages, too, lies on the device. The formats of a row:
/// optimized/shared/rows.hpp. At most 2^31 rows: kernels name them by 32 bits.
template <class T>
struct Pages {
  DeviceView<T* const, 1> pages;
  Index page_rows = 1;
  Index rows = 0;   // S
  Index width = 0;  // elements a row; of an e4m3 row: bytes
  Index first = 0;  // element of a page at which its first row begins

  __device__ DeviceView<T, 1> row(Index s) const {
#ifdef DSA_CUDA_ON_HOST
    check_subscript(s, rows, 0);
#endif
    const std::uint32_t page = std::uint32_t(s) / std::uint32_t(page_rows);
    return {pages(page) + first + (s - page * page_rows) * width, {width}};
  }
};

/// The range of keys of every query (optimized/shared/key_range.hpp).
struct KeyRanges {
  DeviceView<const std::int32_t, 1> begin, end;  // (T)
};

template <class T, int Rank>
void expect_shape(const char* name, const DeviceView<T, Rank>& x,
                  std::type_identity_t<Shape<Rank>> expected) {
  Shape<Rank> shape;
  for (std::size_t axis = 0; axis < Rank; ++axis) shape[axis] = x.shape[axis];
  dsa::expect_shape(name, View<T, Rank>{nullptr, shape}, expected);
}

}  // namespace dsa::cuda::DSA_PLACE
