// dsa-verify gradients: what is right passes, what is wrong is named.
#include "verify/diagnose/gradients.hpp"

#include <algorithm>
#include <cmath>

#include "core/checkpoint.hpp"
#include "core/safetensors.hpp"
#include "tests/catch.hpp"
#include "tests/paths.hpp"
#include "tests/scratch.hpp"
#include "verify/gradients/judge.hpp"
#include "verify/gradients/oddities.hpp"
#include "verify/gradients/passes.hpp"
#include "verify/gradients/report.hpp"

using namespace dsa;
using namespace dsa::test;
using namespace dsa::verify;
using Catch::Contains;
namespace fs = std::filesystem;

namespace {

/// V3 is the cheapest: it has no indexer.
const std::string v3 = (fs::path(source_dir()) / "data/gradients/v3").string();
const std::string calm = (fs::path(source_dir()) / "data/gradients/v32calm").string();

struct Stored {
  Dtype dtype;
  std::vector<Index> shape;
  std::vector<double> values;
};
using Tensors = std::map<std::string, Stored>;

Tensors read(const std::string& file) {
  Tensors tensors;
  const SafetensorsFile stored = SafetensorsFile::open(file);
  for (const StoredTensor& t : stored.tensors()) {
    Stored& s = tensors[t.name] = {t.dtype, t.shape, {}};
    s.values.resize(static_cast<std::size_t>(t.size()));
    decode(t.dtype, t.data, t.size(), s.values.data());
  }
  return tensors;
}

void write(const fs::path& file, const Tensors& tensors) {
  std::vector<SafetensorsWriter::Declaration> declared;
  for (const auto& [name, t] : tensors) declared.push_back({name, t.dtype, t.shape});
  SafetensorsWriter out(file, declared);
  for (const auto& [name, t] : tensors) out.append_values(t.values);
  out.commit();
}

GradientOptions quick() {
  GradientOptions options;
  options.runs = 4;
  return options;
}

}  // namespace

TEST_CASE("torch's gradients are right by the definition", "[gradients]") {
  const GradientVerdict v3_alone =
      judge_gradients(v3 + "/checkpoint", v3 + "/gradients.sparse.safetensors", "", quick());
  CHECK(v3_alone.outcome == Outcome::pass);
  CHECK(v3_alone.parameters.size() > 30);
  const GradientVerdict sparse =
      judge_gradients(calm + "/checkpoint", calm + "/gradients.sparse.maxtext.safetensors", "", [] {
        GradientOptions options = quick();
        options.semantics = "maxtext";
        return options;
      }());
  INFO(sparse.why);
  CHECK(sparse.outcome == Outcome::pass);
  CHECK(sparse.precision == "fp64");
}

TEST_CASE("torch's choice among equal index scores is right, and known to the last bit",
          "[gradients]") {
  const Scratch scratch;
  const fs::path data = fs::path(source_dir()) / "data";
  const std::string golden = (data / "gradients/ties/gradients.sparse.safetensors").string(),
                    candidate = (scratch / "candidate.safetensors").string(),
                    checkpoint = (data / "samples/ties/checkpoint").string();
  const GradientVerdict right = judge_gradients(checkpoint, golden, "", quick());
  CHECK(right.outcome == Outcome::pass);
  for (const ParameterResult& p : right.parameters) CHECK(p.distance < 1e-12);
  Tensors tensors = read(golden);
  for (double& x : tensors.at("kl.model.layers.0.self_attn.indexer.wk.weight").values) x *= 1.0001;
  write(candidate, tensors);
  CHECK(judge_gradients(checkpoint, golden, candidate, quick()).outcome == Outcome::fail);
}

TEST_CASE("another choice among equal index scores is right, too", "[gradients]") {
  const Scratch scratch;
  const fs::path data = fs::path(source_dir()) / "data";
  const std::string golden = (data / "gradients/ties/gradients.sparse.safetensors").string(),
                    candidate = (scratch / "candidate.safetensors").string(),
                    checkpoint = (data / "samples/ties/checkpoint").string();
  const Model model = open_checkpoint(checkpoint);
  const GradientFile file = read_gradients(golden, model.config);
  GradientVariant last_keys = variant_of("lm", stage_of(model, file, {}, file));
  last_keys.ops.topk_select = [](const std::string&, View<Index, 2> chosen,
                                 View<const double, 2> scores) {
    const Index S = scores.shape[1];
    Tensor<double, 2> reversed(scores.shape);
    for (Index t = 0; t < scores.shape[0]; ++t)
      for (Index s = 0; s < S; ++s) reversed(t, s) = scores(t, S - 1 - s);
    reference::definition<double>().topk_select("", chosen, reversed);
    for (Index& s : chosen) s = s < 0 ? s : S - 1 - s;
  };
  const GradientPass pass = run_backward(last_keys);
  Tensors tensors = {{"tokens", read(golden).at("tokens")},
                     {"loss.lm", {Dtype::f64, {1}, {pass.loss}}}};
  for (const auto& [name, values] : pass.gradients)
    for_each_tensor(model.weights, model.config,
                    [&](const std::string& its, const auto&, const std::vector<Index>& shape) {
                      if (its == name && norm(values) > 0)
                        tensors["lm." + name] = {Dtype::f64, shape, values};
                    });
  write(candidate, tensors);
  const GradientVerdict v = judge_gradients(checkpoint, golden, candidate, quick());
  INFO(v.why);
  CHECK(v.outcome == Outcome::pass);
}

TEST_CASE("gradients by another trainer's convention are not the paper's", "[gradients]") {
  const GradientVerdict v = judge_gradients(
      calm + "/checkpoint", calm + "/gradients.sparse.megatron.safetensors", "", quick());
  CHECK(v.outcome == Outcome::fail);
  CHECK_THAT(v.why, Contains("exactly 4 times ours: a sum over layers"));
}

TEST_CASE("what is wrong with a candidate's gradients is named", "[gradients]") {
  const Scratch scratch;
  const std::string golden = v3 + "/gradients.sparse.safetensors",
                    candidate = (scratch / "candidate.safetensors").string();
  Tensors tensors = read(golden);
  const std::string norm = "lm.model.layers.1.input_layernorm.weight";
  const auto judged = [&] {
    write(candidate, tensors);
    return judge_gradients(v3 + "/checkpoint", golden, candidate, quick());
  };

  SECTION("one gradient is a thousandth too large") {
    for (double& value : tensors.at(norm).values) value *= 1.001;
    const GradientVerdict v = judged();
    CHECK(v.outcome == Outcome::fail);
    CHECK(v.first_departure == norm.substr(3));
    const auto wrong = std::count_if(v.parameters.begin(), v.parameters.end(),
                                     [](const ParameterResult& r) { return !r.ok(); });
    CHECK(wrong == 1);
    CHECK(to_json(v)["first_departure"] == norm.substr(3));
    CHECK(to_json(v)["exit_code"] == 1);
    CHECK_THAT(table(v, false), Contains("FAIL") || Contains("fail"));
    CHECK_THAT(to_html(v), Contains("Gradients of loss.lm") && Contains("heat3"));
    CHECK_THAT(to_junit(v), Contains("failures=\"2\"") && Contains(norm.substr(3)));
  }
  SECTION("one element is NaN") {
    tensors.at(norm).values[3] = std::numeric_limits<double>::quiet_NaN();
    const GradientVerdict v = judged();
    CHECK(v.outcome == Outcome::fail);
    CHECK(v.first_departure == norm.substr(3));
    CHECK_THAT(v.why, Contains("your " + norm) && Contains("not finite, the first at (3, 0)"));
  }
  SECTION("a gradient is missing") {
    tensors.erase(norm);
    const GradientVerdict v = judged();
    CHECK(v.outcome == Outcome::inconclusive);
    CHECK_THAT(v.why, Contains(norm));
  }
  SECTION("the loss is a sum") {
    tensors.at("loss.lm").values[0] *= 298;
    const GradientVerdict v = judged();
    CHECK(v.outcome == Outcome::fail);
  }
  SECTION("a gradient has another shape") {
    tensors.at(norm).shape = {1, static_cast<Index>(tensors.at(norm).values.size())};
    CHECK_THROWS_WITH(judged(), Contains(norm) && Contains("expected that of its parameter"));
  }
  SECTION("a parameter is unknown") {
    tensors["lm.model.layers.1.norm"] = tensors.at(norm);
    CHECK_THROWS_WITH(judged(), Contains("a parameter that the model does not have"));
  }
  SECTION("a parameter has another trainer's name") {
    const auto renamed = tensors.extract("lm.model.norm.weight");
    tensors["lm.module.decoder.final_layernorm.weight"] = renamed.mapped();
    CHECK_THROWS_WITH(judged(), Contains("--names"));
    GradientOptions named = quick();
    named.names = "megatron";
    const GradientVerdict v = judge_gradients(v3 + "/checkpoint", golden, candidate, named);
    INFO(v.why);
    CHECK(v.outcome == Outcome::pass);
  }
  SECTION("other tokens") {
    tensors.at("tokens").values[0] += 1;
    CHECK_THROWS_WITH(judged(), Contains("other tokens"));
  }
}

TEST_CASE("what one look tells of a wrong gradient is told", "[gradients]") {
  const std::vector<double> wanted = {1, 2, 3, 4}, turned = {1, 3, 2, 4}, other = {1, 3, 2.1, 4},
                            infinite = {1, std::numeric_limits<double>::infinity(), 3, NAN};
  CHECK(oddity({turned, wanted, 2, 2, 1e-12}) == "is the transpose of what it should be");
  CHECK(oddity({other, wanted, 2, 2, 1e-12}).empty());
  CHECK(oddity({turned, wanted, 4, 1, 1e-12}).empty());
  CHECK(oddity({infinite, wanted, 2, 2, 1e-12}) ==
        "has 2 numbers that are not finite, the first at (0, 1)");
}

TEST_CASE("the language model's gradient in the indexer must be zero", "[gradients]") {
  const Scratch scratch;
  const std::string golden = calm + "/gradients.dense.safetensors",
                    candidate = (scratch / "candidate.safetensors").string(),
                    leak = "model.layers.0.self_attn.indexer.k_norm.bias";
  Tensors tensors = read(golden);
  tensors["lm." + leak] = tensors.at("kl." + leak);
  write(candidate, tensors);
  GradientOptions options = quick();
  options.losses = {"lm"};
  const GradientVerdict v = judge_gradients(calm + "/checkpoint", golden, candidate, options);
  CHECK(v.outcome == Outcome::fail);
  REQUIRE(v.must_be_zero.size() == 1);
  CHECK(v.must_be_zero.front().name == leak);
  CHECK(v.notes.front() == "stage: dense: every visible key is chosen");
}

TEST_CASE("a file of gradients by torch with one defect in it is diagnosed", "[gradients][slow]") {
  const GradientDiagnosis d =
      diagnose_gradients(calm + "/checkpoint", calm + "/gradients.sparse.safetensors",
                         calm + "/gradients.twin-kl-reversed.safetensors", quick());
  CAPTURE(d.why);
  CHECK(d.conclusion == "defect");
  CHECK(d.defects == std::vector<int>{202});
  CHECK(d.also.empty());
  const RankedGradients& best = d.ranking.at(0);
  CHECK(best.name == "kl-reversed");
  CHECK(best.variant.empty());
  CHECK(best.explained);
  CHECK(best.worst_over_allowed <= 1);
  CHECK(exit_code(d) == 1);
  CHECK_THAT(table(d, false), Contains("kl-reversed explains loss.kl"));
}
