// tests/verify/suspects_test.cpp — the fewest ops that depart, and constants that are fitted.
#include "verify/localise/suspects.hpp"

#include <cmath>

#include "tests/catch.hpp"
#include "tests/verify/judge_helpers.hpp"
#include "verify/measure/fit.hpp"

using namespace dsa;
using namespace dsa::test;
using namespace dsa::verify;

namespace {

TensorResult agreeing(const std::string& name) {
  TensorResult tensor;
  tensor.name = name;
  tensor.n = 1;
  return tensor;
}

/// Sample v32, with nothing known of it yet.
struct Case {
  ModelPair models = open_models(sample("v32") / "checkpoint", reference::Precision::fp64);
  Recording golden = read_recording(sample("v32") / "logits.safetensors", "fp64", 0);
  Judgement plain;

  std::vector<std::string> suspects() const { return verify::suspects(models, golden, plain); }

  /// Rows of sequence 0 from `first` on depart.
  void rows_depart_from(Index first) {
    plain.logits.emplace();
    for (Index t = 0; t < golden.sequences[0].size(); ++t) {
      RowResult row;
      row.at = {0, t, -1};
      row.kl = t >= first ? 1 : 0;
      row.kl_limit = 0.5;
      plain.logits->rows.push_back(row);
    }
  }
};

}  // namespace

TEST_CASE("with a trace, what lies between the departure and what agrees", "[judge][suspects]") {
  Case c;
  const std::string layer = "model.layers.1.";
  c.plain.first_departure = layer + "self_attn";
  for (const char* name : {"self_attn.q_b_proj", "self_attn.kv_a_proj_with_mqa",
                           "self_attn.kv_b_proj", "self_attn.indexer"})
    c.plain.tensors.push_back(agreeing(layer + name));
  CHECK(c.suspects() == std::vector<std::string>{layer + "self_attn.q_rope",
                                                 layer + "self_attn.k_rope",
                                                 layer + "self_attn.heads",
                                                 layer + "self_attn.o_proj", layer + "self_attn"});
}

TEST_CASE("a departure whose inputs all agree is the only suspect", "[judge][suspects]") {
  Case c;
  c.plain.first_departure = "model.norm";
  c.plain.tensors.push_back(agreeing("model.layers.2"));
  CHECK(c.suspects() == std::vector<std::string>{"model.norm"});
}

TEST_CASE("logits that depart beyond top-k accuse the indexer alone", "[judge][suspects]") {
  Case c;
  c.rows_depart_from(22);  // the first query that sees more than 22 keys
  for (const std::string& name : c.suspects())
    CHECK_THAT(name, Catch::Matchers::Contains("indexer"));
  CHECK(c.suspects().size() == 8);
}

TEST_CASE("logits that depart from the second key on accuse attention", "[judge][suspects]") {
  Case c;
  c.rows_depart_from(1);
  const auto found = c.suspects();
  CHECK(std::count(found.begin(), found.end(), "self_attn.heads") == 1);
  CHECK(std::count(found.begin(), found.end(), "self_attn.q_rope") == 1);
  CHECK(std::count(found.begin(), found.end(), "mlp") == 0);
}

TEST_CASE("logits that depart from the first key on accuse every op", "[judge][suspects]") {
  Case c;
  c.rows_depart_from(0);
  const auto found = c.suspects();
  CHECK(std::count(found.begin(), found.end(), "mlp") == 1);
  CHECK(std::count(found.begin(), found.end(), "lm_head") == 1);
}

TEST_CASE("constants are fitted to the roundest number that is as good", "[judge][suspects]") {
  const auto log_distance = [](double to) {
    return [to](double x) { return 1e-12 + std::pow(std::log(x / to), 2); };
  };
  CHECK(fit(log_distance(3e-4), 1e-9, 1, false) == 3e-4);
  CHECK(fit(log_distance(1.27), 0.05, 20, false) == 1.27);
  CHECK(fit(log_distance(1.23456789), 0.05, 20, false) == Approx(1.23456789).epsilon(1e-4));
  const auto distance = [](double to) { return [to](double x) { return std::abs(x - to); }; };
  CHECK(fit(distance(27), 11, 44, true) == 27);
  CHECK(fit(distance(1717), 1024, 4096, true) == 1717);
  CHECK_THROWS_AS(fit(distance(1), 0, 4, true), Error);
}
