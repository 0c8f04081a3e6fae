// What a step reports of its losses, and how ranks tell each other.
#include "optimized/train/pipeline/step_losses.hpp"

#include "tests/catch.hpp"

using namespace dsa;
using namespace dsa::train;

namespace {

Losses some_losses(double factor) {
  Losses x;
  x.lm = 3 * factor, x.lm_weight = 2 * factor;
  x.mtp = 5 * factor, x.mtp_weight = 4 * factor;
  x.balance = 7 * factor;
  x.kl = {11 * factor, 13 * factor};
  x.kl_rows = static_cast<Index>(6 * factor);
  x.load = {{1, 2}, {3, 4, 5}};
  return x;
}

}  // namespace

TEST_CASE("losses of micro-batches add up, and a step reports their means", "[train]") {
  Losses sum;
  add(sum, some_losses(1));
  add(sum, some_losses(2));
  StepSize size;
  size.documents = 10;
  const Json means = means_of(sum, size);
  CHECK(means.at("loss.lm") == 9.0 / 6);
  CHECK(means.at("loss.mtp") == 15.0 / 12);
  CHECK(means.at("loss.balance") == Approx(21.0 / 10));
  CHECK(means.at("loss.kl") == Approx((33.0 + 39.0) / 18 / 2));
  CHECK(sum.load == std::vector<std::vector<Index>>{{2, 4}, {6, 8, 10}});
}

TEST_CASE("losses survive the way to another rank", "[train]") {
  const Losses x = some_losses(1), y = losses_of(to_numbers(x));
  CHECK(y.lm == x.lm);
  CHECK(y.lm_weight == x.lm_weight);
  CHECK(y.mtp == x.mtp);
  CHECK(y.mtp_weight == x.mtp_weight);
  CHECK(y.balance == x.balance);
  CHECK(y.kl == x.kl);
  CHECK(y.kl_rows == x.kl_rows);
  CHECK(y.load == x.load);
}
