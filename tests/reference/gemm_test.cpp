// The one matrix product: right, and a row of it the same bits however many rows there are.
#include "reference/ops/gemm.hpp"

#include <cstring>

#include "tests/catch.hpp"
#include "tests/models.hpp"
#include "verify/measure/bounds.hpp"

using namespace dsa;
using namespace dsa::test;

namespace {

struct Build {
  const char* name;
  reference::Gemm* gemm;
};

/// The builds that this machine can run.
std::vector<Build> builds() {
  std::vector<Build> all = {{"portable", reference::gemm_portable}};
#ifdef __x86_64__
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    all.push_back({"avx2", reference::gemm_avx2});
  if (__builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    all.push_back({"avx512", reference::gemm_avx512});
#endif
  return all;
}

Tensor<double, 2> product(const Build& build, const Tensor<double, 2>& x,
                          const Tensor<double, 2>& w, Index begin, Index end) {
  const Index in = x.shape()[1], out = w.shape()[0];
  Tensor<double, 2> y({end - begin, out}, 7);
  build.gemm(y.data(), out, x.data() + begin * in, w.data(), end - begin, out, in);
  return y;
}

constexpr Index T = 70;

}  // namespace

TEST_CASE("a row of a matrix product does not depend on how many rows there are", "[gemm]") {
  for (const Build& build : builds())
    for (const Index in : {1, 2, 3, 7, 17, 32, 33, 100, 257, 511, 600, 1537})
      for (const Index out : {1, 2, 3, 5, 8, 15, 23, 24, 25, 47, 65, 128}) {
        const auto x = normal<2>({T, in}, 1), w = normal<2>({out, in}, 2);
        const auto all = product(build, x, w, 0, T);
        for (Index n = 1; n <= T; n += n < 9 || in * out < 600 ? 1 : 13)
          for (const Index begin : {Index{0}, (T - n) / 2, T - n}) {
            const auto some = product(build, x, w, begin, begin + n);
            if (distance(some, rows(all, begin, begin + n)) == 0) continue;
            FAIL_CHECK(build.name << ": rows " << begin << " to " << begin + n << ", in " << in
                                  << ", out " << out);
          }
      }
}

TEST_CASE("a matrix product that is copied in part is right to rounding", "[gemm]") {
  for (const Build& build : builds())
    for (const Index n : {1, 4, 31, 128, 131, 134})
      for (const Index out : {1, 2, 33}) {
        const Index in = 301;
        const auto x = normal<2>({n, in}, 1), w = normal<2>({out, in}, 2);
        const auto y = product(build, x, w, 0, n);
        Index wrong = 0;
        for (Index t = 0; t < n; ++t)
          for (Index o = 0; o < out; ++o) {
            long double sum = 0, magnitude = 0;
            for (Index i = 0; i < in; ++i) {
              const long double term = static_cast<long double>(x(t, i)) * w(o, i);
              sum += term, magnitude += std::abs(term);
            }
            wrong += !(std::abs(y(t, o) - sum) <=
                       magnitude * verify::gamma(in, verify::unit_roundoff_fp64));
          }
        INFO(build.name << ": " << n << " rows, out " << out);
        CHECK(wrong == 0);
      }
}

TEST_CASE("a matrix product writes its columns and no others", "[gemm]") {
  for (const Build& build : builds())
    for (const Index out : {1, 3}) {
      const auto x = normal<2>({6, 9}, 1), w = normal<2>({out, 9}, 2);
      Tensor<double, 2> wide({6, 5}, 7);
      build.gemm(wide.data() + 1, 5, x.data(), w.data(), 6, out, 9);
      const auto y = product(build, x, w, 0, 6);
      for (Index t = 0; t < 6; ++t)
        for (Index c = 0; c < 5; ++c) {
          INFO(build.name << " " << t << " " << c);
          CHECK(wide(t, c) == (c >= 1 && c <= out ? y(t, c - 1) : 7));
        }
    }
}
