// tests/verify/mutated_test.cpp — files that nobody meant: whatever a candidate holds, every
// command answers or says what is wrong with it.
#include <cmath>
#include <limits>

#include "core/random.hpp"
#include "tests/catch.hpp"
#include "tests/scratch.hpp"
#include "tests/verify/localise_helpers.hpp"
#include "verify/diagnose/diagnose.hpp"
#include "verify/diagnose/power.hpp"

using namespace dsa;
using namespace dsa::test;
using namespace dsa::verify;

namespace {

constexpr Index T = 26;  // four more than top-k: two documents' worth of selections, in no time

/// A trace and the logits of sample v32's first tokens, as columns to be mutated.
TensorFile right_file() {
  const Model model = open_checkpoint(sample("v32") / "checkpoint");
  Sequence sequence =
      read_recording(sample("v32") / "logits.safetensors", "fp64", 0).sequences.front();
  sequence.tokens.resize(T), sequence.positions.resize(T), sequence.documents.resize(T);
  const Recording dump = dump_of({model, reference::definition<double>()}, sequence, everything);
  TensorFile file;
  file.columns.push_back(
      {"tokens", Dtype::i64, {1, T}, {sequence.tokens.begin(), sequence.tokens.end()}});
  for (const Trace::Entry& entry : dump.trace.entries()) {
    const Tensor<double, 2> values = entry.values();
    file.columns.push_back({entry.name, entry.dtype, entry.shape, {values.begin(), values.end()}});
  }
  Column logits = file.at("lm_head");
  logits.name = "logits", logits.shape.insert(logits.shape.begin(), 1);
  file.columns.push_back(logits);
  return file;
}

/// Dice of one seed, in order.
struct Dice {
  std::uint64_t seed, next = 0;
  double uniform() { return dsa::uniform(seed, next++); }
  std::size_t below(std::size_t n) {
    return std::min(n - 1, static_cast<std::size_t>(uniform() * static_cast<double>(n)));
  }
};

double strange(Dice& dice) {
  constexpr double inf = std::numeric_limits<double>::infinity();
  const double values[] = {inf, -inf, std::nan(""), 0, -0.0, 1e300, -1e300, 1e-300, -1, 2e9, 1e18};
  return values[dice.below(std::size(values))];
}

void mutate_values(Column& column, Dice& dice) {
  const std::size_t count = 1 + dice.below(dice.below(2) == 0 ? 3 : column.values.size());
  for (std::size_t i = 0; i < count; ++i) {
    double& x = column.values[dice.below(column.values.size())];
    const bool integer = column.dtype == Dtype::i64 || column.dtype == Dtype::i32;
    x = integer ? std::floor(40 * dice.uniform()) - 6 : dice.below(2) == 0 ? strange(dice) : x * 2;
  }
}

void swap_rows(Column& column, Dice& dice) {
  const auto width = static_cast<std::size_t>(column.shape.back());
  const std::size_t rows = column.values.size() / width, a = dice.below(rows), b = dice.below(rows);
  std::swap_ranges(column.values.begin() + long(a * width),
                   column.values.begin() + long((a + 1) * width),
                   column.values.begin() + long(b * width));
}

void reshape(Column& column, Dice& dice) {
  const auto kind = dice.below(4);
  if (kind == 0) std::reverse(column.shape.begin(), column.shape.end());
  if (kind == 1) column.shape = {static_cast<Index>(column.values.size())};
  if (kind == 2) column.shape.insert(column.shape.begin(), 1);
  if (kind == 3 && column.shape[column.shape.size() - 1] > 1) {
    const Index width = column.shape.back() - 1;
    column.values.resize(column.values.size() / std::size_t(width + 1) * std::size_t(width));
    column.shape.back() = width;
  }
}

TensorFile mutated(TensorFile file, std::uint64_t seed) {
  Dice dice{random_bits(0xF022, seed)};
  for (int i = 0; i < 3 && dice.below(3) > 0; ++i) {  // less to tell, in other ways each time
    const double share = dice.uniform();
    std::erase_if(file.columns, [&](const Column& c) {
      return c.name != "tokens" && dice.uniform() < share * share;
    });
  }
  for (std::size_t i = 0, n = 1 + dice.below(4); i < n; ++i) {
    Column& column = file.columns[dice.below(file.columns.size())];
    switch (dice.below(6)) {
      case 0:
        swap_rows(column, dice);
        break;
      case 1:
        reshape(column, dice);
        break;
      case 2:
        column.name += dice.below(2) == 0 ? ".weight" : "x";
        break;
      case 3:
        if (column.dtype == Dtype::f64)
          column.dtype = dice.below(2) == 0 ? Dtype::f32 : Dtype::bf16;
        break;
      default:
        mutate_values(column, dice);
    }
  }
  return file;
}

/// An answer or an Error: anything else ends the test, or the process.
template <class F>
bool answers(F f) {
  try {
    f();
    return true;
  } catch (const Error& e) {
    CHECK(std::string(e.what()).size() > 10);
    return false;
  }
}

struct Counts {
  int written = 0, answered = 0, refused = 0;
};

/// Files `from` to `from + count` through golden and localise; every `few`-th through power, and
/// through diagnose, which run the whole catalogue.
Counts judge_mutated(std::uint64_t from, int count, int few) {
  const Scratch scratch;
  const TensorFile right = right_file();
  const auto checkpoint = sample("v32") / "checkpoint", file = scratch / "mutated";
  JudgeOptions options;
  options.runs = 2;
  Counts counts;
  for (int i = 0; i < count; ++i) {
    const auto seed = from + static_cast<std::uint64_t>(i);
    INFO("seed " << seed);
    mutated(right, seed).write(file);
    ++counts.written;
    const auto tally = [&](bool answered) { ++(answered ? counts.answered : counts.refused); };
    tally(answers([&] { judge(checkpoint, file, std::nullopt, options); }));
    tally(answers([&] { table(localise(checkpoint, file, options), false); }));
    if (i % few == 0) tally(answers([&] { to_html(diagnose(checkpoint, file, options)); }));
    if (i % few == few / 2) tally(answers([&] { power(checkpoint, file, options); }));
  }
  return counts;
}

}  // namespace

TEST_CASE("mutated traces and logits are judged, or refused in a sentence", "[judge][slow]") {
  const Counts counts = judge_mutated(0, 60, 20);
  CHECK(counts.answered > 30);
  CHECK(counts.refused > 10);
}

/// Run it under AddressSanitizer: dsa_tests '[mutated]'.
TEST_CASE("ten thousand mutated traces and logits", "[.mutated]") {
  const Counts counts = judge_mutated(1000, 10000, 100);
  CHECK(counts.written == 10000);
}
