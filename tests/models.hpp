// tests/models.hpp — numbers, models and runs that the tests of the reference share.
#pragma once

#include <algorithm>
#include <cmath>
#include <deque>
#include <filesystem>
#include <initializer_list>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/checkpoint.hpp"
#include "core/random.hpp"
#include "core/recording.hpp"
#include "reference/model/forward.hpp"
#include "tests/paths.hpp"
#include "tests/threads.hpp"

namespace dsa::test {

constexpr double infinity = std::numeric_limits<double>::infinity();

template <class T>
using Rows = std::initializer_list<std::initializer_list<T>>;

/// A matrix written down row by row.
template <class T>
Tensor<T, 2> table(Rows<T> rows) {
  Tensor<T, 2> x({static_cast<Index>(rows.size()), static_cast<Index>(rows.begin()->size())});
  auto out = x.begin();
  for (const auto& row : rows) out = std::copy(row.begin(), row.end(), out);
  return x;
}
inline Tensor<double, 2> matrix(Rows<double> rows) { return table(rows); }
inline Tensor<Index, 2> subscripts(Rows<Index> rows) { return table(rows); }

inline Tensor<double, 1> vector(std::initializer_list<double> values) {
  Tensor<double, 1> x({static_cast<Index>(values.size())});
  std::copy(values.begin(), values.end(), x.begin());
  return x;
}

template <int Rank>
Tensor<double, Rank> normal(Shape<Rank> shape, std::uint64_t seed) {
  Tensor<double, Rank> x(shape);
  for (Index i = 0; i < x.size(); ++i) x.data()[i] = gaussian(seed, static_cast<std::uint64_t>(i));
  return x;
}

/// max |a - b|; infinite where the shapes differ, or one is NaN, or only one is infinite.
template <class A, class B, int Rank>
double distance(const Tensor<A, Rank>& a, const Tensor<B, Rank>& b) {
  if (a.shape() != b.shape()) return infinity;
  double worst = 0;
  for (Index i = 0; i < a.size(); ++i) {
    const auto x = a.data()[i];
    const auto y = b.data()[i];
    if (x == y) continue;
    const double d = static_cast<double>(std::abs(x - y));
    worst = std::isfinite(d) ? std::max(worst, d) : infinity;
  }
  return worst;
}

/// By more than the order of a sum makes, relative to the largest finite element; -inf differs from
/// every number.
inline bool differ(const Tensor<double, 2>& a, const Tensor<double, 2>& b) {
  if (a.shape() != b.shape()) return true;
  double largest = 0, error = 0;
  for (Index i = 0; i < a.size(); ++i) {
    const double x = a.data()[i], y = b.data()[i];
    if (std::isfinite(x) != std::isfinite(y)) return true;
    if (!std::isfinite(x)) continue;
    largest = std::max(largest, std::abs(x));
    error = std::max(error, std::abs(x - y));
  }
  return error > 1e-9 * largest;
}

template <class T>
double range(const Tensor<T, 2>& x) {
  const auto [low, high] = std::minmax_element(x.begin(), x.end());
  return static_cast<double>(*high - *low);
}

/// Every number is one of the format's.
inline bool all_in(Dtype format, const Tensor<double, 2>& x) {
  return std::all_of(x.begin(), x.end(), [&](double v) { return round_to(format, v) == v; });
}

template <class T>
Tensor<T, 2> rows(const Tensor<T, 2>& x, Index begin, Index end) {
  const Index width = x.shape()[1];
  Tensor<T, 2> part({end - begin, width});
  std::copy_n(x.data() + begin * width, part.size(), part.data());
  return part;
}

/// A parameter in F64 over numbers that somebody else keeps.
inline Parameter parameter(const double* values, std::vector<Index> shape,
                           const std::string& name = "w") {
  Parameter p;
  p.name = name;
  p.dtype = Dtype::f64;
  p.shape = std::move(shape);
  p.data = reinterpret_cast<const std::byte*>(values);
  return p;
}
template <int Rank>
Parameter parameter(const Tensor<double, Rank>& x) {
  return parameter(x.data(), {x.shape().begin(), x.shape().end()});
}

/// Every parameter of the config drawn at random, in F64, owned by the model.
inline Model random_model(const Config& config, std::uint64_t seed) {
  Model model{config, empty_weights(config), nullptr};
  const auto memory = std::make_shared<std::deque<Tensor<double, 1>>>();
  for_each_tensor(model.weights, config,
                  [&](const std::string& name, Parameter& p, const std::vector<Index>& shape) {
                    Index n = 1;
                    for (const Index extent : shape) n *= extent;
                    Tensor<double, 1> x = normal<1>({n}, random_bits(seed, memory->size()));
                    const bool gain = name.ends_with("norm.weight");
                    const double scale =
                        shape.size() < 2 ? 0.25 : 1 / std::sqrt(static_cast<double>(shape[1]));
                    for (double& value : x) value = value * scale + (gain ? 1 : 0);
                    memory->push_back(std::move(x));
                    p = parameter(memory->back().data(), shape, name);
                  });
  tie_weights(model.weights, config);
  model.memory = memory;
  return model;
}

inline std::filesystem::path sample(const std::string& name) {
  return std::filesystem::path(source_dir()) / "data" / "samples" / name;
}

inline Model sample_model(const std::string& name) {
  return resident(open_checkpoint(sample(name) / "checkpoint"), Index{1} << 30);
}

inline Recording sample_golden(const Model& model, const std::string& file) {
  return read_recording(sample(file + ".safetensors"), "fp64", model.config.vocab_size);
}

/// n ids without a pattern.
inline std::vector<Token> some_tokens(const Model& model, Index n, std::uint64_t seed = 1) {
  std::vector<Token> tokens;
  for (Index i = 0; i < n; ++i)
    tokens.push_back(static_cast<Token>(random_bits(seed, static_cast<std::uint64_t>(i)) %
                                        static_cast<std::uint64_t>(model.config.vocab_size)));
  return tokens;
}

inline Sequence part(const Sequence& s, Index begin, Index end) {
  const auto cut = [&](const auto& x) {
    return std::vector<Index>(x.begin() + begin, x.begin() + end);
  };
  return {cut(s.tokens), cut(s.positions), cut(s.documents)};
}

/// What a Tap saw, pass after pass.
template <class Real>
struct Record {
  std::map<std::string, Tensor<Real, 2>> tensors;  // of the last pass
  std::vector<std::string> names;                  // in order of execution
  /// Per decision and row: what was chosen, in ascending order, without -1.
  std::map<std::string, std::vector<std::vector<Index>>> decisions;

  reference::Tap<Real> tap() {
    reference::Tap<Real> tap;
    tap.tensor = [this](const std::string& name, View<Real, 2> x) {
      names.push_back(name);
      Tensor<Real, 2> copy(x.shape);
      std::copy(x.begin(), x.end(), copy.begin());
      tensors[name] = std::move(copy);
    };
    tap.decision = [this](const std::string& name, View<const Real, 2>, View<Index, 2> chosen) {
      for (Index t = 0; t < chosen.shape[0]; ++t) {
        std::vector<Index> row(chosen[t].begin(), chosen[t].end());
        std::erase(row, -1);
        std::sort(row.begin(), row.end());
        decisions[name].push_back(std::move(row));
      }
    };
    return tap;
  }
};

/// Logits of one sequence, in one go. One thread: passes this small would wait for others.
template <class Real = double>
Tensor<Real, 2> logits_of(const Model& model, const Sequence& sequence,
                          const reference::Tap<Real>& tap = {},
                          reference::MlaForm form = reference::MlaForm::expanded, int threads = 1) {
  const SharingThreads scope(threads);
  const reference::Ops<Real> ops = reference::definition<Real>();
  reference::Cache<Real> cache;
  return reference::forward<Real>({model, ops, tap, form}, sequence, cache);
}

/// The same in chunks that end at `ends`, through one cache.
inline Tensor<double, 2> logits_in_chunks(const Model& model, const Sequence& sequence,
                                          const std::vector<Index>& ends,
                                          const reference::Tap<double>& tap = {}) {
  const SharingThreads scope(1);
  const reference::Ops<double> ops = reference::definition<double>();
  reference::Cache<double> cache;
  Tensor<double, 2> all({sequence.size(), model.config.vocab_size});
  Index begin = 0;
  for (const Index end : ends) {
    const Tensor<double, 2> logits =
        reference::forward<double>({model, ops, tap}, part(sequence, begin, end), cache);
    std::copy(logits.begin(), logits.end(), all.data() + begin * model.config.vocab_size);
    begin = end;
  }
  return all;
}

}  // namespace dsa::test
