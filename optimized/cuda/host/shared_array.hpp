// optimized/cuda/host/shared_array.hpp — arrays in a block's shared memory, every access checked.
#pragma once

#include "optimized/cuda/host/shared_memory.hpp"
#include "optimized/cuda/host/words.hpp"

namespace dsa::cuda::host {

/// The result of subscripting a Shared. It distinguishes reads from writes.
template <class T>
class SharedReference {
 public:
  explicit SharedReference(T* at) : at_(at) {}
  SharedReference(const SharedReference&) = default;
  operator T() const {
    reads_shared(at_, sizeof(T));
    return *at_;
  }
  SharedReference& operator=(T value) {
    writes_shared(at_, sizeof(T));
    *at_ = value;
    return *this;
  }
  SharedReference& operator=(const SharedReference& other) { return *this = static_cast<T>(other); }
  SharedReference& operator+=(T value) { return *this = static_cast<T>(*this) + value; }

 private:
  T* at_;
};

template <class T>
struct Shared {
  T* data = nullptr;
  std::int64_t n = 0;

  SharedReference<T> operator[](std::int64_t i) const { return SharedReference<T>(address(i)); }
  T* address(std::int64_t i) const {
    check_subscript(i, n, 0);
    return data + i;
  }
  T atomic_add(std::int64_t i, T value) const {
    T* at = address(i);
    updates_shared(at, sizeof(T));
    const T old = *at;
    *at = old + value;
    return old;
  }
  void atomic_or(std::int64_t i, T bits) const {
    T* at = address(i);
    updates_shared(at, sizeof(T));
    *at |= bits;
  }
};

/// At an address that Shared::address() gave.
template <class T>
T shared_load(const T* p) {
  reads_shared(p, sizeof(T));
  return *p;
}
template <class T>
void shared_store(T* p, T value) {
  writes_shared(p, sizeof(T));
  *p = value;
}

/// The launch's shared memory, given out from its beginning.
class SharedMemory {
 public:
  template <class T>
  Shared<T> take(std::int64_t n) {
    const std::size_t bytes = sizeof(T) * static_cast<std::size_t>(n), begin = used_;
    used_ += (bytes + 15) / 16 * 16;
    return {reinterpret_cast<T*>(shared_at(begin, bytes)), n};
  }

 private:
  std::size_t used_ = 0;
};

inline void copy_async_16(void* to, const void* from, bool valid) {
  begin_copy(to, valid ? from : nullptr, 16);
}
inline void copy_async_4(void* to, const void* from, bool valid) {
  begin_copy(to, valid ? from : nullptr, 4);
}
inline void copy_async_commit() { commit_copies(); }
template <int pending>
void copy_async_wait() {
  wait_for_copies(pending);
}

}  // namespace dsa::cuda::host
