// The selections that an indexer's is measured against.
#include "optimized/train/model/selectors.hpp"

#include <cmath>

#include "tests/catch.hpp"

using namespace dsa;
using namespace dsa::train;

namespace {

using Row = std::vector<std::int32_t>;

const std::vector<std::int32_t> two_documents = {0, 0, 0, 3, 3, 3, 3, 3};
View<const std::int32_t, 1> begins() {
  return {two_documents.data(), {static_cast<Index>(two_documents.size())}};
}

Row row(const Tensor<std::int32_t, 2>& chosen, Index t) {
  return {chosen.view()[t].begin(), chosen.view()[t].end()};
}

}  // namespace

TEST_CASE("the most recent keys end at a document's beginning", "[train]") {
  Tensor<std::int32_t, 2> chosen({8, 2});
  choose_recent(chosen, begins());
  CHECK(row(chosen, 0) == Row{0, -1});
  CHECK(row(chosen, 2) == Row{1, 2});
  CHECK(row(chosen, 3) == Row{3, -1});
  CHECK(row(chosen, 7) == Row{6, 7});
}

TEST_CASE("random keys are visible, each once, and every key has its turn", "[train]") {
  std::vector<int> drawn(5, 0);
  for (std::uint64_t seed = 0; seed < 500; ++seed) {
    Tensor<std::int32_t, 2> chosen({8, 2});
    choose_random(chosen, begins(), seed);
    CHECK(row(chosen, 3) == Row{3, -1});
    CHECK(row(chosen, 4) == Row{3, 4});
    const Row last = row(chosen, 7);
    REQUIRE((3 <= last[0] && last[0] < last[1] && last[1] <= 7));
    for (const std::int32_t s : last) ++drawn[static_cast<std::size_t>(s - 3)];
  }
  // 200 of 500 are expected of each; the standard deviation is sqrt(500 * 0.4 * 0.6) = 11.
  for (const int n : drawn) CHECK(std::abs(n - 200) < 5 * 11);
}

TEST_CASE("the best keys are those of the largest attention over all heads", "[train]") {
  const Index T = 8;
  Tensor<float, 3> q({T, 2, 1}), k({T, 2, 1});
  for (float& x : q) x = 1;
  // Of the last row: head 0 looks at key 4, head 1 at key 6; all others share the rest alike.
  k(4, 0, 0) = 10;
  k(6, 1, 0) = 10;
  const cpu::HeadsIn in{q.view(), k.view(), {nullptr, {T, 2, 0}}, begins(), 1};
  Tensor<std::int32_t, 2> chosen({T, 3});
  choose_oracle(chosen, in);
  CHECK(row(chosen, 7) == Row{3, 4, 6});  // of equal ones, the first
  CHECK(row(chosen, 5) == Row{3, 4, 5});
  CHECK(row(chosen, 3) == Row{3, -1, -1});
  CHECK(row(chosen, 2) == Row{0, 1, 2});
}

TEST_CASE("every head's attention counts alike, however large its logits are", "[train]") {
  // Row 4: head 0 gives key 0 1/3 and the others 1/6; head 1 gives key 2 0.77 and key 4 0.23.
  const std::vector<std::int32_t> one_document(5, 0);
  Tensor<float, 3> q({5, 2, 1}), k({5, 2, 1});
  for (float& x : q) x = 1;
  for (Index s = 0; s < 5; ++s) {
    k(s, 0, 0) = s == 0 ? 0 : std::log(0.5f);
    k(s, 1, 0) = s == 2 ? 0 : s == 4 ? std::log(0.3f) : -30;
  }
  Tensor<std::int32_t, 2> chosen({5, 2});
  choose_oracle(chosen, {q.view(), k.view(), {nullptr, {5, 2, 0}}, {one_document.data(), {5}}, 1});
  CHECK(row(chosen, 4) == Row{2, 4});
}
