// verify/defects/alter.hpp — the tools that defects are made of.
//
// A defect wraps an op rather than replacing it, so that the roundings of a precision stay: the
// inner op is told other numbers, or its result is changed.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "core/check.hpp"
#include "core/trace_names.hpp"
#include "verify/defects/defect.hpp"

namespace dsa::verify {

using Name = const std::string&;
using In = View<const double, 2>;
using Out = View<double, 2>;
using In3 = View<const double, 3>;
using Out3 = View<double, 3>;
using Chosen = View<Index, 2>;
using Keys = View<const Index, 2>;

/// Which trace names a wrapper is meant for.
using Where = std::function<bool(Name)>;

inline Where ends(std::string end) {
  return [end = std::move(end)](Name name) { return name.ends_with(end); };
}
inline Where contains(std::string part) {
  return [part = std::move(part)](Name name) { return name.find(part) != std::string::npos; };
}
inline Where anywhere() {
  return [](Name) { return true; };
}

/// Replaces an op: where the name fits, f(inner, name, arguments...) runs instead of the inner op.
template <class... A, class F>
void around(std::function<void(Name, A...)>& op, Where where, F f) {
  op = [inner = std::move(op), where = std::move(where), f = std::move(f)](Name name, A... a) {
    if (where(name))
      f(inner, name, a...);
    else
      inner(name, a...);
  };
}

/// The op left out: its result, already in place, stays as it is.
template <class... A>
void leave_out(std::function<void(Name, A...)>& op, Where where) {
  around(op, std::move(where), [](const auto&...) {});
}

/// What one op of a pass saw, for a later op of the same pass. A pass calls its ops from one
/// thread; passes in parallel threads do not see each other's.
template <class T>
class Memory {
 public:
  void put(T value) const {
    const std::lock_guard lock(shared_->mutex);
    shared_->values[std::this_thread::get_id()] = std::make_unique<const T>(std::move(value));
  }
  bool has() const { return find() != nullptr; }

  /// Valid until this thread's next put(). Error before the first one: another defect of a pair may
  /// replace the op that was to be remembered.
  const T& get() const {
    const T* value = find();
    require(value != nullptr,
            "what the op saw was never kept: another variant replaces the op that keeps it");
    return *value;
  }

 private:
  struct Shared {
    std::mutex mutex;
    std::map<std::thread::id, std::unique_ptr<const T>> values;
  };
  const T* find() const {
    const std::lock_guard lock(shared_->mutex);
    const auto found = shared_->values.find(std::this_thread::get_id());
    return found == shared_->values.end() ? nullptr : found->second.get();
  }
  std::shared_ptr<Shared> shared_ = std::make_shared<Shared>();
};

template <class T, int Rank>
Tensor<std::remove_const_t<T>, Rank> copy_of(View<T, Rank> x) {
  Tensor<std::remove_const_t<T>, Rank> y(x.shape);
  std::copy(x.begin(), x.end(), y.begin());
  return y;
}

template <class To, class From>
void copy_into(To to, const From& from) {
  std::copy(from.begin(), from.end(), to.begin());
}

/// What either form of MLA is told besides its tensors; may be rewritten.
struct AttentionTold {
  Tensor<Index, 2> chosen;
  double scale;
};
void around_attention(Variant&, std::function<void(Name, AttentionTold&)>);

/// The same defect of the index scores or of the selection, where the attention reads the right
/// selection: an indexer that runs beside the model, or a trace that was taken of it alone.
std::function<void(Variant&)> unread(std::function<void(Variant&)> apply);

/// The selection of keys: f(inner, name, chosen, scores).
template <class F>
void around_selection(Variant& altered, F f) {
  around(altered.ops.topk_select, ends("self_attn.indexer"), std::move(f));
}

/// "eps=1e-05"
std::string constant(const std::string& what, double value);

/// "https://github.com/owner/name/issues/n"; GitHub redirects where n is a pull request.
std::string issue(const std::string& repository, int number);
std::string repository(const std::string& name);

/// A variant that changes the config only.
DefectVariant config_variant(std::string name, std::function<void(Config&)>);

/// Constants of any model: a range that does not depend on it.
std::function<std::pair<double, double>(const Config&)> between(double from, double to);

/// m(factor, x) = 0.1 x ln factor + 1, YaRN's factor of the softmax scale.
double mscale(const Config&, double x);

bool any_model(const Config&);
bool has_indexer(const Config&);
bool has_router(const Config&);
bool has_groups(const Config&);  // and drops some of them
bool has_softmax_mscale(const Config&);
bool has_power_of_two_index_head(const Config&);

}  // namespace dsa::verify
