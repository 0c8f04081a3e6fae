// The trained model against the reference in double: every loss, every gradient.
//
// How far a right fp32 run may lie from the definition is measured, not chosen: the reference is
// run with fp32's roundings drawn at random (reference/precision), and verify's limits of
// distances of those draws hold for ours (verify/gradients/distance.hpp).
#include "tests/catch.hpp"
#include "tests/train/support.hpp"

using namespace dsa;
using namespace dsa::test;
using reference::Precision;

namespace {

constexpr double tail = 1e-6;  // of a right run beyond the limit, a parameter
constexpr int draws = 4;

Model golden_model(const std::string& name) {
  const auto dir = std::filesystem::path(source_dir()) / "data" / "gradients" / name;
  return resident(open_checkpoint(dir / "checkpoint"), Index{1} << 30);
}

/// The reference and its draws, parameter by parameter.
struct Noise {
  std::vector<std::string> names;
  std::vector<std::vector<double>> distances;  // of each parameter's draws
  std::vector<double> losses;                  // relative distances of the sum of losses

  Noise(const Model& model, const Sequence& sequence, const Objective<double>& objective,
        const Defined& want, Precision precision = Precision::hf_fp32) {
    for (const auto& [name, g] : want.gradients)
      if (verify::norm(g) > 0) names.push_back(name);
    distances.resize(names.size());
    for (int seed = 0; seed < draws; ++seed) {
      const Defined got =
          draw(model, sequence, objective, precision, static_cast<std::uint64_t>(seed));
      for (std::size_t p = 0; p < names.size(); ++p)
        distances[p].push_back(
            verify::distance(got.gradients.at(names[p]), want.gradients.at(names[p])).whole);
    }
  }
};

void check_gradients(const Gradients& got, const Defined& want, const Noise& noise) {
  const verify::DistanceLimits limits(noise.distances);
  for (std::size_t p = 0; p < noise.names.size(); ++p) {
    const std::string& name = noise.names[p];
    const double whole = verify::distance(got.at(name), want.gradients.at(name)).whole;
    INFO(name << " is " << whole << " from the definition, allowed " << limits.of(p, tail));
    CHECK(whole <= limits.of(p, tail));
  }
  for (const auto& [name, g] : want.gradients) {
    if (verify::norm(g) > 0) continue;
    INFO(name << " has the gradient 0");
    CHECK(verify::norm(got.at(name)) == 0);
  }
}

/// Sums of fp32 terms: T rows of a loss, each to about 1e-6 of its size.
void check_loss(double got, double want) {
  INFO("loss " << got << ", expected " << want);
  CHECK(std::abs(got - want) <= 1e-5 * std::abs(want));
}

void check_losses(const train::Losses& got, const train::Objective& factors,
                  const Losses<double>& want) {
  check_loss(got.lm * factors.lm, want.lm);
  check_loss(got.mtp * factors.mtp, want.mtp);
  check_loss(got.balance * factors.balance, want.balance);
  double kl = 0;
  for (const double of_layer : got.kl) kl += of_layer;
  check_loss(kl * factors.kl, want.kl);
}

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
  check_losses(got.losses, factors, want.losses);
  check_gradients(got.gradients, want, Noise(model, sequence, objective, want));
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
