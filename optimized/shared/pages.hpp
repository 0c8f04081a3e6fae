// optimized/shared/pages.hpp — rows of a cache that grows without being copied.
//
// A cache is a list of pages of `page_rows` rows each; a tensor in one piece is a cache of one
// page. Row s lies on page s / page_rows.
#pragma once

#include "core/tensor.hpp"

namespace dsa {

template <class T>
struct Pages {
  T* const* pages = nullptr;
  Index page_rows = 1;
  Index rows = 0;   // S
  Index width = 0;  // elements a row

  T* row(Index s) const {
    assert(0 <= s && s < rows);
    return pages[s / page_rows] + s % page_rows * width;
  }
};

/// A tensor as a cache of one page. `first` must outlive the result: it is where the page's
/// address is kept.
template <class T>
Pages<const T> one_page(View<const T, 2> x, const T*& first) {
  first = x.data;
  return {&first, x.shape[0] > 0 ? x.shape[0] : 1, x.shape[0], x.shape[1]};
}

}  // namespace dsa
