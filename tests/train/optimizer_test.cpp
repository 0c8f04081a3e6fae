#include "optimized/train/pipeline/optimizer.hpp"

#include <omp.h>

#include <cmath>

#include "core/random.hpp"
#include "core/threads.hpp"
#include "reference/ops/adamw.hpp"
#include "tests/catch.hpp"

using namespace dsa;
using namespace dsa::train;

namespace {

/// A parameter with gradients that change from step to step.
struct Problem {
  Leaf p, g;
  std::vector<double> p64, m64, v64, g64;

  explicit Problem(Index rows, Index columns)
      : p({rows, columns}), g({rows, columns}), m64(size(), 0), v64(size(), 0), g64(size(), 0) {
    for (Index i = 0; i < p.size(); ++i)
      p.data()[i] = static_cast<float>(gaussian(1, static_cast<std::uint64_t>(i)));
    p64.assign(p.begin(), p.end());
  }
  std::size_t size() const { return static_cast<std::size_t>(p.size()); }

  void next(std::uint64_t step) {
    for (Index i = 0; i < g.size(); ++i) {
      g.data()[i] = static_cast<float>(0.1 * gaussian(step + 2, static_cast<std::uint64_t>(i)));
      g64[static_cast<std::size_t>(i)] = static_cast<double>(g.data()[i]);
    }
  }
  Trained trained(bool is_matrix) { return {"p", &p, &g, is_matrix}; }
};

/// An optimiser of one rank, and the gradient of steps of one micro-batch.
struct Alone {
  ranks::Communicator ranks;
  Optimizer optimizer{ranks};
  GradientSum gradient{ranks};

  double step(const std::vector<Trained>& all, const AdamW& adamw, const Clip& clip, double lr) {
    gradient.begin(all, 1);
    gradient.add_round();
    return optimizer.step(all, gradient, adamw, clip, lr);
  }
};

constexpr Index steps = 6;

/// Largest distance of a parameter from the reference in fp64, in units of the step's rounding.
double worst(const AdamW& adamw, const Clip& clip, bool is_matrix) {
  Problem problem(61, 83);
  Alone alone;
  const std::vector<Trained> all = {problem.trained(is_matrix)};
  alone.optimizer.keep(all);
  constexpr double lr = 0.01;
  double largest = 0;
  for (Index n = 1; n <= steps; ++n) {
    problem.next(static_cast<std::uint64_t>(n));
    double square = 0;
    for (const double g : problem.g64) square += g * g;
    const double factor = reference::clip_factor(std::sqrt(square), clip);
    reference::adamw_step<double>(
        {problem.p64, problem.m64, problem.v64, is_matrix || adamw.decayed == AdamW::Decayed::all},
        problem.g64, adamw, lr, factor, n);
    CHECK(alone.step(all, adamw, clip, lr) == Approx(std::sqrt(square)).epsilon(1e-12));
  }
  for (std::size_t i = 0; i < problem.size(); ++i) {
    // A step moves p by lr m / root, which has about a dozen roundings, and rounds p itself twice;
    // |p| stays below 8, |m / root| below 8 where eps is inside of it or small.
    const double bound = static_cast<double>(steps) * 0x1p-24 * (2 * 8 + 12 * lr * 8);
    largest = std::max(largest,
                       std::abs(static_cast<double>(problem.p.data()[i]) - problem.p64[i]) / bound);
  }
  return largest;
}

}  // namespace

TEST_CASE("the optimiser follows the reference in double", "[train]") {
  AdamW adamw;
  CHECK(worst(adamw, {1, 1e-6}, true) < 1);
  CHECK(worst(adamw, {0, 0}, false) < 1);
  adamw.decoupled = false;
  CHECK(worst(adamw, {1, 1e-6}, true) < 1);
  adamw.bias_correction = false;
  CHECK(worst(adamw, {1, 1e-6}, true) < 1);
  adamw.eps_inside_root = true;
  adamw.decayed = AdamW::Decayed::all;
  CHECK(worst(adamw, {1, 1e-6}, false) < 1);
}

TEST_CASE("a step is the same for any number of threads", "[train]") {
  const auto after = [](int threads) {
    const Threads scope(threads);
    Problem problem(101, 97);
    Alone alone;
    const std::vector<Trained> all = {problem.trained(true)};
    alone.optimizer.keep(all);
    problem.next(1);
    alone.step(all, {}, {}, 0.01);
    return std::vector<float>(problem.p.begin(), problem.p.end());
  };
  CHECK(after(1) == after(3));
}

TEST_CASE("moments go on while a parameter is trained, and no longer", "[train]") {
  Problem problem(2, 2);
  Alone alone;
  const std::vector<Trained> all = {problem.trained(true)};
  alone.optimizer.keep(all);
  problem.next(1);
  alone.step(all, {}, {}, 0.01);
  alone.optimizer.keep(all);
  CHECK(alone.optimizer.moments().at("p").steps == 1);
  alone.optimizer.keep({});
  CHECK(alone.optimizer.moments().empty());
  alone.optimizer.keep(all);
  CHECK(alone.optimizer.moments().at("p").steps == 0);
  CHECK(alone.optimizer.moments().at("p").m[0] == 0);
}

TEST_CASE("a gradient that is not finite changes nothing", "[train]") {
  Problem problem(2, 2);
  Alone alone;
  const std::vector<Trained> all = {problem.trained(true)};
  alone.optimizer.keep(all);
  problem.next(1);
  problem.g(1, 1) = std::nanf("");
  const std::vector<float> before(problem.p.begin(), problem.p.end());
  CHECK(std::isnan(alone.step(all, {}, {}, 0.01)));
  CHECK(before == std::vector<float>(problem.p.begin(), problem.p.end()));
  CHECK(alone.optimizer.moments().at("p").steps == 0);
}
