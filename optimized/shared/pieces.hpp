// optimized/shared/pieces.hpp — a thread's scratch cut into arrays; without memory, it counts
// bytes.
#pragma once

#include <cstddef>

#include "core/tensor.hpp"

namespace dsa {

class Pieces {
 public:
  Pieces() = default;
  explicit Pieces(std::byte* data) : data_(data) {}

  /// `n` elements on a cache line of their own.
  template <class T>
  T* take(Index n) {
    return reinterpret_cast<T*>(take_bytes(n * static_cast<Index>(sizeof(T))));
  }
  std::byte* take_bytes(Index n) {
    std::byte* const piece = data_ ? data_ + bytes_ : nullptr;
    bytes_ += (n + 63) / 64 * 64;
    return piece;
  }
  Index bytes() const { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  Index bytes_ = 0;
};

}  // namespace dsa
