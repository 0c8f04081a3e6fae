// The tests of the CPU backend run every tier that this processor has.
#include <algorithm>
#include <string>
#include <vector>

#include "optimized/cpu/ops/tier.hpp"
#include "tests/catch.hpp"
#include "tests/skip.hpp"

using namespace dsa;
using cpu::Tier;

TEST_CASE("a tier that this processor cannot run is told as skipped", "[cpu]") {
  const std::vector<Tier>& usable = cpu::usable_tiers();
  CHECK(usable.front() == Tier::portable);
  for (const Tier tier : {Tier::portable, Tier::avx2, Tier::avx512, Tier::avx512_bf16, Tier::amx})
    if (std::find(usable.begin(), usable.end(), tier) == usable.end())
      test::skip("the tier " + std::string(name_of(tier)) + " is not run: this processor lacks it");
}
