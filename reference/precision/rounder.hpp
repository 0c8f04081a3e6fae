// reference/precision/rounder.hpp — roundings of one emulated run; shared by the precisions.
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <numbers>
#include <string>

#include "core/dtype.hpp"
#include "core/random.hpp"
#include "core/rounding.hpp"
#include "reference/precision/precision.hpp"

namespace dsa::reference {

/// One stream of random numbers: a function of the run's seed, the op's name and a step in it.
class Stream {
 public:
  Stream(const Rounding& rounding, const std::string& name, int step)
      : random_(rounding.mode == Rounding::Mode::random), seed_(mix(rounding.seed, name, step)) {}

  bool random() const { return random_; }

  /// x rounded to the format, to nearest or by the i-th die of the stream.
  double round(Dtype format, double x, Index i) const {
    if (!random_) return round_to_in_line(format, x);
    return round_stochastically_in_line(format, x, uniform(seed_, static_cast<std::uint64_t>(i)));
  }

  /// The i-th die of the stream, in [0, 1); random mode only.
  double uniform_of(Index i) const { return uniform(seed_, static_cast<std::uint64_t>(i)); }

  /// The error of a sum of n products held in an accumulator of format `wide`; 0 to nearest.
  /// squares: the sum of squared terms (or an estimate); y: the result.
  double accumulation(Dtype wide, Index n, double squares, double y, Index i) const {
    if (!random_) return 0;
    const double terms = static_cast<double>(n);
    const double deviation =
        float_format(wide).unit_roundoff * std::sqrt(terms * squares / 6 + terms * y * y / 9);
    const double die = uniform(seed_, (std::uint64_t{1} << 62) + static_cast<std::uint64_t>(i));
    return deviation * std::numbers::sqrt3 * (2 * die - 1);  // uniform, of that deviation
  }

 private:
  static std::uint64_t mix(std::uint64_t seed, const std::string& name, int step);
  bool random_;
  std::uint64_t seed_;
};

/// The formats of an emulated run.
struct Formats {
  Dtype model;          // of activations
  Dtype wide;           // of accumulators, norms, softmax and router
  Dtype values = wide;  // of the sum of p.v
};

/// Ops that the precisions share, each rounding where HuggingFace does.
struct Rounded {
  Formats formats;
  Rounding rounding;
  bool complex_rope = false;  // V2 rotates complex fp32 numbers; the others round every product
  /// What a product with the values makes of the i-th probability, by the op's name; empty:
  /// nothing.
  std::function<std::function<double(double, Index)>(const std::string&)> narrow_probability = {};

  using In = View<const double, 2>;
  using Out = View<double, 2>;
  using Name = const std::string&;

  void linear(Name, Out y, In x, const Linear&, Dtype out) const;
  void rmsnorm(Name, Out y, In x, const Parameter& g, double eps) const;
  void index_key_norm(Name, Out y, In x, const IndexerWeights&, const Indexer&) const;
  void rope_table(Name, Out cos, Out sin, std::span<const Index> positions, const Rope&) const;
  void rope(Name, View<double, 3> x, In cos, In sin, RopeLayout) const;
  void indexer_scores(Name, Out scores, View<const double, 3> q, In k, In w, const Indexer&,
                      const Visibility&) const;
  void mla(Name, View<double, 3> out, View<const double, 3> q_nope, View<const double, 3> q_rope,
           View<const double, 3> kv, In k_rope, View<const Index, 2> chosen, double scale) const;
  void router_scores(Name, Out s, In z, Router::Scoring) const;
  void router_weights(Name, Out weights, In s, View<const Index, 2> experts, bool normalise,
                      double scale) const;
  void swiglu(Name, Out h, In gate, In up) const;
  void accumulate(Name, Out y, In x, std::span<const Index> rows,
                  std::span<const double> weights) const;
  void add(Name, Out y, In x) const;
  void round_all(Name, Out x, Dtype, int step) const;

  /// All rows of the table but those a precision replaces.
  Ops<double> ops() const;
};

}  // namespace dsa::reference
