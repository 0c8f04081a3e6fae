// The backward pass against two derivatives that share no line with it: forward-mode duals through
// the same forward templates, and central differences in long double.
#include "tests/catch.hpp"
#include "tests/reference/backward_support.hpp"

using namespace dsa;
using namespace dsa::test;

namespace {

/// <gradient, direction> is a sum of as many terms as there are parameters; each has passed through
/// sums as long as a sequence times a width. 1e-12 of the sum of magnitudes is what is promised.
constexpr double promised = 1e-12;

Sequence two_documents(const Model& model, Index a, Index b, std::uint64_t seed) {
  return packed_sequence({some_tokens(model, a, seed), some_tokens(model, b, seed + 1)});
}

/// Both derivatives along a random direction.
void check_duals(const Model& model, const Sequence& sequence, const Objective<double>& objective,
                 std::uint64_t seed, MlaForm form = MlaForm::expanded) {
  const auto answers = gradients_of(model, sequence, objective, {form});
  const Direction direction = direction_of(model, seed);
  const auto dual = losses_of(moved(model, direction, 0), sequence, as_real<Dual>(objective));
  const Product found = product(answers.gradients, direction);
  CHECK(std::abs(dual.total().value - answers.losses.total()) <=
        promised * std::abs(answers.losses.total()));
  CHECK(std::abs(dual.total().tangent - found.value) <= promised * found.magnitude);
  CHECK(found.magnitude > 0);
}

using Change = void (*)(Config&);
/// Every switch of a config that changes what is differentiated.
const std::pair<const char*, Change> variants[] = {
    {"as it is", [](Config&) {}},
    {"tied embeddings", [](Config& c) { c.tie_word_embeddings = true; }},
    {"biases", [](Config& c) { c.attention_bias = c.mlp_bias = true; }},
    {"no query latent",
     [](Config& c) {
       c.q_lora_rank.reset();
       c.indexer->query_source = Indexer::QuerySource::hidden;
     }},
    {"softmax router",
     [](Config& c) {
       c.router.scoring = Router::Scoring::softmax;
       c.router.norm_topk_prob = false;
       c.router.groups = Router::Groups::maximum;
     }},
    {"half rope, and the indexer's interleaved",
     [](Config& c) {
       c.rope_layout = RopeLayout::half;
       c.indexer->rope_layout = RopeLayout::interleaved;
       c.indexer->rope_first = false;
     }},
    {"RMSNorm of the index key",
     [](Config& c) { c.indexer->key_norm = Indexer::KeyNorm::rms_norm; }},
    {"no norm, no relu, uniform heads",
     [](Config& c) {
       c.indexer->key_norm = Indexer::KeyNorm::none;
       c.indexer->activation = Indexer::Activation::none;
       c.indexer->head_weights = Indexer::HeadWeights::uniform;
     }},
    {"a shared selection", [](Config& c) { c.indexer->computes[1] = false; }},
    {"dense attention", [](Config& c) { c.use_sparse_attention = false; }},
};

}  // namespace

TEST_CASE("duals agree with the backward pass: every switch of a config", "[backward][duals]") {
  std::uint64_t seed = 40;
  for (const auto& [name, change] : variants) {
    const Model model = tiny_model(++seed, change);
    const Sequence sequence = two_documents(model, 9, 6, seed);
    for (const MlaForm form : {MlaForm::expanded, MlaForm::absorbed}) {
      INFO(name << (form == MlaForm::expanded ? ", expanded" : ", absorbed"));
      check_duals(model, sequence, every_loss(model, sequence), seed, form);
    }
  }
}

TEST_CASE("duals agree with the backward pass: every family", "[backward][duals]") {
  for (const char* name : {"v2", "v2lite", "v3", "v32", "glm", "ties", "fp8"}) {
    INFO(name);
    const Model model = sample_model(name);
    const Sequence sequence = two_documents(model, 30, 8, 5);
    check_duals(model, sequence, every_loss(model, sequence), 3);
  }
}

TEST_CASE("duals agree with the backward pass: every reading of the KL", "[backward][duals]") {
  const Model model = tiny_model(7, [](Config&) {});
  for (const char* name : {"paper", "maxtext", "megatron", "hf-fork", "prime-rl", "xtuner"})
    for (const bool warmup : {false, true})
      for (const auto detach : {KlSemantics::Detach::inputs, KlSemantics::Detach::query_latent,
                                KlSemantics::Detach::nothing}) {
        KlSemantics semantics = semantics_named(name);
        if (warmup) semantics = in_warmup(semantics);
        semantics.detach = detach;
        const Sequence sequence = seen_by(
            semantics,
            masked_sequence(some_tokens(model, 14), {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0}));
        INFO(name << (warmup ? ", warm-up" : ", sparse") << ", detach "
                  << static_cast<int>(detach));
        check_duals(model, sequence, every_loss(model, sequence, semantics), 9);
      }
}

TEST_CASE("duals agree with the backward pass: multi-token prediction", "[backward][duals]") {
  const Model model = random_model(with_mtp(), 11);
  const Sequence sequence = two_documents(model, 9, 5, 2);
  check_duals(model, sequence, every_loss(model, sequence), 4);
  Objective<double> alone;
  alone.mtp = every_loss(model, sequence).mtp;
  check_duals(model, sequence, alone, 5);
}

TEST_CASE("central differences agree with the backward pass: every parameter of a tiny model",
          "[backward][differences]") {
  // The step h leaves an error of h^2/6 times a third derivative, and of the sum's rounding over h:
  // with 64 bits, 1e-6 is near the best, and 1e-8 of the largest gradient of a tensor is promised.
  constexpr double h = 1e-6, allowed = 1e-8;
  const Model model = random_model(with_mtp(), 21);
  const Sequence sequence = two_documents(model, 7, 4, 8);
  Objective<double> objective = every_loss(model, sequence);
  objective.kl.clear();
  const auto lm = as_real<long double>(objective);
  const auto kl = as_real<long double>(reference::kl_objective<double>(sequence));
  const auto of_lm = gradients_of(model, sequence, lm), of_kl = gradients_of(model, sequence, kl);

  Model probe = moved(model, direction_of(model, 0, [](const auto&) { return false; }), 0);
  for_each_tensor(
      probe.weights, probe.config, [&](const std::string& name, Parameter& p, const auto&) {
        if (of_correction_bias(name)) return;
        INFO(name);
        auto* values = const_cast<double*>(reinterpret_cast<const double*>(p.data));
        const bool index = of_indexer(name) && !name.starts_with("model.layers.2");
        const Tensor<long double, 2>& g = (index ? of_kl : of_lm).gradients.at(name);
        const auto& asked = index ? kl : lm;
        long double largest = 0, worst = 0;
        for (long double value : g) largest = std::max(largest, std::abs(value));
        for (Index i = 0; i < g.size(); ++i) {
          const double here = values[i], up = here + h, down = here - h;
          values[i] = up;
          const long double above = losses_of(probe, sequence, asked).total();
          values[i] = down;
          const long double below = losses_of(probe, sequence, asked).total();
          values[i] = here;
          const long double difference =
              (above - below) / (static_cast<long double>(up) - static_cast<long double>(down));
          worst = std::max(worst, std::abs(difference - g.data()[i]));
        }
        CHECK(worst <= allowed * largest);
      });
}

TEST_CASE("central differences agree with the backward pass: every family",
          "[backward][differences]") {
  constexpr double h = 1e-7, allowed = 1e-8;  // of steps along a whole direction
  for (const char* name : {"v2lite", "v3", "v32", "glm"}) {
    const Model model = sample_model(name);
    const Sequence sequence = plain_sequence(some_tokens(model, 30, 6));
    const auto lm = as_real<long double>(reference::lm_objective<double>(sequence));
    const auto answers = gradients_of(model, sequence, lm);
    const Direction direction = direction_of(model, 12);
    const long double above = losses_of(moved(model, direction, h), sequence, lm).total(),
                      below = losses_of(moved(model, direction, -h), sequence, lm).total();
    const Product found = product(answers.gradients, direction);
    INFO(name);
    CHECK(std::abs(static_cast<double>((above - below) / (2 * h)) - found.value) <=
          allowed * found.magnitude);
    if (!model.config.indexer) continue;

    const auto kl = as_real<long double>(reference::kl_objective<double>(sequence));
    const Direction taught = direction_of(model, 13, of_indexer);
    const long double more = losses_of(moved(model, taught, h), sequence, kl).total(),
                      less = losses_of(moved(model, taught, -h), sequence, kl).total();
    const Product learned = product(gradients_of(model, sequence, kl).gradients, taught);
    CHECK(std::abs(static_cast<double>((more - less) / (2 * h)) - learned.value) <=
          allowed * learned.magnitude);
  }
}
