// tests/verify/conclude_test.cpp — from checks to an outcome, by hand-made judgements. Success
// is a positive statement: what was not compared, or cannot be ordered, is not a pass.
#include "verify/judge/conclude.hpp"

#include <limits>

#include "tests/catch.hpp"
#include "verify/judge/samples.hpp"

using Catch::Matchers::Contains;
using namespace dsa;
using namespace dsa::verify;

namespace {

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

/// A check of n numbers, the worst of which is this one.
Check check_of(double value, double limit, Index n, const Place& at = {}) {
  Check check;
  check.add_value(value, limit, at);
  check.n = n;
  return check;
}

LogitsResult fine_logits(Index rows, Index undecided = 0) {
  LogitsResult l;
  l.all.rows = rows;
  l.decided.rows = rows - undecided;
  for (Index t = 0; t < rows; ++t) {
    RowResult row;
    row.at = {0, t, -1};
    row.undecided = t < undecided;
    l.rows.push_back(row);
  }
  l.kl = check_of(1e-30, 1e-28, rows - undecided, {0, 0, -1});
  l.elements = check_of(0.5, 1, rows - undecided, {0, 0, 3});
  return l;
}

TensorResult tensor(const std::string& name, Index over = 0) {
  TensorResult r;
  r.name = name;
  r.n = 10;
  r.over = over;
  return r;
}

Judgement judgement(std::optional<LogitsResult> logits, std::vector<TensorResult> tensors = {}) {
  Judgement j;
  j.logits = std::move(logits);
  j.tensors = std::move(tensors);
  return j;
}

Outcome concluded(Judgement& j) {
  conclude(j);
  CHECK(!j.why.empty());
  return j.outcome;
}

}  // namespace

TEST_CASE("a judgement with everything within its limits passes", "[judge]") {
  Judgement j = judgement(fine_logits(10), {tensor("model.norm"), tensor("lm_head")});
  CHECK(concluded(j) == Outcome::pass);
  CHECK(!j.first_departure);
  Judgement traced = judgement(std::nullopt, {tensor("model.norm")});
  CHECK(concluded(traced) == Outcome::pass);
  Judgement some = judgement(fine_logits(10, 5));
  CHECK(concluded(some) == Outcome::pass);  // half of the rows were decided
}

TEST_CASE("the first tensor that is not ok is the first departure", "[judge]") {
  Judgement j = judgement(fine_logits(10), {tensor("a"), tensor("b", 1), tensor("c", 4)});
  CHECK(concluded(j) == Outcome::fail);
  CHECK(j.first_departure == std::optional<std::string>("b"));
  CHECK_THAT(j.why, Contains("b"));

  j = judgement(std::nullopt, {tensor("a"), tensor("b")});
  j.tensors[0].wrong_kind = 1;
  CHECK(concluded(j) == Outcome::fail);
  CHECK(j.first_departure == std::optional<std::string>("a"));

  j = judgement(std::nullopt, {tensor("a")});
  j.tensors[0].n = 0;  // nothing of it was compared
  CHECK(concluded(j) != Outcome::pass);
}

TEST_CASE("NaN comes first, before limits and before the user's limits", "[judge]") {
  Judgement j = judgement(fine_logits(10, 9));
  j.logits->all.wrong_kind = 1;
  CHECK(concluded(j) == Outcome::fail);
  CHECK_THAT(j.why, Contains("NaN"));
  j.logits->user = {check_of(0, 1, 10)};
  CHECK(concluded(j) == Outcome::fail);

  for (Check LogitsResult::*check : {&LogitsResult::kl, &LogitsResult::elements}) {
    Judgement odd = judgement(fine_logits(10));
    (*odd.logits.*check).add_value(not_a_number, 1, {0, 0, 0});
    CHECK(concluded(odd) == Outcome::fail);
    odd = judgement(fine_logits(10));
    (*odd.logits.*check).add_value(0.5, not_a_number, {0, 0, 0});
    CHECK(concluded(odd) == Outcome::fail);
    odd = judgement(fine_logits(10));
    (*odd.logits.*check).worst = not_a_number;  // even if nobody counted it
    CHECK(concluded(odd) != Outcome::pass);
  }
}

TEST_CASE("a row or an element beyond its limit fails", "[judge]") {
  Judgement j = judgement(fine_logits(10));
  j.logits->kl.over = 1;
  CHECK(concluded(j) == Outcome::fail);
  j = judgement(fine_logits(10));
  j.logits->elements.over = 1;
  CHECK(concluded(j) == Outcome::fail);
  j = judgement(fine_logits(10, 9));  // one decided row is enough to be wrong
  j.logits->kl.over = 1;
  CHECK(concluded(j) == Outcome::fail);
}

TEST_CASE("the user's limits take the place of ours", "[judge]") {
  const Check met = check_of(0.5, 1, 10), missed = check_of(2, 1, 10);
  Judgement j = judgement(fine_logits(10));
  j.logits->kl.over = j.logits->elements.over = 4;
  j.logits->user = {met};
  CHECK(concluded(j) == Outcome::pass);
  CHECK_THAT(j.why, Contains("command line"));
  j.logits->user = {met, missed};
  CHECK(concluded(j) == Outcome::fail);
  j = judgement(fine_logits(10));
  j.logits->user = {missed};
  CHECK(concluded(j) == Outcome::fail);
  j.logits->user = {check_of(0, 1, 0)};  // compared nothing
  CHECK(concluded(j) != Outcome::pass);
}

TEST_CASE("most rows undecided is inconclusive", "[judge]") {
  Judgement j = judgement(fine_logits(10, 6));
  CHECK(concluded(j) == Outcome::inconclusive);
  CHECK_THAT(j.why, Contains("6 of 10"));
  j = judgement(fine_logits(10, 10));
  CHECK(concluded(j) == Outcome::inconclusive);
}

TEST_CASE("nothing compared is not a pass", "[judge]") {
  Judgement nothing = judgement(std::nullopt);
  CHECK(concluded(nothing) != Outcome::pass);
  Judgement empty = judgement(fine_logits(0));
  CHECK(concluded(empty) != Outcome::pass);
  LogitsResult uncompared = fine_logits(10);
  uncompared.kl.n = uncompared.elements.n = 0;
  Judgement unchecked = judgement(uncompared);
  CHECK(concluded(unchecked) != Outcome::pass);
  CHECK(outcome_of_samples({}) != Outcome::pass);
}
