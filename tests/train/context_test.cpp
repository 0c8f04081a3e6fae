// Ranks that hold one micro-batch together: their losses and gradients add up to the definition's.
#include <numeric>

#include "optimized/train/pipeline/plan_ranks.hpp"
#include "optimized/train/pipeline/step_losses.hpp"
#include "tests/ranks/support.hpp"
#include "tests/train/support.hpp"

using namespace dsa;
using namespace dsa::test;
using reference::Precision;
using train::RowOrder;

namespace {

struct Case {
  std::string model = "v32calm";
  std::vector<Index> documents = {37, 29};
  bool dense = false;
  KlSemantics semantics = {};
};

struct Problem {
  Model model;
  Sequence sequence;
  Objective<double> objective;
  train::Objective factors;

  explicit Problem(const Case& c) {
    model = reference::loaded_as(golden_model(c.model), Precision::hf_fp32);
    model.config.use_sparse_attention = !c.dense;
    sequence = documents_of(model.config, c.documents, 1);
    objective = every_loss(model, sequence, c.semantics);
    objective.balance = 0;  // of all rows of a document: not divided
    objective.mtp.clear();
    factors = as_factors(objective, model.config, sequence, c.dense);
  }
};

struct Divided {
  std::vector<Trained> of_rank;
  std::vector<double> sent;

  Divided(const Problem& problem, int n, RowOrder order)
      : of_rank(static_cast<std::size_t>(n)), sent(static_cast<std::size_t>(n)) {
    check_no_failure(as_ranks(n, [&](ranks::Communicator& ranks) {
      const auto i = static_cast<std::size_t>(ranks.rank());
      train::TrainedModel model(problem.model, train::Compute::fp32);
      train::Context context(ranks, n, order);
      of_rank[i].losses =
          model.run(batch_of(problem.sequence), problem.factors, everything, &context);
      of_rank[i].gradients = values_of(model.gradients(), model.config());
      sent[i] = static_cast<double>(ranks.sent_bytes());
    }));
  }

  Trained sum() const {
    Trained all = of_rank.front();
    for (std::size_t r = 1; r < of_rank.size(); ++r) {
      train::add(all.losses, of_rank[r].losses);
      for (auto& [name, g] : all.gradients)
        for (std::size_t i = 0; i < g.size(); ++i) g[i] += of_rank[r].gradients.at(name)[i];
    }
    return all;
  }
};

void check_divided(const Case& c, const std::vector<int>& counts = {2}) {
  const Problem problem(c);
  const Defined want = define(problem.model, problem.sequence, problem.objective);
  const Noise noise = noise_of(problem.model, problem.sequence, problem.objective, want);
  const Trained whole = train_once(problem.model, batch_of(problem.sequence), problem.factors);
  for (const RowOrder order : {RowOrder::zigzag, RowOrder::contiguous})
    for (const int n : counts) {
      INFO(c.model << (order == RowOrder::zigzag ? ", zigzag" : ", contiguous") << ", " << n
                   << " ranks");
      const Trained got = Divided(problem, n, order).sum();
      check_losses(got.losses, problem.factors, want, noise, problem.model.config,
                   problem.sequence);
      check_gradients(got.gradients, want, noise);
      // Rows are computed as one rank computes them: tokens go to the same experts.
      CHECK(got.losses.load == whole.losses.load);
      CHECK(got.losses.kl_rows == whole.losses.kl_rows);
    }
}

}  // namespace

TEST_CASE("runs of the ranks are all rows once", "[train][ranks]") {
  for (const RowOrder order : {RowOrder::zigzag, RowOrder::contiguous})
    for (const int n : {1, 2, 3, 5})
      for (const Index T : {10, 11, 64}) {
        std::vector<int> times(static_cast<std::size_t>(T));
        for (int part = 0; part < n; ++part) {
          Index at = 0;
          for (const train::Run& run : train::runs_of(T, part, n, order)) {
            CHECK(run.at == at);
            at += run.size();
            for (Index t = run.begin; t < run.end; ++t) ++times[static_cast<std::size_t>(t)];
          }
        }
        CHECK(std::all_of(times.begin(), times.end(), [](int n_times) { return n_times == 1; }));
      }
  CHECK_THROWS_WITH(train::runs_of(3, 0, 2, RowOrder::zigzag),
                    "a micro-batch of 3 tokens cannot be divided among 2 ranks; lower "
                    "run.context_ranks");
}

TEST_CASE("zigzag gives every rank as many visible keys", "[train][ranks]") {
  for (int part = 0; part < 4; ++part) {
    Index visible = 0;
    for (const train::Run& run : train::runs_of(64, part, 4, RowOrder::zigzag))
      for (Index t = run.begin; t < run.end; ++t) visible += t + 1;
    CHECK(visible == 64 * 65 / 2 / 4);
  }
}

TEST_CASE("ranks of one micro-batch add up to the definition: sparse", "[train][ranks]") {
  check_divided({}, {2, 3});
}

TEST_CASE("ranks of one micro-batch add up to the definition: dense", "[train][ranks]") {
  check_divided({.dense = true, .semantics = in_warmup({})});
  check_divided({.documents = {40}, .dense = true});  // learns from its own selection
}

TEST_CASE("ranks of one micro-batch add up to the definition: layers that share a selection",
          "[train][ranks]") {
  check_divided({.model = "glm"});
}

TEST_CASE("ranks of one micro-batch add up to the definition: other readings of the indexer's loss",
          "[train][ranks]") {
  check_divided({.documents = {33}, .semantics = semantics_named("hf-fork")});
  KlSemantics dense_teacher;
  dense_teacher.teacher_softmax = KlSemantics::Keys::visible;
  check_divided({.documents = {40}, .semantics = dense_teacher});
}

TEST_CASE("ranks of one micro-batch send what the plan says", "[train][ranks]") {
  KlSemantics flows;
  flows.detach = KlSemantics::Detach::query_latent;
  for (const KlSemantics& semantics : {KlSemantics{}, flows})
    for (const int n : {2, 3}) {
      const Problem problem({.semantics = semantics});
      train::Stage stage;
      stage.batch = 1;
      stage.seq = problem.sequence.size();
      stage.recipe.lm = stage.recipe.kl = 1;
      stage.recipe.semantics = semantics;
      const train::PlannedModel model{problem.model.config};
      for (const RowOrder order : {RowOrder::zigzag, RowOrder::contiguous}) {
        const Divided got(problem, n, order);
        const double sent = std::accumulate(got.sent.begin(), got.sent.end(), 0.0);
        CHECK(sent == n * train::context_bytes(model, stage, n));
      }
    }
}

TEST_CASE("ranks of one micro-batch refuse losses of whole documents", "[train][ranks]") {
  for (double train::Objective::*loss : {&train::Objective::mtp, &train::Objective::balance}) {
    Problem problem({});
    problem.factors.*loss = 1;
    const auto sentences = as_ranks(2, [&](ranks::Communicator& ranks) {
      train::TrainedModel model(problem.model, train::Compute::fp32);
      train::Context context(ranks, 2, RowOrder::zigzag);
      model.run(batch_of(problem.sequence), problem.factors, everything, &context);
    });
    for (const std::string& sentence : sentences)
      CHECK_THAT(sentence, Catch::Matchers::Contains("leave mtp and balance at 0"));
  }
}
