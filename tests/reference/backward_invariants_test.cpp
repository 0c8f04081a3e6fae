// What must hold of gradients whatever the numbers are: shared/spec of training, in one place.
#include "tests/catch.hpp"
#include "tests/reference/backward_support.hpp"

using namespace dsa;
using namespace dsa::test;
using Catch::Contains;

namespace {

/// Two ways of adding up the same terms differ by rounding, relative to the largest gradient of a
/// tensor.
constexpr double rounding = 1e-12;

using Gradients = std::map<std::string, Tensor<double, 2>>;

double largest(const Tensor<double, 2>& x) {
  double m = 0;
  for (double value : x) m = std::max(m, std::abs(value));
  return m;
}

void check_same(const Gradients& a, const Gradients& b) {
  REQUIRE(a.size() == b.size());
  for (const auto& [name, g] : a) {
    INFO(name);
    CHECK(distance(g, b.at(name)) <= rounding * largest(g));
  }
}

Gradients sum(Gradients a, const Gradients& b) {
  for (auto& [name, g] : a)
    for (Index i = 0; i < g.size(); ++i) g.data()[i] += b.at(name).data()[i];
  return a;
}

Model tiny(std::uint64_t seed) {
  return tiny_model(seed, [](Config&) {});
}

/// The objective's rows [begin, end).
Objective<double> cut(const Objective<double>& all, Index begin, Index end) {
  const auto rows_of = [&](const std::vector<double>& x) {
    return x.empty() ? x : std::vector<double>(x.begin() + begin, x.begin() + end);
  };
  Objective<double> part = all;
  part.lm = rows_of(all.lm), part.kl = rows_of(all.kl);
  return part;
}

Objective<double> lm_and_kl(const Sequence& sequence) {
  Objective<double> both = reference::lm_objective<double>(sequence);
  both.kl = reference::kl_weights<double>({}, sequence);
  return both;
}

}  // namespace

TEST_CASE("every parameter is handed out once, in its shape", "[backward]") {
  for (const Config& config : {with_mtp(), parse_config(tiny_config(), "tiny")}) {
    const Model model = random_model(config, 3);
    const Sequence sequence = plain_sequence(some_tokens(model, 8));
    std::vector<Objective<double>> objectives = {reference::lm_objective<double>(sequence),
                                                 reference::kl_objective<double>(sequence),
                                                 every_loss(model, sequence),
                                                 {}};
    for (const Objective<double>& objective : objectives) {
      const Gradients gradients = gradients_of(model, sequence, objective).gradients;
      std::size_t expected = 0;
      for_each_tensor(model.weights, config,
                      [&](const std::string& name, const Parameter& p, const auto&) {
                        if (of_correction_bias(name)) {
                          CHECK(!gradients.contains(name));
                          return;
                        }
                        ++expected;
                        REQUIRE(gradients.contains(name));
                        CHECK(gradients.at(name).shape() == Shape<2>{p.rows(), p.columns()});
                      });
      CHECK(gradients.size() == expected);
    }
  }
}

TEST_CASE("the language model teaches the indexer nothing, the KL teaches nothing else",
          "[backward]") {
  for (const char* name : {"v32", "glm"}) {
    const Model model = sample_model(name);
    const Sequence sequence = plain_sequence(some_tokens(model, 40));
    const auto lm = gradients_of(model, sequence, reference::lm_objective<double>(sequence));
    const auto kl = gradients_of(model, sequence, reference::kl_objective<double>(sequence));
    const auto both = gradients_of(model, sequence, lm_and_kl(sequence));
    for (const auto& [parameter_name, g] : lm.gradients) {
      INFO(parameter_name);
      const bool index = of_indexer(parameter_name);
      const bool unused = all_zero(g) && parameter_name.find(".mlp.experts.") != std::string::npos;
      CHECK((all_zero(g) == index || unused));  // no token went to that expert
      CHECK(all_zero(kl.gradients.at(parameter_name)) == !index);
      CHECK(distance(both.gradients.at(parameter_name),  // bit for bit
                     (index ? kl : lm).gradients.at(parameter_name)) == 0);
    }
  }
}

TEST_CASE("packing, padding and micro-batches change nothing", "[backward]") {
  const Model model = tiny(5);
  const auto a = some_tokens(model, 9, 1), b = some_tokens(model, 7, 2);
  const Sequence packed = packed_sequence({a, b});
  const Objective<double> all = lm_and_kl(packed);
  const Gradients whole = gradients_of(model, packed, all).gradients;

  SECTION("two micro-batches, each with its share of the mean") {
    check_same(whole, sum(gradients_of(model, plain_sequence(a), cut(all, 0, 9)).gradients,
                          gradients_of(model, plain_sequence(b), cut(all, 9, 16)).gradients));
  }
  SECTION("padding on either side") {
    std::vector<Token> padded = {0, 0, 0};
    padded.insert(padded.end(), b.begin(), b.end());
    padded.insert(padded.end(), {0, 0});
    const Sequence joined = reference::join(
        {plain_sequence(a), masked_sequence(padded, {0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 0})});
    check_same(whole, gradients_of(model, joined, lm_and_kl(joined)).gradients);
  }
  SECTION("the order of the documents") {
    const Sequence swapped = packed_sequence({b, a});
    check_same(whole, gradients_of(model, swapped, lm_and_kl(swapped)).gradients);
  }
}

TEST_CASE("a label mask counts what it says", "[backward]") {
  const Model model = tiny(6);
  const Sequence sequence = plain_sequence(some_tokens(model, 8));
  const auto targets = reference::targets_of(sequence, 1);
  CHECK(targets.back() == -1);
  Objective<double> second_half, one, other;
  second_half.lm =
      reference::mean_over_targets<double>(targets, std::vector<double>{0, 0, 0, 0, 1, 3, 0, 5});
  CHECK(second_half.lm == std::vector<double>{0, 0, 0, 0, 0.25, 0.75, 0, 0});
  one.lm = {0, 0, 0, 0, 0.25, 0, 0, 0}, other.lm = {0, 0, 0, 0, 0, 0.75, 0, 0};
  check_same(gradients_of(model, sequence, second_half).gradients,
             sum(gradients_of(model, sequence, one).gradients,
                 gradients_of(model, sequence, other).gradients));
}

TEST_CASE("with k = S sparse training is dense training", "[backward]") {
  Model sparse = tiny(8), dense = sparse;
  sparse.config.indexer->topk = 12;
  dense.config.use_sparse_attention = false;
  const Sequence sequence = plain_sequence(some_tokens(sparse, 12));
  Objective<double> chosen = lm_and_kl(sequence), visible = chosen;
  visible.semantics = in_warmup({});
  check_same(gradients_of(sparse, sequence, chosen).gradients,
             gradients_of(dense, sequence, visible).gradients);
}

TEST_CASE("the absorbed form has the gradients of the expanded one", "[backward]") {
  const Model model = sample_model("v32");
  const Sequence sequence = plain_sequence(some_tokens(model, 40));
  check_same(gradients_of(model, sequence, lm_and_kl(sequence)).gradients,
             gradients_of(model, sequence, lm_and_kl(sequence), {MlaForm::absorbed}).gradients);
}

TEST_CASE("a span of layers is a part of the model's backward pass", "[backward]") {
  const SharingThreads scope(1);
  const Model model = sample_model("glm");
  const Sequence sequence = plain_sequence(some_tokens(model, 24));
  const Objective<double> objective = reference::lm_objective<double>(sequence);
  const auto whole = gradients_of(model, sequence, objective, {MlaForm::expanded, true});

  const auto ops = reference::definition<double>();
  const auto backward_ops = reference::backward_definition<double>();
  const reference::Pass<double> forward{model, ops};
  Tensor<double, 2> x = reference::embed(forward, sequence);
  Tensor<double, 2> d_x = whole.outputs.at("d.model.layers.2");
  Gradients gradients;
  const Objective<double> none;
  const reference::BackwardPass<double> pass{forward, backward_ops, sequence, none,
                                             [&](const std::string& name, View<const double, 2> g) {
                                               Tensor<double, 2> copy(g.shape);
                                               std::copy(g.begin(), g.end(), copy.begin());
                                               gradients[name] = std::move(copy);
                                             }};
  reference::backward_layers(pass, x, d_x, 0, 3);
  CHECK(distance(d_x, whole.outputs.at("d.model.embed_tokens")) == 0);
  CHECK(gradients.size() > 30);
  for (const auto& [name, g] : gradients) {
    INFO(name);
    CHECK(distance(g, whole.gradients.at(name)) == 0);
  }
}

TEST_CASE("permuted heads have permuted gradients", "[backward]") {
  const Model model = tiny(9);  // two heads
  const Config& c = model.config;
  Model swapped = moved(model, direction_of(model, 0, [](const auto&) { return false; }), 0);
  const Index width = c.qk_head_dim(), kv_width = c.qk_nope_head_dim + c.v_head_dim,
              U = c.v_head_dim;
  /// Rows (or columns) [0, n) and [n, 2n) change places.
  const auto swap_rows = [](double* x, Index n, Index columns) {
    std::swap_ranges(x, x + n * columns, x + n * columns);
  };
  const auto swap_columns = [](double* x, Index rows_, Index n) {
    for (Index r = 0; r < rows_; ++r)
      std::swap_ranges(x + 2 * r * n, x + (2 * r + 1) * n, x + (2 * r + 1) * n);
  };
  const auto swap_heads = [&](const std::string& name, double* x, Index rows_, Index columns) {
    if (name.ends_with("q_b_proj.weight") && !of_indexer(name)) swap_rows(x, width, columns);
    if (name.ends_with("kv_b_proj.weight")) swap_rows(x, kv_width, columns);
    if (name.ends_with("o_proj.weight")) swap_columns(x, rows_, U);
  };
  for_each_tensor(swapped.weights, c, [&](const std::string& name, Parameter& p, const auto&) {
    swap_heads(name, const_cast<double*>(reinterpret_cast<const double*>(p.data)), p.rows(),
               p.columns());
  });
  const Sequence sequence = plain_sequence(some_tokens(model, 10));
  Gradients a = gradients_of(model, sequence, lm_and_kl(sequence)).gradients;
  const Gradients b = gradients_of(swapped, sequence, lm_and_kl(sequence)).gradients;
  for (auto& [name, g] : a) swap_heads(name, g.data(), g.shape()[0], g.shape()[1]);
  check_same(a, b);
}

TEST_CASE("what cannot be asked is said in a sentence", "[backward]") {
  const Model model = tiny(10);
  const Sequence sequence = plain_sequence(some_tokens(model, 6));
  Objective<double> objective = reference::lm_objective<double>(sequence);
  objective.lm.pop_back();
  CHECK_THROWS_WITH(gradients_of(model, sequence, objective),
                    "there are 5 weights of the language-model loss, expected one for each of 6 "
                    "rows");
  const Model plain = sample_model("v3");
  const Sequence other = plain_sequence(some_tokens(plain, 6));
  CHECK_THROWS_WITH(gradients_of(plain, other, reference::kl_objective<double>(other)),
                    "the model has no indexer, so it has no indexer loss; ask for other losses");
  CHECK_THROWS_WITH(semantics_named("papers"),
                    "unknown semantics 'papers'; expected paper, maxtext, megatron, hf-fork, "
                    "prime-rl or xtuner");
  KlSemantics infinite;
  infinite.teacher_keys = infinite.teacher_softmax = KlSemantics::Keys::visible;
  CHECK_THROWS_WITH(
      gradients_of(model, sequence, reference::kl_objective<double>(sequence, infinite)),
      Contains("the KL is infinite"));
}
