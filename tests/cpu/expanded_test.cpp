// MLA in expanded form: what dsa-verify ops cannot see of it, and when it is chosen.
#include "optimized/cpu/ops/mla_expanded.hpp"
#include "optimized/shared/mla_form.hpp"
#include "tests/catch.hpp"
#include "tests/cpu/caches.hpp"
#include "tests/cpu/helpers.hpp"

using namespace dsa;
using namespace dsa::test;

namespace {

constexpr Index N = 3, R = 24, P = 6, B = 10, U = 7;

struct Result {
  Tensor<float, 3> out;
  Tensor<float, 2> lse;
};

/// T queries and S keys in type X, float or bf16.
template <class X>
struct Problem {
  Index T, S;
  Tensor<X, 3> q;
  Tensor<X, 2> kv;
  std::vector<Tensor<float, 2>> kv_b;

  Problem(Index queries, Index keys)
      : T(queries),
        S(keys),
        q(stored<X>(draw<3>({T, N, B + P}, 1))),
        kv(stored<X>(draw<2>({S, R + P}, 2))) {
    for (std::uint64_t n = 0; n < N; ++n) kv_b.push_back(draw<2>({B + U, R}, 3 + n));
  }

  Result attend(cpu::Tier tier, const Ranges& visible, Index page_rows = 1000) const {
    Result y{Tensor<float, 3>({T, N, U}, 99), Tensor<float, 2>({T, N}, 99)};
    std::vector<cpu::Matrix> w;
    for (const auto& head : kv_b)
      w.push_back(
          cpu::expansion_of({tier}, head, B, std::is_same_v<X, float> ? Dtype::f32 : Dtype::bf16));
    ScratchMemory scratch(cpu::mla_expanded_scratch<X>(T, N, R, P, B, U), 1);
    const Paged<X> cache(kv, page_rows);
    cpu::mla_expanded<X, X>({tier}, {y.out, y.lse},
                            {.q = q, .kv = cache, .w = w, .visible = visible, .scale = 0.3},
                            scratch);
    return y;
  }
};

bool same(const Result& a, Index t, const Result& b, Index at) {
  return std::equal(a.out.view()[t].begin(), a.out.view()[t].end(), b.out.view()[at].begin()) &&
         std::equal(a.lse.view()[t].begin(), a.lse.view()[t].end(), b.lse.view()[at].begin());
}

}  // namespace

TEMPLATE_TEST_CASE("expanded: a query attends alone as among others", "[cpu][cpu-expanded]", float,
                   bf16) {
  const Index T = 150, S = 1200;  // three tiles; three blocks of keys
  const Problem<TestType> all(T, S);
  for (const cpu::Tier tier : cpu::usable_tiers())
    for (const Ranges& visible : {causal(T, S), ranges(T, S, 4)}) {
      const Result together = all.attend(tier, visible);
      for (const Index t : {0, 1, 2, 63, 64, 77, 149}) {
        Problem<TestType> one(1, S);
        std::copy_n(&all.q(t, 0, 0), one.q.size(), one.q.data());
        INFO(name_of(tier) << ", query " << t);
        CHECK(same(one.attend(tier, Ranges({visible.begin(t)}, {visible.end(t)})), 0, together, t));
      }
      for (const int n : {1, 3})
        for (const Index page_rows : {1, 64}) {
          const SharingThreads threads(n);
          const Result again = all.attend(tier, visible, page_rows);
          CHECK(same_bits(again.out, together.out));
          CHECK(same_bits(again.lse, together.lse));
        }
    }
}

TEMPLATE_TEST_CASE("expanded: a NaN reaches those who look at it, and nobody else",
                   "[cpu][cpu-expanded]", float, bf16) {
  const Index T = 6, S = 200;
  const Problem<TestType> clean(T, S);
  for (const Ranges& visible :
       {causal(T, S), Ranges({0, 199, 0, 0, 199, 0}, {198, 200, 199, 1, 200, 198})})
    for (const Index channel : {0, 26}) {  // of values and keys; of keys alone
      Problem<TestType> poisoned = clean;
      std::memset(static_cast<void*>(&poisoned.kv(198, channel)), 0xff, sizeof(TestType));
      for (const cpu::Tier tier : cpu::usable_tiers()) {
        const Result before = clean.attend(tier, visible), after = poisoned.attend(tier, visible);
        for (Index t = 0; t < T; ++t) {
          const bool looks = visible.begin(t) <= 198 && 198 < visible.end(t);
          INFO(name_of(tier) << ", channel " << channel << ", query " << t);
          for (Index n = 0; n < N; ++n) {
            CHECK(std::isnan(after.out(t, n, 1)) == looks);
            CHECK(std::isnan(after.lse(t, n)) == looks);
          }
          if (!looks) CHECK(same(after, t, before, t));
        }
      }
    }
}

TEST_CASE("expanded: what is promised is checked", "[cpu][cpu-expanded]") {
  Problem<float> problem(2, 10);
  CHECK_THROWS_WITH(problem.attend(cpu::Tier::portable, Ranges({0, -1}, {5, 10})),
                    Catch::Contains("query 1 sees keys -1 to 10"));
  Problem<float> narrow = problem;
  narrow.kv = Tensor<float, 2>({10, R + P - 1});
  CHECK_THROWS_WITH(narrow.attend(cpu::Tier::portable, causal(2, 10)),
                    Catch::Contains("kv has rows of 29"));
  problem.kv_b[1] = draw<2>({B + U, R + 1}, 1);
  CHECK_THROWS_WITH(
      problem.attend(cpu::Tier::portable, causal(2, 10)),
      Catch::Contains("the matrix of a head is F32 of shape (42, 25), expected F32 of "
                      "shape (42, 24)"));
  problem.kv_b.pop_back();
  CHECK_THROWS_WITH(problem.attend(cpu::Tier::portable, causal(2, 10)),
                    Catch::Contains("2 matrices, expected one for each of 3 heads"));
}

TEST_CASE("MLA attends in the form of fewer operations", "[cpu][cpu-expanded]") {
  Config c;  // V3.2's shape
  c.kv_lora_rank = 512, c.qk_rope_head_dim = 64, c.qk_nope_head_dim = 128, c.v_head_dim = 128;
  // A pair costs 2176 or 640 operations, a query or a key 262144.
  CHECK(expanded_is_cheaper(c, 512, 512));
  CHECK(expanded_is_cheaper(c, 512, 100000));
  CHECK(expanded_is_cheaper(c, 171, 1000000));
  CHECK_FALSE(expanded_is_cheaper(c, 170, 1000000));
  CHECK_FALSE(expanded_is_cheaper(c, 1, 2));
  CHECK_FALSE(expanded_is_cheaper(c, 1, 100000));
  c.kv_lora_rank = 32;  // heads wider than the latent row: nothing to gain
  CHECK_FALSE(expanded_is_cheaper(c, 512, 512));
  for (const MlaForm mla : {MlaForm::automatic, MlaForm::absorbed, MlaForm::expanded})
    CHECK(mla_form_named(name_of(mla)) == mla);
  CHECK_THROWS_WITH(mla_form_named("naive"),
                    "MLA has no form \"naive\"; choose one of automatic, absorbed, expanded");
}
