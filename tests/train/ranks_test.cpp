// Runs of several ranks are the run of one, bit for bit.
#include "optimized/train/pipeline/plan_ranks.hpp"
#include "optimized/train/pipeline/step_losses.hpp"
#include "tests/ranks/support.hpp"
#include "tests/train/run_support.hpp"

using namespace dsa;
using namespace dsa::test;
using namespace dsa::train;
using Catch::Matchers::Contains;

namespace {

/// Rows and parts of every stage but the third, which has two parts.
const std::vector<std::string> parts = {"data.batch=6",
                                        "stage[0].accumulation=6",
                                        "stage[1].accumulation=3",
                                        "stage[3].accumulation=6",
                                        "stage[4].accumulation=6",
                                        "stage[0].balance=1e-3"};

std::vector<std::string> with(std::vector<std::string> more) {
  more.insert(more.end(), parts.begin(), parts.end());
  return more;
}

std::vector<std::string> run_ranks(int n, const std::filesystem::path& out,
                                   const std::vector<std::string>& overrides,
                                   Index interrupted_at = -1) {
  return as_ranks(n, [&](ranks::Communicator& ranks) {
    run_short(ranks, out, overrides, ranks.is_first() ? -1 : interrupted_at);
  });
}

/// Parameters of a stage, with gradients drawn from the number of the micro-batch.
struct Problem {
  std::vector<Leaf> values, gradients;
  std::vector<Trained> trained;

  Problem() {
    const Shape<2> shapes[] = {{100, 300}, {7, 1}, {4096, 2}, {1, 1}, {9, 4097}};
    for (const Shape<2>& shape : shapes) {
      values.emplace_back(shape, 0.5f);
      gradients.emplace_back(shape);
    }
    for (std::size_t p = 0; p < values.size(); ++p)
      trained.push_back({"p" + std::to_string(p), &values[p], &gradients[p], p % 2 == 0});
  }
  void draw(Index part) {
    for (std::size_t p = 0; p < gradients.size(); ++p)
      for (Index i = 0; i < gradients[p].size(); ++i)
        gradients[p].data()[i] = std::sin(static_cast<float>((part + 1) * (i + 3)));
  }
  std::vector<TrainedSize> sizes() const {
    std::vector<TrainedSize> all;
    for (const Trained& one : trained) all.push_back({one.name, one.value->size()});
    return all;
  }
};

struct Stepped {
  double norm = 0;
  std::vector<float> values;
  std::int64_t sent = 0;
};

/// Two steps of so many micro-batches.
Stepped two_steps(ranks::Communicator& ranks, Index micro_batches) {
  Problem problem;
  GradientSum gradient(ranks);
  Optimizer optimizer(ranks);
  optimizer.keep(problem.trained);
  Stepped result;
  for (int step = 0; step < 2; ++step) {
    gradient.begin(problem.trained, micro_batches);
    for (Index first = 0; first < micro_batches; first += ranks.size()) {
      if (first + ranks.rank() < micro_batches) problem.draw(first + ranks.rank());
      gradient.add_round();
    }
    result.norm += optimizer.step(problem.trained, gradient, {}, {}, 1e-3);
  }
  for (const Leaf& leaf : problem.values)
    result.values.insert(result.values.end(), leaf.begin(), leaf.end());
  result.sent = ranks.sent_bytes();
  return result;
}

}  // namespace

TEST_CASE("shares cover a parameter once, in whole blocks", "[train][ranks]") {
  for (const Index size : {1, 4095, 4096, 4097, 100'000})
    for (const int n : {1, 2, 3, 7, 64}) {
      std::vector<int> owners(static_cast<std::size_t>(size));
      const std::vector<Index> sizes = share_sizes("name", size, n);
      for (int rank = 0; rank < n; ++rank) {
        const Share share = share_of("name", size, rank, n);
        CHECK(share.begin % numbers_of_a_block == 0);
        CHECK(share.size() == sizes[static_cast<std::size_t>(rank)]);
        for (Index i = share.begin; i < share.end; ++i) ++owners[static_cast<std::size_t>(i)];
      }
      CHECK(std::all_of(owners.begin(), owners.end(), [](int times) { return times == 1; }));
    }
}

TEST_CASE("sums, moments and values of n ranks are those of one", "[train][ranks]") {
  for (const Index micro_batches : {1, 3, 6}) {
    ranks::Communicator alone;
    const Stepped want = two_steps(alone, micro_batches);
    CHECK(std::isfinite(want.norm));
    for (const int n : {2, 4}) {
      std::vector<Stepped> got(static_cast<std::size_t>(n));
      check_no_failure(as_ranks(n, [&](ranks::Communicator& ranks) {
        got[static_cast<std::size_t>(ranks.rank())] = two_steps(ranks, micro_batches);
      }));
      const std::vector<double> sent = sent_bytes(Problem().sizes(), micro_batches, n);
      for (std::size_t r = 0; r < got.size(); ++r) {
        INFO("rank " << r << " of " << n << ", " << micro_batches << " micro-batches");
        CHECK(got[r].norm == want.norm);
        CHECK(got[r].values == want.values);
        CHECK(static_cast<double>(got[r].sent) == 2 * sent[r]);  // what the plan says
      }
    }
  }
}

TEST_CASE("gradients are added in the order of their micro-batches", "[train][ranks]") {
  Leaf value({1, 1}), g({1, 1});
  const std::vector<Trained> trained = {{"p", &value, &g, true}};
  ranks::Communicator alone;
  GradientSum sum(alone);
  sum.begin(trained, 3);
  for (const float x : {0x1p24f, 1.0f, -0x1p24f}) {
    g(0, 0) = x;
    sum.add_round();
  }
  CHECK(*sum.of(0) == 0);  // 2^24 + 1 rounds to 2^24; in another order the sum is 1
}

TEST_CASE("losses survive their way as numbers", "[train][ranks]") {
  Losses losses;
  losses.lm = 1.5;
  losses.mtp_weight = 7;
  losses.kl = {0.25, 3};
  losses.kl_rows = 9;
  losses.load = {{1, 2, 3}, {}, {4}};
  CHECK(to_numbers(losses_of(to_numbers(losses))) == to_numbers(losses));
  CHECK(losses_of(to_numbers(losses)).load == losses.load);
  CHECK(losses_of(to_numbers(losses)).kl == losses.kl);
}

TEST_CASE("a run of several ranks is the run of one", "[train][ranks]") {
  const Scratch scratch;
  run_short(scratch / "one", parts);
  for (const int n : {2, 3, 4}) {
    INFO(n << " ranks");
    const auto out = scratch / std::to_string(n);
    check_no_failure(run_ranks(n, out, parts));
    CHECK(newest_bytes(out) == newest_bytes(scratch / "one"));
    CHECK(metrics_of(out) == metrics_of(scratch / "one"));
    Json ours = read_json(out / "summary.json"), theirs = read_json(scratch / "one/summary.json");
    ours.erase("checkpoint");
    theirs.erase("checkpoint");
    CHECK(ours == theirs);
  }
}

TEST_CASE("ranks that hold micro-batches together are as many as one likes", "[train][ranks]") {
  const Scratch scratch;
  const std::vector<std::string> divided = {"run.context_ranks=2", "data.batch=6",
                                            "stage.accumulation=3"};
  for (const int n : {2, 4, 6})
    check_no_failure(run_ranks(n, scratch / std::to_string(n), divided));
  for (const char* more : {"4", "6"}) {
    CHECK(newest_bytes(scratch / more) == newest_bytes(scratch / "2"));
    CHECK(metrics_of(scratch / more) == metrics_of(scratch / "2"));
  }
  for (const std::string& sentence : run_ranks(3, scratch / "3", divided))
    CHECK_THAT(
        sentence,
        Contains("run.context_ranks is 2, which does not divide the job's number of ranks, 3"));
  for (const std::string& sentence :
       run_ranks(2, scratch / "balance", {"run.context_ranks=2", "stage[0].balance=1e-3"}))
    CHECK_THAT(sentence, Contains("set both to 0, or run.context_ranks to 1"));
}

TEST_CASE("a run goes on with other ranks, from any step", "[train][ranks]") {
  const Scratch scratch;
  run_short(scratch / "whole", parts);
  for (const Index at : {2, 5, 10, 12}) {  // 10: with adapters; 12: at a border
    INFO("interrupted after step " << at);
    const auto out = scratch / std::to_string(at);
    check_no_failure(run_ranks(3, out, parts, at));  // a rank that is not the first is asked to end
    CHECK(checkpoints_of(out / "ckpt").rbegin()->first == at);
    check_no_failure(run_ranks(2, out, with({"run.steps=13"})));
    CHECK(run_short(out, parts) == train::Outcome::completed);
    CHECK(newest_bytes(out) == newest_bytes(scratch / "whole"));
    CHECK(metrics_of(out) == metrics_of(scratch / "whole"));
  }
}

TEST_CASE("what the first rank cannot write ends all with its sentence", "[train][ranks]") {
  const Scratch scratch;
  const RunDirectory held(scratch / "a");
  for (const std::string& sentence : run_ranks(2, scratch / "a", {}))
    CHECK_THAT(sentence, Contains("rank 0 of 2") && Contains("another run writes to"));
}

TEST_CASE("ranks that begin otherwise are refused", "[train][ranks]") {
  const Scratch scratch;
  const auto sentences = as_ranks(2, [&](ranks::Communicator& ranks) {
    run_short(ranks, scratch / "a", {"run.seed=" + std::to_string(ranks.rank())}, -1);
  });
  for (const std::string& sentence : sentences)
    CHECK_THAT(sentence, Contains("the configuration of rank 1 differs from that of rank 0"));
}

TEST_CASE("a loss that is no number ends all ranks, and leaves one batch", "[train][ranks]") {
  const Scratch scratch;
  const auto sentences = run_ranks(2, scratch / "a",
                                   {"stage[0].lr=1e3", "optimizer.clip=0", "stage[0].steps=60",
                                    "optimizer.eps=1e-30", "optimizer.weight_decay=1e12"});
  for (const std::string& sentence : sentences) CHECK_THAT(sentence, Contains("--replay"));
  const auto failed =
      std::filesystem::directory_iterator(scratch / "a" / "failed")->path() / "batch.safetensors";
  CHECK(std::filesystem::exists(failed));
}

TEST_CASE("the plan of one rank sends nothing, of many about two models a step", "[train][ranks]") {
  const Settings settings =
      settings_of_short_run("unused", {"data.batch=64", "stage[0].accumulation=64"});
  const PlannedModel model = planned_model(settings);
  const Stage stage = stages_of(settings)[0];
  const Index numbers = size_of(model, stage).trained;
  Index listed = 0;
  for (const TrainedSize& one : trained_sizes(model, stage)) listed += one.size;
  CHECK(listed == numbers);
  CHECK(rank_plan(model, stage, 1, {}).sent == std::vector<double>{0});
  double sent = 0;
  for (const double bytes : rank_plan(model, stage, 64, {}).sent) sent += bytes;
  // Gradients and values go 63 times each; so does a sum of squares of every block, of which a
  // parameter has one at least.
  const double both = 63.0 * 2 * 4 * static_cast<double>(numbers);
  CHECK(sent >= both + 63.0 * 8 * static_cast<double>(trained_sizes(model, stage).size()));
  CHECK(sent < 1.5 * both);
  CHECK(rank_plan(model, stage, 16, {}).rounds == 4);
  CHECK_THAT(ranks_text(model, {stage}, {1, 64}, {}), Contains("speed-up"));
  CHECK(rank_plan(model, stage, 128, {}, 4).rounds == 2);
  CHECK(rank_plan(model, stage, 128, {}, 4).compute < rank_plan(model, stage, 64, {}).compute);
  CHECK_THAT(ranks_text(model, {stage}, {64}, {}, 4), Contains("each on 4 ranks"));
  CHECK_THROWS_WITH(rank_plan(model, stage, 6, {}, 4), Contains("plan for a multiple of it"));
}
