// The trained model against the reference in double: every loss, every gradient.
//
#include "tests/catch.hpp"
#include "tests/train/support.hpp"

using namespace dsa;
using namespace dsa::test;
using reference::Precision;

namespace {

struct Case {
  std::vector<Index> documents = {37, 29};
  bool dense = false;
  KlSemantics semantics = {};
  std::uint64_t seed = 1;
};

void check_case(Model model, const Case& c) {
  model = reference::loaded_as(model, Precision::hf_fp32);
  model.config.use_sparse_attention = !c.dense;
  const Sequence sequence = documents_of(model.config, c.documents, c.seed);
  const Objective<double> objective = every_loss(model, sequence, c.semantics);
  const train::Objective factors = as_factors(objective, model.config, sequence, c.dense);
  const Defined want = define(model, sequence, objective);
  const Trained got = train_once(model, batch_of(sequence), factors);
  const Noise noise = noise_of(model, sequence, objective, want);
  check_losses(got.losses, factors, want, noise, model.config, sequence);
  check_gradients(got.gradients, want, noise);
}

}  // namespace

TEST_CASE("every gradient is the definition's: V2-Lite", "[train]") {
  check_case(golden_model("v2lite"), {.dense = true});
}

TEST_CASE("every gradient is the definition's: V3", "[train]") {
  check_case(golden_model("v3"), {.dense = true});
}

TEST_CASE("every gradient is the definition's: V3.2, sparse", "[train]") {
  check_case(golden_model("v32calm"), {});
}

TEST_CASE("every gradient is the definition's: V3.2, dense", "[train]") {
  check_case(golden_model("v32calm"), {.dense = true, .semantics = in_warmup({})});
}

TEST_CASE("every gradient is the definition's: GLM, layers that share a selection", "[train]") {
  check_case(golden_model("glm"), {});
}

TEST_CASE("every gradient is the definition's: every reading of the indexer's loss", "[train]") {
  const std::string name =
      GENERATE(Catch::Generators::as<std::string>(), "maxtext", "megatron", "hf-fork", "prime-rl");
  INFO(name);
  check_case(golden_model("v32calm"), {{26, 31}, false, semantics_named(name)});
  check_case(golden_model("v32calm"), {{33}, true, in_warmup(semantics_named(name))});
}

TEST_CASE("every gradient is the definition's: the teacher's keys, and what is detached",
          "[train]") {
  KlSemantics dense_teacher;
  dense_teacher.teacher_softmax = KlSemantics::Keys::visible;
  check_case(golden_model("v32calm"), {{40}, false, dense_teacher});
  check_case(golden_model("v32calm"), {{40}, true, {}});
  KlSemantics hidden_flows;
  hidden_flows.detach = KlSemantics::Detach::query_latent;
  check_case(golden_model("v32calm"), {{40}, false, hidden_flows});
}

TEST_CASE("every gradient is the definition's: a prediction block", "[train]") {
  check_case(random_model(with_mtp(), 5), {{14, 11}, false});
  Config dense = with_mtp();
  check_case(random_model(dense, 6), {{9, 2, 1, 8}, true, in_warmup({})});
}

TEST_CASE("every gradient is the definition's: biases, tied embeddings, a mean of experts",
          "[train]") {
  check_case(tiny_model(7,
                        [](Config& c) {
                          c.attention_bias = c.mlp_bias = c.tie_word_embeddings = true;
                          c.router.norm_topk_prob = true;
                          c.num_experts_per_tok = 1;
                        }),
             {{12, 9}, false});
  check_case(tiny_model(8,
                        [](Config& c) {
                          c.n_shared_experts = 0;
                          c.router.scoring = Router::Scoring::softmax;
                          c.rope_layout = RopeLayout::half;
                          c.indexer->rope_layout = RopeLayout::interleaved;
                        }),
             {{17}, false});
}

TEST_CASE("every gradient is the definition's: other indexers", "[train]") {
  check_case(tiny_model(9,
                        [](Config& c) {
                          c.indexer->key_norm = Indexer::KeyNorm::rms_norm;
                          c.indexer->head_weights = Indexer::HeadWeights::uniform;
                          c.indexer->rope_first = false;
                        }),
             {{15, 6}, false});
  KlSemantics attached;
  attached.detach = KlSemantics::Detach::nothing;
  check_case(tiny_model(10,
                        [](Config& c) {
                          c.indexer->key_norm = Indexer::KeyNorm::none;
                          c.indexer->activation = Indexer::Activation::none;
                          c.indexer->query_source = Indexer::QuerySource::hidden;
                        }),
             {{15, 6}, false, attached});
}
