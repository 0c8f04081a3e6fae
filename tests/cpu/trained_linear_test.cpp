// Products of training on inputs whose sums are exact in fp32 and in bf16: every tier, either dtype
// and any number of threads give the numbers of plain loops.
#include "optimized/cpu/ops/trained_linear.hpp"

#include <vector>

#include "core/random.hpp"
#include "core/threads.hpp"
#include "optimized/cpu/ops/pack.hpp"
#include "tests/catch.hpp"

using namespace dsa;
using cpu::Cpu;
using cpu::LinearRows;
using cpu::Matrix;

namespace {

constexpr Index T = 170, in = 45, out = 70;

/// Halves from -4 to 4: products of 170 of them are sums of quarters below 2^13.
Tensor<float, 2> halves(Shape<2> shape, std::uint64_t seed) {
  Tensor<float, 2> x(shape);
  for (Index i = 0; i < x.size(); ++i)
    x.data()[i] = static_cast<float>(
                      static_cast<int>(random_bits(seed, static_cast<std::uint64_t>(i)) % 17) - 8) /
                  2;
  return x;
}

/// Three matrices: of 37 rows, of none, of the rest.
struct Problem {
  Tensor<float, 2> x = halves({T, in}, 1), d_y = halves({T, out}, 2);
  std::vector<Tensor<float, 2>> w, d_w;
  Tensor<float, 1> bias{{out}, 0.5f};
  std::vector<Tensor<float, 1>> d_b;
  std::vector<Matrix> by_output, by_input;
  std::vector<LinearRows> rows;

  Problem(Cpu cpu, Dtype dtype) {
    const Index ends[] = {0, 37, 37, T};
    for (std::uint64_t m = 0; m < 3; ++m) {
      w.push_back(halves({out, in}, 10 + m));
      d_w.push_back(halves({out, in}, 20 + m));
      d_b.emplace_back(Shape<1>{out}, 1.0f);
      by_output.emplace_back(out, in, dtype);
      by_input.emplace_back(in, out, dtype);
    }
    for (std::size_t m = 0; m < 3; ++m) {
      const std::vector<cpu::Packing> both = {{&by_output[m], w[m].data(), in, 1},
                                              {&by_input[m], w[m].data(), 1, in}};
      cpu::pack(cpu, both);
      rows.push_back({ends[m], ends[m + 1], &by_output[m], &by_input[m], bias.view(), d_w[m].view(),
                      d_b[m].view()});
    }
  }

  /// Which matrix multiplies row t.
  std::size_t of(Index t) const { return t < 37 ? 0 : 2; }
};

void check_forward(Cpu cpu, const Problem& p, bool add, cpu::TrainMemory& memory) {
  Tensor<float, 2> y({T, out + 3}, 2.0f);  // of which columns 1 to 1 + out are written
  cpu::linear_rows(cpu, {y.data() + 1, T, out, out + 3}, p.x, p.rows, add, memory);
  for (Index t = 0; t < T; ++t)
    for (Index o = 0; o < out; ++o) {
      float want = add ? 2.5f : 0.5f;
      for (Index i = 0; i < in; ++i) want += p.w[p.of(t)](o, i) * p.x(t, i);
      REQUIRE(y(t, o + 1) == want);
    }
  CHECK(y(5, 0) == 2);
  CHECK(y(5, out + 1) == 2);
}

void check_backward(Cpu cpu, const Problem& p, bool add, cpu::TrainMemory& memory) {
  Tensor<float, 2> d_x({T, in}, 2.0f);
  cpu::linear_rows_backward_input(cpu, d_x, p.d_y.view(), p.rows, add, memory);
  for (Index t = 0; t < T; ++t)
    for (Index i = 0; i < in; ++i) {
      float want = add ? 2.0f : 0.0f;
      for (Index o = 0; o < out; ++o) want += p.w[p.of(t)](o, i) * p.d_y(t, o);
      REQUIRE(d_x(t, i) == want);
    }
}

void check_weights(Cpu cpu, Problem& p, cpu::TrainMemory& memory) {
  const std::vector<Tensor<float, 2>> before = p.d_w;
  cpu::linear_rows_backward_weight(cpu, p.x, p.d_y.view(), p.rows, memory);
  for (std::size_t m = 0; m < 3; ++m)
    for (Index o = 0; o < out; ++o) {
      float d_b = 1;
      for (Index t = p.rows[m].begin; t < p.rows[m].end; ++t) d_b += p.d_y(t, o);
      REQUIRE(p.d_b[m](o) == d_b);
      for (Index i = 0; i < in; ++i) {
        float want = before[m](o, i);
        for (Index t = p.rows[m].begin; t < p.rows[m].end; ++t) want += p.d_y(t, o) * p.x(t, i);
        REQUIRE(p.d_w[m](o, i) == want);
      }
    }
}

}  // namespace

TEST_CASE("products of training are exact on exact inputs", "[cpu][train]") {
  for (const cpu::Tier tier : cpu::usable_tiers())
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16})
      for (const int threads : {1, 3}) {
        INFO(cpu::name_of(tier) << ", " << name_of(dtype) << ", " << threads << " threads");
        const Threads scope(threads);
        const Cpu cpu{tier};
        cpu::TrainMemory memory;
        Problem p(cpu, dtype);
        for (const bool add : {false, true}) {
          check_forward(cpu, p, add, memory);
          check_backward(cpu, p, add, memory);
        }
        check_weights(cpu, p, memory);
      }
}

TEST_CASE("products of training refuse rows and matrices that do not fit", "[cpu][train]") {
  using Catch::Matchers::Contains;
  const Cpu cpu;
  cpu::TrainMemory memory;
  Problem p(cpu, Dtype::f32);
  Tensor<float, 2> y({T, out});
  p.rows[2].end = T + 1;
  CHECK_THROWS_WITH(cpu::linear_rows(cpu, y.view(), p.x, p.rows, false, memory),
                    Contains("rows 37 to 171 of x, expected a range within 0 to 170"));
  p.rows[2].end = T;
  p.rows[0].w = &p.by_input[0];
  CHECK_THROWS_WITH(cpu::linear_rows(cpu, y.view(), p.x, p.rows, false, memory),
                    Contains("w has shape (45, 70), expected (70, 45)"));
}
