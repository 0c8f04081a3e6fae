// The forward pass from inside: taps that write, multi-token prediction, tied embeddings, errors.
#include "core/json.hpp"
#include "reference/ops/linear.hpp"
#include "reference/ops/norms.hpp"
#include "tests/catch.hpp"
#include "tests/models.hpp"
#include "tests/tiny_checkpoint.hpp"

using namespace dsa;
using namespace dsa::test;

namespace {

Model tiny_model(const Json& extra = Json::object(), std::uint64_t seed = 1) {
  Json json = tiny_config();
  json.update(extra);
  return random_model(parse_config(json, "the tiny config"), seed);
}

Tensor<double, 2> last_hidden(const Model& model, const Sequence& s) {
  const SharingThreads scope(1);
  const auto ops = reference::definition<double>();
  const reference::Pass<double> pass{model, ops};
  reference::Cache<double> cache;
  auto x = reference::embed(pass, s);
  reference::run_layers(pass, x, s, cache, 0, model.config.num_hidden_layers);
  return x;
}

Tensor<double, 2> mtp_of(const Model& model, const Sequence& s,
                         const reference::Tap<double>& tap = {}) {
  const SharingThreads scope(1);
  const auto ops = reference::definition<double>();
  return reference::mtp_logits<double>({model, ops, tap}, last_hidden(model, s), s);
}

/// Section 5 of the specification, out of ops: the MTP block is run as a model of one layer.
Tensor<double, 2> mtp_by_hand(const Model& model, const Sequence& s) {
  const SharingThreads scope(1);
  const Mtp& w = model.weights.mtp.front();
  const Index T = s.size() - 1, C = model.config.hidden_size;
  const auto x = last_hidden(model, s);
  const auto gain = [&](const Parameter& p) {
    Tensor<double, 1> g({C});
    read_rows(p, 0, C, g.data());
    return g;
  };
  Tensor<double, 2> e({T, C}), h = rows(x, 0, T), both({T, 2 * C}), y({T, C});
  for (Index t = 0; t < T; ++t) {
    const Token next = s.tokens[static_cast<std::size_t>(t + 1)];
    read_rows(model.weights.embed_tokens, next, next + 1, e.view()[t].data);
  }
  const double eps = model.config.rms_norm_eps;
  reference::rmsnorm<double>(e, Tensor<double, 2>(e), gain(w.enorm), eps);
  reference::rmsnorm<double>(h, Tensor<double, 2>(h), gain(w.hnorm), eps);
  for (Index t = 0; t < T; ++t)  // embedding first
    for (Index c = 0; c < C; ++c) both(t, c) = e(t, c), both(t, C + c) = h(t, c);
  reference::linear<double>(y, both, w.eh_proj);

  Model one = model;
  one.config.num_hidden_layers = 1;
  one.config.is_moe = {true};
  if (one.config.indexer) one.config.indexer->computes = {true};
  one.weights.layers = {w.block};
  one.weights.norm = w.shared_head_norm;
  const auto ops = reference::definition<double>();
  const reference::Pass<double> pass{one, ops};
  reference::Cache<double> cache;
  reference::run_layers(pass, y, part(s, 0, T), cache, 0, 1);
  return reference::logits(pass, y);
}

/// Runs with `change` applied to one tensor.
Tensor<double, 2> grafted(const Model& model, const Sequence& s, const std::string& name,
                          const std::function<void(View<double, 2>)>& change) {
  reference::Tap<double> tap;
  tap.tensor = [&](const std::string& tensor, View<double, 2> x) {
    if (tensor == name) change(x);
  };
  return logits_of(model, s, tap);
}

}  // namespace

TEST_CASE("mtp_logits is the specification's composition", "[model]") {
  for (const char* type : {"deepseek_v32", "deepseek_v3"}) {
    const Model model = tiny_model({{"model_type", type}, {"num_nextn_predict_layers", 1}});
    REQUIRE(model.weights.mtp.size() == 1);
    const Sequence s = plain_sequence(some_tokens(model, 12));
    Record<double> record;
    const auto got = mtp_of(model, s, record.tap());
    INFO(type);
    CHECK(got.shape() == Shape<2>{11, model.config.vocab_size});
    CHECK(distance(got, mtp_by_hand(model, s)) <= 1e-13 * range(got));
    CHECK(record.names.front() == "model.layers.2.enorm");
    CHECK(record.names.back() == "model.layers.2.shared_head.head");
    CHECK(record.decisions.contains("model.layers.2.self_attn.indexer") ==
          (std::string(type) == "deepseek_v32"));
  }
}

TEST_CASE("mtp_logits of row t reads tokens up to t+1", "[model]") {
  const Model model = tiny_model({{"num_nextn_predict_layers", 1}});
  const Sequence s = plain_sequence(some_tokens(model, 12));
  const auto before = mtp_of(model, s);
  for (const Index t : {0, 4, 9}) {
    Sequence changed = s;
    Token& later = changed.tokens[static_cast<std::size_t>(t + 2)];
    later = (later + 1) % model.config.vocab_size;
    const auto after = mtp_of(model, changed);
    INFO("token " << t + 2);
    CHECK(distance(rows(after, 0, t + 1), rows(before, 0, t + 1)) == 0);
    CHECK(distance(rows(after, t + 1, t + 2), rows(before, t + 1, t + 2)) > 1e-3);
  }
}

TEST_CASE("multi-token prediction needs its block and two tokens", "[model]") {
  const Model with = tiny_model({{"num_nextn_predict_layers", 1}}), without = tiny_model();
  CHECK_THROWS_WITH(
      mtp_of(without, plain_sequence({1, 2, 3})),
      "the checkpoint holds no multi-token-prediction block; it was left out on conversion");
  CHECK_THROWS_WITH(mtp_of(with, plain_sequence({1})),
                    "multi-token prediction needs at least 2 tokens");
  CHECK(mtp_of(with, plain_sequence({1, 2})).shape()[0] == 1);
}

TEST_CASE("a tensor grafted by a tap is what the rest of the pass sees", "[model]") {
  const Model model = sample_model("v32");
  const Sequence a = plain_sequence(some_tokens(model, 40, 1)),
                 b = plain_sequence(some_tokens(model, 40, 2));
  Record<double> of_a;
  const auto want = logits_of(model, a, of_a.tap());
  CHECK(distance(logits_of(model, b), want) > 1e-2);
  for (const char* name : {"model.embed_tokens", "model.layers.0", "model.layers.1",
                           "model.layers.2", "model.norm", "lm_head"}) {
    INFO(name);
    CHECK(distance(grafted(model, b, name,
                           [&](View<double, 2> x) {
                             const auto& stored = of_a.tensors.at(name);
                             std::copy(stored.begin(), stored.end(), x.begin());
                           }),
                   want) == 0);
  }
}

TEST_CASE("every tensor that a tap is shown matters", "[model]") {
  for (const char* name : {"v32", "v2", "v2lite", "glm"}) {
    const Model model = sample_model(name);
    const Sequence s = plain_sequence(some_tokens(model, 30));
    Record<double> record;
    const auto want = logits_of(model, s, record.tap());
    CHECK(record.names.size() == record.tensors.size());
    for (const std::string& tensor : record.names) {
      const bool of_expert = tensor.find(".mlp.experts.") != std::string::npos;
      if (of_expert && !tensor.ends_with(".up_proj")) continue;  // one tensor an expert will do
      if (model.config.n_group == 1 && tensor.ends_with(".group_scores")) continue;  // one group
      const auto got = grafted(model, s, tensor, [](View<double, 2> x) {
        for (double& value : x) value = -value;
      });
      INFO(name << " " << tensor);
      CHECK(distance(got, want) > 1e-6);
    }
  }
}

TEST_CASE("a decision replayed by a tap is what the rest of the pass sees", "[model]") {
  const Model model = sample_model("v32");
  const Sequence s = plain_sequence(some_tokens(model, 40));
  const auto want = logits_of(model, s);
  const auto rewritten = [&](const std::string& where, auto&& rewrite) {
    reference::Tap<double> tap;
    tap.decision = [&](const std::string& name, View<const double, 2> scores,
                       View<Index, 2> chosen) {
      if (name == where) rewrite(scores, chosen);
    };
    return logits_of(model, s, tap);
  };
  const auto reverse_rows = [](View<const double, 2>, View<Index, 2> chosen) {
    for (Index t = 0; t < chosen.shape[0]; ++t) std::reverse(chosen[t].begin(), chosen[t].end());
  };
  const auto shift = [](View<const double, 2> scores, View<Index, 2> chosen) {
    for (Index& i : chosen)
      if (i >= 0) i = (i + 1) % scores.shape[1];
  };
  for (const char* name : {"model.layers.1.self_attn.indexer", "model.layers.1.mlp.gate.groups",
                           "model.layers.2.mlp.gate.experts"}) {
    INFO(name);
    CHECK(distance(rewritten(name, reverse_rows), want) <= 1e-12 * range(want));  // the same set
    CHECK(distance(rewritten(name, shift), want) > 1e-4);
  }
}

TEST_CASE("tied embeddings are their own head", "[model]") {
  const Model tied = tiny_model({{"tie_word_embeddings", true}});
  const Sequence s = plain_sequence(some_tokens(tied, 9));
  Model untied = tied;
  untied.config.tie_word_embeddings = false;
  CHECK(distance(logits_of(tied, s), logits_of(untied, s)) == 0);
  const auto norms = [&] {
    Record<double> record;
    logits_of(tied, s, record.tap());
    return record.tensors.at("model.norm");
  }();
  Tensor<double, 2> want({9, tied.config.vocab_size}), table({tied.config.vocab_size, 10});
  read_rows(tied.weights.embed_tokens, 0, tied.config.vocab_size, table.data());
  reference::multiply<double>(want, norms, table);
  CHECK(distance(logits_of(tied, s), want) == 0);
}

TEST_CASE("variants of the indexer: query from the hidden state, uniform weights, rotary last",
          "[model]") {
  const Model model = tiny_model();
  const Sequence s = plain_sequence(some_tokens(model, 12));
  Model uniform = model;
  uniform.config.indexer->head_weights = Indexer::HeadWeights::uniform;
  Record<double> record;
  logits_of(uniform, s, record.tap());
  for (const double w : record.tensors.at("model.layers.0.self_attn.indexer.weights_proj"))
    CHECK(w == 1);

  // What is rotated differs from the channels before, the rest does not.
  for (const bool first : {true, false}) {
    Model turned = model;
    turned.config.indexer->rope_first = first;
    Record<double> seen;
    logits_of(turned, s, seen.tap());
    const auto& before = seen.tensors.at("model.layers.0.self_attn.indexer.k_norm");
    const auto& after = seen.tensors.at("model.layers.0.self_attn.indexer.k");
    for (Index d = 0; d < 8; ++d) {  // D = 8, P = 4
      INFO("channel " << d << ", rotary first: " << first);
      CHECK((after(5, d) != before(5, d)) == (first == (d < 4)));
    }
  }

  Config hidden = model.config;
  hidden.indexer->query_source = Indexer::QuerySource::hidden;
  const Model from_x = random_model(hidden, 1);
  CHECK(from_x.weights.layers[0].indexer.wq_b.weight.columns() == hidden.hidden_size);
  Record<double> seen;
  logits_of(from_x, s, seen.tap());
  const auto& x = seen.tensors.at("model.layers.0.input_layernorm");
  Tensor<double, 2> q({12, 16});
  reference::linear<double>(q, x, from_x.weights.layers[0].indexer.wq_b);
  CHECK(distance(q, seen.tensors.at("model.layers.0.self_attn.indexer.wq_b")) == 0);
}

TEST_CASE("a token id outside the vocabulary is named", "[model]") {
  const Model model = sample_model("v32");
  CHECK_THROWS_WITH(logits_of(model, plain_sequence({1, 107, 2})),
                    "token id 107 at position 1 is outside the vocabulary of 107");
  CHECK_THROWS_WITH(logits_of(model, plain_sequence({-1})),
                    "token id -1 at position 0 is outside the vocabulary of 107");
  CHECK(logits_of(model, plain_sequence({106})).shape() == Shape<2>{1, 107});
}
