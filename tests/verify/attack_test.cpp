// tests/verify/attack_test.cpp — the judge is attacked: good logits, spoiled in every way that some
// comparator in use lets through, must fail as goldens and as candidates.
#include <cmath>
#include <functional>
#include <limits>

#include "tests/catch.hpp"
#include "tests/scratch.hpp"
#include "tests/verify/judge_helpers.hpp"

using namespace dsa;
using namespace dsa::test;
using namespace dsa::verify;

namespace {

constexpr Index B = 2, T = 48;  // of sample v32: beyond top-k (22), twice over
constexpr Index row = 30;       // the victim, in sequence 0

struct Attack {
  const char* name;
  std::function<void(Column&)> spoil;
};

/// The channel of a row whose logit is the largest in magnitude.
Index peak(Column& logits, Index t) {
  const Index V = logits.shape.back();
  const double* x = logits.row(t);
  return std::max_element(x, x + V, [](double a, double b) { return std::abs(a) < std::abs(b); }) -
         x;
}

void scale(Column& logits, double factor) {
  for (double& x : logits.values) x *= factor;
}

void shift(Column& logits, double by) {
  for (double& x : logits.values) x += by;
}

std::vector<Attack> attacks() {
  constexpr double inf = std::numeric_limits<double>::infinity();
  return {
      {"one NaN", [](Column& x) { x(row, 3) = std::nan(""); }},
      {"one inf", [](Column& x) { x(row, 3) = inf; }},
      {"one -inf", [](Column& x) { x(row, 3) = -inf; }},
      {"a NaN in the last place", [](Column& x) { x.values.back() = std::nan(""); }},
      {"all NaN", [](Column& x) { std::fill(x.values.begin(), x.values.end(), std::nan("")); }},
      {"all zero", [](Column& x) { scale(x, 0); }},
      {"one sign flip", [](Column& x) { x(row, peak(x, row)) *= -1; }},
      {"one element doubled", [](Column& x) { x(row, peak(x, row)) *= 2; }},
      {"one row zeroed", [](Column& x) { std::fill_n(x.row(row), x.shape.back(), 0.0); }},
      {"everything plus 1", [](Column& x) { shift(x, 1); }},
      {"everything negated", [](Column& x) { scale(x, -1); }},
      {"two rows swapped",
       [](Column& x) { std::swap_ranges(x.row(row), x.row(row) + x.shape.back(), x.row(17)); }},
      {"100 elements shifted by a column",
       [](Column& x) { std::rotate(x.row(row), x.row(row) + 99, x.row(row) + 100); }},
      {"all rows delayed by a position",
       [](Column& x) { std::copy_backward(x.row(0), x.row(T - 1), x.row(T)); }},
      {"the first sequence in place of the second",
       [](Column& x) { std::copy(x.row(0), x.row(T), x.row(T)); }},
  };
}

/// A difference that some precisions can hide: what each must still see.
std::vector<Attack> attacks_at(reference::Precision precision) {
  std::vector<Attack> list = attacks();
  if (precision == reference::Precision::hf_bf16) {
    // In bf16 the attacked row hangs on decisions within the noise: it is undecided, and one sign
    // in it is less than a lot may do.
    std::erase_if(list, [](const Attack& a) { return std::string(a.name) == "one sign flip"; });
    list.push_back({"everything times 1.25", [](Column& x) { scale(x, 1.25); }});
  } else {
    list.push_back({"everything times 1.001", [](Column& x) { scale(x, 1.001); }});
    list.push_back({"everything times 1.00001", [](Column& x) { scale(x, 1.00001); }});
    list.push_back({"everything plus 0.0001", [](Column& x) { shift(x, 1e-4); }});
  }
  return list;
}

/// A sample's tokens and one column, short enough to be judged many times.
TensorFile short_golden(const std::string& dtype) {
  TensorFile file = golden_column("v32", dtype);
  file.cut(B, T);
  return file;
}

Verdict judged(const std::filesystem::path& golden,
               const std::optional<std::filesystem::path>& candidate,
               reference::Precision precision) {
  return judge(sample("v32") / "checkpoint", golden, candidate, quick(precision));
}

void attack_column(const std::string& dtype) {
  const reference::Precision precision = precision_of_dtype(dtype);
  const Scratch scratch;
  const auto good = scratch / "good", bad = scratch / "bad";
  short_golden(dtype).write(good);
  CHECK(judged(good, std::nullopt, precision).outcome == Outcome::pass);
  CHECK(judged(good, good, precision).outcome == Outcome::pass);
  for (const Attack& attack : attacks_at(precision)) {
    TensorFile spoiled = short_golden(dtype);
    attack.spoil(spoiled.at("logits." + dtype));
    spoiled.write(bad);
    CAPTURE(dtype, attack.name);
    CHECK(judged(bad, std::nullopt, precision).outcome == Outcome::fail);
    CHECK(judged(good, bad, precision).outcome == Outcome::fail);
    // A golden that is wrong makes no candidate right, not even the one that agrees with it.
    if (dtype == "fp64") CHECK(judged(bad, bad, precision).outcome == Outcome::fail);
  }
}

}  // namespace

TEST_CASE("spoiled fp64 logits fail", "[judge]") { attack_column("fp64"); }
TEST_CASE("spoiled fp32 logits fail", "[judge]") { attack_column("fp32"); }
TEST_CASE("spoiled bf16 logits fail", "[judge][slow]") { attack_column("bf16"); }

TEST_CASE("one logit off by 50 units of its limit fails, wherever it is", "[judge]") {
  const Scratch scratch;
  for (const std::string dtype : {"fp64", "fp32"}) {
    const reference::Precision precision = precision_of_dtype(dtype);
    const std::string name = "logits." + dtype;
    // A large error measures the limit of the place: the judge reports one in units of the other.
    TensorFile probe = short_golden(dtype);
    constexpr double large = 1;
    for (Index t = 0; t < B * T; ++t) probe.at(name)(t, (7 * t) % 107) += large;
    probe.write(scratch / "probe");
    const Verdict measured = judged(scratch / "probe", std::nullopt, precision);
    REQUIRE(measured.judged.logits);
    for (const Index t : {Index{0}, Index{21}, Index{47}, Index{48 + 33}}) {
      const RowResult& r = measured.judged.logits->rows.at(static_cast<std::size_t>(t));
      REQUIRE(r.worst_over_allowed > 1);
      REQUIRE(r.at.channel == (7 * t) % 107);
      TensorFile spoiled = short_golden(dtype);
      spoiled.at(name)(t, r.at.channel) += 50 * large / r.worst_over_allowed;
      spoiled.write(scratch / "bad");
      CAPTURE(dtype, t, r.worst_over_allowed);
      const Verdict verdict = judged(scratch / "bad", std::nullopt, precision);
      CHECK(verdict.outcome == Outcome::fail);
      REQUIRE(verdict.judged.logits);
      CHECK(verdict.judged.logits->elements.over == 1);
      CHECK(verdict.judged.logits->elements.at.sequence == t / T);
      CHECK(verdict.judged.logits->elements.at.position == t % T);
      CHECK(verdict.judged.logits->elements.at.channel == r.at.channel);
    }
  }
}

TEST_CASE("a shift of everything is seen by the elements alone", "[judge]") {
  const Scratch scratch;
  TensorFile spoiled = short_golden("fp64");
  shift(spoiled.at("logits.fp64"), 1);
  spoiled.write(scratch / "bad");
  const Verdict verdict = judged(scratch / "bad", std::nullopt, reference::Precision::fp64);
  CHECK(verdict.outcome == Outcome::fail);
  REQUIRE(verdict.judged.logits);
  CHECK(verdict.judged.logits->kl.over == 0);
  CHECK(verdict.judged.logits->elements.over == B * T);
}

TEST_CASE("a NaN is what the report shows, not what comes after it", "[judge]") {
  const Scratch scratch;
  TensorFile spoiled = short_golden("fp64");
  spoiled.at("logits.fp64")(row, 3) = std::nan("");
  spoiled.write(scratch / "bad");
  const Verdict verdict = judged(scratch / "bad", std::nullopt, reference::Precision::fp64);
  REQUIRE(verdict.judged.logits);
  const LogitsResult& logits = *verdict.judged.logits;
  CHECK(logits.all.wrong_kind == 1);
  CHECK(std::isnan(logits.all.kl_max));
  CHECK(logits.all.kl_max_at.position == row);
  CHECK(!logits.kl.ok());
  CHECK(!logits.elements.ok());
  CHECK(logits.kl.at.position == row);
  CHECK(logits.elements.at.position == row);
  CHECK(logits.elements.at.channel == 3);
}
