// Recall by position, from recalls of beginnings alone.
#include <cmath>

#include "experiments/sweep/evaluate/by_position.hpp"
#include "tests/catch.hpp"

using namespace dsa;
using namespace dsa::sweep;
using dsa::Recall;
using dsa::train::Batch;

namespace {

/// Two documents of a and b tokens in one micro-batch.
Batch packed(Index a, Index b) {
  Batch batch;
  for (Index t = 0; t < a + b; ++t) {
    batch.tokens.push_back(t);
    batch.positions.push_back(t < a ? t : t - a);
    batch.begin.push_back(static_cast<std::int32_t>(t < a ? 0 : a));
    batch.target_weight.push_back(1);
  }
  return batch;
}

/// Rows at positions from 8 on count, as with K = 2; what each finds is its position.
std::vector<Recall> position_of(const Batch& document) {
  Recall recall;
  for (const Index position : document.positions) {
    if (position < 8) continue;
    recall.indexer += static_cast<double>(position);
    recall.oracle += 1;
    ++recall.rows;
  }
  if (recall.rows > 0) recall.indexer /= static_cast<double>(recall.rows), recall.oracle = 1;
  return {recall, recall};  // two layers that agree
}

}  // namespace

TEST_CASE("documents of a micro-batch are taken apart", "[sweep]") {
  const std::vector<Batch> documents = documents_of({packed(3, 5), packed(2, 0)});
  REQUIRE(documents.size() == 3);
  CHECK(documents[1].tokens == std::vector<Token>{3, 4, 5, 6, 7});
  CHECK(documents[1].positions == std::vector<Index>{0, 1, 2, 3, 4});
  CHECK(documents[1].begin == std::vector<std::int32_t>(5, 0));
  CHECK(beginning(documents[1], 2).target_weight == std::vector<float>{1, 0});
  CHECK(beginning(documents[1], 9).rows() == 5);
}

TEST_CASE("a stretch has what a longer beginning has beyond a shorter one", "[sweep]") {
  // Positions 8..15 and 16..19 of a document of 20 tokens, 8..11 of one of 12, each in two layers.
  const auto stretches =
      recall_by_position(position_of, documents_of({packed(20, 12)}), {8, 16, 24, 32});
  REQUIRE(stretches.size() == 2);  // nothing counts before 8, nobody is there from 24 on
  CHECK(stretches[0].from == 8);
  CHECK(stretches[0].recall.rows == 2 * (8 + 4));
  CHECK(stretches[0].recall.indexer == Approx((8 * 11.5 + 4 * 9.5) / 12).epsilon(1e-12));
  CHECK(stretches[1].to == 24);
  CHECK(stretches[1].recall.rows == 2 * 4);
  CHECK(stretches[1].recall.indexer == Approx(17.5).epsilon(1e-12));
  CHECK(stretches[1].recall.oracle == Approx(1).epsilon(1e-12));
}
