// tests/verify/gradient_defects_test.cpp — training defects: the catalogue, and the search for one.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>

#include "tests/catch.hpp"
#include "tests/reference/backward_support.hpp"
#include "verify/defects/defect.hpp"
#include "verify/defects/gradients/defect.hpp"
#include "verify/diagnose/gradient_search.hpp"

using namespace dsa;
using namespace dsa::verify;
using dsa::test::source_dir;

namespace {

/// Two sequences of unlike length, the second padded on the right.
std::vector<Sequence> ragged() {
  std::vector<Index> mask(9, 1);
  mask[7] = mask[8] = 0;
  return {plain_sequence({1, 5, 3, 9, 2, 5, 7, 1, 4}),
          masked_sequence({8, 2, 2, 6, 10, 3, 5, 0, 0}, mask)};
}

/// Three layers, two of them mixtures; YaRN with a factor of the softmax scale.
Config small_config(const char* key = "index_topk", const Json& value = 3) {
  Json json = test::tiny_config();
  json[key] = value;
  json["num_hidden_layers"] = 3;
  json["rope_scaling"] = {{"rope_type", "yarn"},
                          {"factor", 4.0},
                          {"mscale", 1.0},
                          {"mscale_all_dim", 1.0},
                          {"beta_fast", 32},
                          {"beta_slow", 1},
                          {"original_max_position_embeddings", 8}};
  return parse_config(json, "the small config");
}

GradientStage stage_of(const Config& config, bool dense) {
  GradientStage stage{"sparse", test::random_model(config, 11), ragged(), {}, 0, !dense};
  stage.topk = config.indexer ? config.indexer->topk : 0;
  if (dense) stage.model.config.indexer->topk = 18;
  return stage;
}

/// Models and stages that between them have everything that a defect may need.
std::vector<GradientStage> stages() {
  Config softmax = small_config();
  softmax.router.scoring = Router::Scoring::softmax;  // as V2: no indexer, no query latent
  softmax.router.norm_topk_prob = false;
  softmax.indexer.reset();
  softmax.q_lora_rank.reset();
  return {stage_of(small_config(), false), stage_of(small_config(), true),
          stage_of(small_config("tie_word_embeddings", true), false),
          stage_of(small_config("num_nextn_predict_layers", 1), false), stage_of(softmax, false)};
}

std::string full_name(const GradientDefect& defect, const std::string& variant) {
  return defect.name + " (" + variant + ")";
}

bool same(const GradientPass& a, const GradientPass& b) {
  double worst = 0;
  for (std::size_t p = 0; p < a.gradients.size(); ++p) {
    const auto& [name, want] = a.gradients[p];
    const auto other =
        std::find_if(b.gradients.begin(), b.gradients.end(),
                     [&, wanted = &name](const auto& g) { return g.first == *wanted; });
    double squares = 0;
    for (std::size_t i = 0; i < want.size(); ++i)
      squares += std::pow(want[i] - other->second[i], 2);
    const double size = std::max(norm(want), norm(other->second));
    if (size > 0) worst = std::max(worst, std::sqrt(squares) / size);
  }
  return worst < 1e-12;
}

}  // namespace

TEST_CASE("names of training defects are unique, and plausible ones say so", "[defects]") {
  std::set<std::string> names;
  for (const Defect& defect : all_defects()) names.insert(defect.name);
  const std::regex link(
      "https://github\\.com/[A-Za-z0-9-]+/[A-Za-z0-9._-]+(/issues/[0-9]+|/commit/[0-9a-f]{7,40})?");
  for (const GradientDefect& defect : all_gradient_defects()) {
    INFO(defect.name);
    CHECK(names.insert(defect.name).second);
    CHECK(std::regex_match(defect.name, std::regex("[a-z0-9]+(-[a-z0-9]+)*")));
    CHECK(defect.sentence.find('|') == std::string::npos);
    CHECK((!defect.variants.empty() || defect.more));
    std::set<std::string> variants;
    for (const GradientChange& change : defect.variants) CHECK(variants.insert(change.name).second);
    if (defect.convention) continue;
    const bool reported = defect.number <= 200;
    CHECK(reported == std::regex_match(defect.link, link));
    CHECK(reported == !defect.sentence.starts_with("Plausible: "));
  }
  CHECK(names.size() > all_defects().size() + 40);
}

TEST_CASE("docs/defects.md lists every training defect", "[defects]") {
  std::ifstream file(source_dir() + "/docs/defects.md");
  std::stringstream text;
  text << file.rdbuf();
  for (const GradientDefect& defect : all_gradient_defects()) {
    INFO(defect.name);
    CHECK(text.str().find("`" + defect.name + "`") != std::string::npos);
  }
}

TEST_CASE("every variant changes what its defect says, on some small model", "[defects][slow]") {
  std::set<std::string> seen, expected;
  for (const GradientDefect& defect : all_gradient_defects())
    for (const GradientChange& change : defect.variants)
      expected.insert(full_name(defect, change.name));
  for (const GradientStage& stage : stages())
    for (const std::string loss : {"lm", "kl", "mtp", "balance"}) {
      if (loss == "mtp" && stage.model.weights.mtp.empty()) continue;
      if (loss == "kl" && !stage.model.config.indexer) continue;
      const GradientVariant right = variant_of(loss, stage);
      const GradientPass base = run_backward(right);
      for (const GradientDefect& defect : all_gradient_defects()) {
        if (!defect.applies(right)) continue;
        for (const GradientChange& change : changes_of(defect, right)) {
          INFO(loss << ": " << full_name(defect, change.name));
          GradientVariant v = right;
          change.apply(v);
          const GradientPass pass = run_backward(v);
          REQUIRE(pass.gradients.size() == base.gradients.size());
          const bool is_value = pass.loss == base.loss;
          if (!defect.changes_loss) CHECK(is_value);
          CHECK(std::abs(loss_of(v) - pass.loss) <= 1e-12 * std::abs(pass.loss));
          if (!is_value || !same(base, pass)) seen.insert(full_name(defect, change.name));
        }
      }
    }
  for (const std::string& name : expected) {
    INFO(name);
    CHECK(seen.contains(name));
  }
}

namespace {

/// The pass of a broken trainer in float32, as a file would hold it.
struct Candidate {
  ByParameter gradients;
  double loss;
};
Candidate candidate_of(const std::string& loss, const GradientStage& stage,
                       const std::vector<std::pair<std::string, std::size_t>>& defects,
                       double factor = 1) {
  GradientVariant v = variant_of(loss, stage, {reference::Precision::hf_fp32, 4711});
  for (const auto& [name, variant] : defects)
    for (const GradientDefect& defect : all_gradient_defects())
      if (defect.name == name) defect.variants.at(variant).apply(v);
  const GradientPass pass = run_backward(v);
  Candidate candidate{{}, factor * pass.loss};
  for (const auto& [name, values] : pass.gradients) {
    StoredValues& stored = candidate.gradients[name] = {Dtype::f32, values};
    for (double& value : stored.values) value = round_to(Dtype::f32, factor * value);
  }
  return candidate;
}

GradientSearch searched(const std::string& loss, const GradientStage& stage,
                        const Candidate& candidate, const GradientOptions& options) {
  GradientSearch search(loss, stage, {candidate.loss, &candidate.gradients, nullptr},
                        reference::Precision::hf_fp32, options, 1e-6);
  search.run();
  return search;
}

}  // namespace

TEST_CASE("a broken backward pass in fp32 is named, whatever its factor", "[defects][slow]") {
  const GradientStage stage = stage_of(small_config(), false);
  GradientOptions options;
  options.runs = 6;
  for (const auto& [loss, name, variant] : {std::tuple{"kl", "kl-reversed", 0},
                                            {"kl", "relu-gradient-passes", 0},
                                            {"lm", "softmax-without-delta", 0},
                                            {"lm", "rope-backward", 1}}) {
    const Candidate candidate =
        candidate_of(loss, stage, {{name, static_cast<std::size_t>(variant)}});
    const GradientSearch search = searched(loss, stage, candidate, options);
    const RankedGradients& best = search.arms().front().ranked;
    CAPTURE(name, best.name, best.variant, best.distance, best.worst_over_allowed);
    CHECK(best.explained);
    CHECK(best.name == name);
    CHECK(best.distance < 1e-3 * search.before());
  }
  const Candidate summed = candidate_of("kl", stage, {{"kl-reversed", 0}}, 16);
  const GradientSearch search = searched("kl", stage, summed, options);
  const RankedGradients& best = search.arms().front().ranked;
  CAPTURE(best.name, best.variant, best.distance, best.worst_over_allowed);
  CHECK(best.explained);
  CHECK(best.name == "kl-reversed");
  CHECK(best.variant == "loss and gradients times 16");
}

TEST_CASE("what no defect makes is not named", "[defects]") {
  const GradientStage stage = stage_of(small_config(), false);
  GradientOptions options;
  options.runs = 6;
  Candidate candidate = candidate_of("lm", stage, {});
  for (auto& [name, stored] : candidate.gradients)
    if (name.ends_with("layers.1.self_attn.o_proj.weight"))
      std::reverse(stored.values.begin(), stored.values.end());
  const GradientSearch search = searched("lm", stage, candidate, options);
  for (const GradientArm& arm : search.arms()) {
    INFO(arm.ranked.name << " " << arm.ranked.variant);
    CHECK_FALSE(arm.ranked.explained);
  }
}

TEST_CASE("a gradient that autograd never made tells a detached router from a stale copy",
          "[defects]") {
  const GradientStage stage = stage_of(small_config(), false);
  GradientOptions options;
  options.runs = 6;
  const Candidate golden = candidate_of("lm", stage, {});
  Candidate candidate = candidate_of("lm", stage, {{"router-detached", 0}});
  std::erase_if(candidate.gradients,
                [](const auto& entry) { return entry.first.ends_with("mlp.gate.weight"); });
  GradientSearch search("lm", stage, {candidate.loss, &candidate.gradients, &golden.gradients},
                        reference::Precision::hf_fp32, options, 1e-6);
  CHECK(search.run());
  CHECK(search.arms().at(0).ranked.name == "router-detached");
  CHECK(search.arms().at(0).absent > 0);
  CHECK(search.arms().at(1).ranked.explained);  // by the gradients alone
  CHECK(search.arms().at(1).absent == 0);
}
