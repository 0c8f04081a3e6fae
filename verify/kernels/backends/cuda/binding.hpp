// verify/kernels/backends/cuda/binding.hpp — the arrays of a case, uploaded for one launch.
#pragma once

#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <vector>

#include "optimized/cuda/device/buffer.cuh"
#include "verify/kernels/cases/pose.hpp"

namespace dsa::verify::kernels::DSA_PLACE {

using namespace cuda::DSA_PLACE;

/// Owns the buffers of one launch. Copied into its closures through a shared_ptr.
class Binding {
 public:
  template <class T, int Rank>
  DeviceView<const T, Rank> in(const Array& a) {
    const View<const T, Rank> x = a.as<T, Rank>();
    return input(x.data, x.size()).template view<Rank>(x.shape);
  }
  /// Empty if the case has no such array.
  template <class T, int Rank>
  DeviceView<const T, Rank> optional(const Case& c, const char* name) {
    const auto found = c.in.find(name);
    return found == c.in.end() ? DeviceView<const T, Rank>{} : in<T, Rank>(found->second);
  }
  /// Downloaded by fetch(), which leaves it as the array was before: poisoned. It lies between two
  /// guard zones, for memory of a device has no others.
  template <class T, int Rank>
  DeviceView<T, Rank> out(Array& a) {
    constexpr Index guard = 256 / sizeof(T);
    const View<T, Rank> x = a.as<T, Rank>();
    std::vector<T> before = poisoned<T>(x.size() + 2 * guard);
    std::copy(x.begin(), x.end(), before.begin() + guard);
    Buffer<T>& buffer = keep(Buffer<T>(before.data(), static_cast<Index>(before.size())));
    downloads_.push_back([&buffer, x, before = std::move(before)] {
      std::vector<T> after(before.size());
      buffer.download(after.data());
      buffer.upload(before.data());
      std::copy_n(after.begin() + guard, x.size(), x.begin());
      const auto same = [&](Index first) {
        return std::memcmp(after.data() + first, before.data() + first, guard * sizeof(T)) == 0;
      };
      require(same(0) && same(guard + x.size()), "wrote beside an output");
    });
    DeviceView<T, Rank> view = buffer.template view<Rank>(x.shape);
    view.data += guard;
    return view;
  }
  template <class T>
  DeviceView<T, 1> scratch(Index n) {
    return keep(Buffer<T>(poisoned<T>(n).data(), n)).template view<1>({n});
  }
  /// An output that is also read: run() begins with copying `first` to it.
  template <class T, int Rank>
  DeviceView<T, Rank> in_out(Array& a, const T* first) {
    const View<T, Rank> x = a.as<T, Rank>();
    const Buffer<T>& from = input(first, x.size());
    Buffer<T>& to = keep(Buffer<T>(x.size()));
    before_.push_back([&from, &to] { to.copy_from(from, Stream{}); });
    downloads_.push_back([&to, x] { to.download(x.data); });
    return to.template view<Rank>(x.shape);
  }
  /// Rows (S, width) as a cache. How many rows a page has depends on the case's name: 1, 5, 64,
  /// 256, or all. Every page is a buffer of its own, and they are taken in no order.
  template <class T>
  Pages<const T> pages(const Case& c, const char* name) {
    const View<const T, 2> x = c.in.at(name).as<T, 2>();
    const Index S = x.shape[0], width = x.shape[1];
    Draw draw(c, 0);
    const Index sizes[] = {1, 5, 64, 256, std::max<Index>(1, S)};
    const Index page_rows = sizes[draw.below(std::size(sizes))];
    std::vector<Index> order(static_cast<std::size_t>((S + page_rows - 1) / page_rows));
    std::iota(order.begin(), order.end(), 0);
    for (std::size_t i = order.size(); i > 1; --i)
      std::swap(order[i - 1], order[static_cast<std::size_t>(draw.below(Index(i)))]);
    std::vector<const T*> list(order.size());
    for (const Index page : order) {
      const Index first = page * page_rows, rows = std::min(page_rows, S - first);
      list[static_cast<std::size_t>(page)] = input(x.data + first * width, rows * width).data();
    }
    const Index n = static_cast<Index>(list.size());
    return {{input(list.data(), n).data(), {n}}, page_rows, S, width};
  }

  void begin() const {
    for (const auto& copy : before_) copy();
  }
  /// Error: something was written beside an output, or to an input.
  void fetch() const {
    for (const auto& download : downloads_) download();
    for (const auto& check : inputs_) check();
  }

 private:
  /// Uploaded to be read. fetch() checks that it has not changed.
  template <class T>
  const Buffer<T>& input(const T* from, Index n) {
    const Buffer<T>& buffer = keep(Buffer<T>(from, n));
    if (n > 0)
      inputs_.push_back([&buffer, before = std::vector<T>(from, from + n)] {
        std::vector<T> after(before.size());
        buffer.download(after.data());
        require(std::memcmp(after.data(), before.data(), before.size() * sizeof(T)) == 0,
                "changed an input");
      });
    return buffer;
  }
  template <class T>
  static std::vector<T> poisoned(Index n) {
    std::vector<T> values(static_cast<std::size_t>(n));
    if (n > 0) std::memset(static_cast<void*>(values.data()), 0xff, values.size() * sizeof(T));
    return values;
  }
  template <class T>
  Buffer<T>& keep(Buffer<T> buffer) {
    auto owned = std::make_shared<Buffer<T>>(std::move(buffer));
    owned_.push_back(owned);
    return *owned;
  }

  std::vector<std::shared_ptr<void>> owned_;
  std::vector<std::function<void()>> before_, downloads_, inputs_;
};

/// run(): the copies of begin(), then the op. fetch(): the outputs, then `check`.
inline Launch launch_of(
    const std::shared_ptr<Binding>& binding, std::function<void()> op,
    std::function<void()> check = [] {}) {
  return {[binding, op = std::move(op)] {
            binding->begin();
            op();
          },
          [binding, check = std::move(check)] {
            binding->fetch();
            check();
          }};
}

/// One rung of one op's ladder, in one dtype.
struct Rung {
  const char *op, *rung, *dtype;
  Launch (*prepare)(const Case&, Arrays& out);
  std::string (*refuses)(const Case&) = [](const Case&) { return std::string(); };
};

std::vector<Rung> plain_rungs();    // embed, norms, rope, quantise, swiglu, router, experts, linear
std::vector<Rung> indexer_rungs();  // indexer_scores, topk_select, indexer_topk
std::vector<Rung> mla_rungs();      // mla_sparse, mla_dense

}  // namespace dsa::verify::kernels::DSA_PLACE
