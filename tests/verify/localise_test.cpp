// tests/verify/localise_test.cpp — wrong by itself, or because of what it was made from.
#include "verify/localise/localise.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/catch.hpp"
#include "tests/scratch.hpp"
#include "tests/verify/localise_helpers.hpp"
#include "verify/defects/defect.hpp"

namespace {

using namespace dsa;
using namespace dsa::test;
using namespace dsa::verify;
using reference::Precision;

using Names = std::set<std::string>;

void break_with(Variant& altered, const std::string& name, std::size_t variant = 0) {
  for (const Defect& defect : all_defects())
    if (defect.name == name) return defect.variants.at(variant).apply(altered);
  FAIL("no defect " << name);
}

/// The op of one layer only.
template <class... A, class F>
void replace(std::function<void(const std::string&, A...)>& op, const std::string& at, F f) {
  op = [inner = op, at, f](const std::string& name, A... a) {
    inner(name, a...);
    if (name == at) f(a...);
  };
}

std::vector<std::string> names_of(const Grafted& grafted) {
  std::vector<std::string> names;
  for (const FaultyOp& wrong : grafted.wrong) names.push_back(wrong.tensor.name);
  return names;
}

Localisation localised(const std::string& name, const std::filesystem::path& file) {
  JudgeOptions options;
  options.runs = 4;
  return localise(test::sample(name) / "checkpoint", file, options);
}

}  // namespace

TEST_CASE("a right trace departs nowhere", "[localise]") {
  for (const std::string name : {"v32", "v3", "v2lite", "glm", "ties", "fp8"}) {
    const Localisation l = localised(name, test::sample(name) / "trace.fp64.safetensors");
    CAPTURE(name, l.why);
    CHECK(l.outcome == Outcome::pass);
    CHECK(l.grafted.wrong.empty());
    CHECK_FALSE(l.first_departure.has_value());
    CHECK(l.dump_next.empty());
    CHECK(l.unmapped.empty());
  }
}

TEST_CASE("two defects in different layers are named, and nothing that inherits them",
          "[localise]") {
  Variant broken = v32().exact();
  const std::string norm = "model.layers.0.post_attention_layernorm",
                    scores = "model.layers.2.self_attn.indexer.scores";
  replace(broken.ops.rmsnorm, norm, [](View<double, 2> y, auto, const auto&, double) {
    for (double& x : y) x *= 1.001;
  });
  replace(broken.ops.indexer_scores, scores, [](View<double, 2> y, auto&&...) { y(40, 3) += 1; });
  const Grafted g =
      graft(v32(), dump_of(broken, first_of_v32(48), everything), quick(Precision::fp64));
  CHECK(names_of(g) == std::vector{norm, scores});
  for (const FaultyOp& wrong : g.wrong) CHECK(wrong.ops == std::vector{wrong.tensor.name});
  CHECK(g.wrong[1].tensor.at.position == 40);
  CHECK(g.wrong[1].tensor.over == 1);
}

TEST_CASE("a mask too strict is the scores' fault, not the selection's", "[localise]") {
  Variant broken = v32().exact();
  const std::string scores = "model.layers.2.self_attn.indexer.scores";
  replace(broken.ops.indexer_scores, scores, [](View<double, 2> y, auto&&...) {
    for (Index s = 0; s < 40; s += 2) y(40, s) = -std::numeric_limits<double>::infinity();
  });
  const Recording side = dump_of(broken, first_of_v32(48), everything);
  CHECK(names_of(graft(v32(), side, quick(Precision::fp64))) == std::vector{scores});
}

TEST_CASE("ops lie between what departs and what the trace tells", "[localise]") {
  Variant broken = v32().exact();
  break_with(broken, "softmax-mscale");
  const Grafted g =
      graft(v32(), dump_of(broken, first_of_v32(48), modules), quick(Precision::fp64));
  REQUIRE(g.wrong.size() == 3);
  CHECK(g.wrong[1].tensor.name == "model.layers.1.self_attn.o_proj");
  const std::string at = "model.layers.1.self_attn.";
  CHECK(g.wrong[1].ops ==
        std::vector<std::string>{at + "q_rope", at + "k_rope", at + "heads", at + "o_proj"});
}

TEST_CASE("a trace of blocks names the blocks", "[localise]") {
  Variant broken = v32().exact();
  replace(broken.ops.rmsnorm, "model.layers.1.input_layernorm",
          [](View<double, 2> y, auto, const auto&, double) {
            for (double& x : y) x *= 1.01;
          });
  const auto blocks = [](const std::string& name) { return short_name(name).empty(); };
  const Grafted g = graft(v32(), dump_of(broken, first_of_v32(48), blocks), quick(Precision::fp64));
  CHECK(names_of(g) == std::vector<std::string>{"model.layers.1"});
  CHECK(g.wrong[0].ops.front() == "model.layers.1.input_layernorm");
  CHECK(g.wrong[0].ops.back() == "model.layers.1");
}

TEST_CASE("NaN is blamed where it arises, not where it spreads", "[localise]") {
  Variant broken = v32().exact();
  replace(broken.ops.rmsnorm, "model.layers.1.post_attention_layernorm",
          [](View<double, 2> y, auto, const auto&, double) {
            y(7, 3) = std::numeric_limits<double>::quiet_NaN();
          });
  // Router scores of NaN have no order: leave experts and what follows out.
  const auto until_moe = [](const std::string& name) {
    return layer_of(name) == 0 || short_name(name) == "post_attention_layernorm" ||
           short_name(name) == "attention_residual" || short_name(name) == "input_layernorm";
  };
  Recording side = dump_of(v32().exact(), first_of_v32(48), until_moe);
  const std::string name = "model.layers.1.post_attention_layernorm";
  Tensor<double, 2> values = side.trace.at(name).values();
  values(7, 3) = std::numeric_limits<double>::quiet_NaN();
  add_trace(side, name, Dtype::f64, {values.shape()[0], values.shape()[1]},
            std::vector<double>(values.begin(), values.end()));
  const Grafted g = graft(v32(), side, quick(Precision::fp64));
  CHECK(names_of(g) == std::vector{name});
  CHECK(g.wrong[0].tensor.wrong_kind == 1);
}

TEST_CASE("decisions that are not told and may turn leave rows unjudged", "[localise]") {
  // Exact ties: either choice is right, and without the choice nobody knows which was made.
  const ModelPair ties = open_models(test::sample("ties") / "checkpoint", Precision::fp64);
  const Recording golden = read_recording(test::sample("ties") / "logits.safetensors", "fp64", 0);
  Variant other = ties.exact();
  break_with(other, "selection-ties-highest-first");
  const auto without_choice = [](const std::string& name) {
    return !name.ends_with("self_attn.indexer") && !name.ends_with("indexer.scores");
  };
  const Grafted untold =
      graft(ties, dump_of(other, golden.sequences[0], without_choice), quick(Precision::fp64));
  CHECK(names_of(untold).empty());
  CHECK_FALSE(untold.undecided.empty());
  const Grafted told =
      graft(ties, dump_of(other, golden.sequences[0], everything), quick(Precision::fp64));
  CHECK(names_of(told).empty());
  CHECK(told.undecided.empty());
}

TEST_CASE("groups that rounding turned are right, and told by their experts", "[localise]") {
  const ModelPair v3 = open_models(test::sample("v3") / "checkpoint", Precision::hf_bf16);
  const Recording golden = read_recording(test::sample("v3") / "logits.safetensors", "fp64", 0);
  Index turned = 0;
  for (const std::uint64_t draw : {1, 2, 3}) {
    const Variant right = v3.rounded({reference::Rounding::Mode::random, draw});
    const Recording side = dump_of(right, golden.sequences[0], modules);
    const JudgeOptions options = quick(Precision::hf_bf16, 8);
    const Judgement plain = hold_against_definition(v3, side, "candidate", options).judgement;
    CAPTURE(draw, plain.why);
    CHECK(plain.outcome == Outcome::pass);
    for (const TensorResult& tensor : plain.tensors) turned += tensor.explained;
    CHECK(names_of(graft(v3, side, options)).empty());
  }
  CHECK(turned > 0);
}

TEST_CASE("a rounding that few runs show is right", "[localise]") {
  // Without the last place, draws 1 and 6 had an element beyond its limit.
  const ModelPair bf16 = open_models(test::sample("v32") / "checkpoint", Precision::hf_bf16);
  for (const std::uint64_t draw : {1, 6}) {
    const Variant right = bf16.rounded({reference::Rounding::Mode::random, draw});
    const Recording side = dump_of(right, first_of_v32(48), modules);
    CHECK(names_of(graft(bf16, side, quick(Precision::hf_bf16, 8))).empty());
  }
}

TEST_CASE("one unit in the last place is not wrong, more is", "[localise]") {
  Recording side = dump_of(v32().exact(), first_of_v32(48), everything);
  const std::string name = "model.layers.1.self_attn.q_a_proj";
  const Tensor<double, 2> right = side.trace.at(name).values();
  const auto off_by = [&](double units) {
    std::vector<double> values(right.begin(), right.end());
    values[5] += units * std::ldexp(1.0, std::ilogb(values[5]) - 52);
    add_trace(side, name, Dtype::f64, {right.shape()[0], right.shape()[1]}, values);
    return names_of(graft(v32(), side, quick(Precision::fp64)));
  };
  CHECK(off_by(1).empty());
  CHECK(off_by(1e4).front() == name);
}

TEST_CASE("logits alone are bisected by how many keys a row sees", "[localise]") {
  const Scratch scratch;
  const auto localise_logits = [&](const std::string& defect, std::size_t variant) {
    Variant broken = v32().exact();
    break_with(broken, defect, variant);
    TensorFile file = golden_column("v32", "fp64");
    file.cut(1, file.at("tokens").shape[1]);
    const Column& tokens = file.at("tokens");
    RunOptions run;
    run.span.end = broken.model.config.num_hidden_layers;
    const Run said =
        run_reference(broken.model, plain_sequence({tokens.values.begin(), tokens.values.end()}),
                      broken.ops, run);
    file.at("logits.fp64").values.assign(said.logits.begin(), said.logits.end());
    file.write(scratch / "logits");
    return localised("v32", scratch / "logits");
  };
  const auto suspected = [](const Localisation& l, const std::string& within) {
    REQUIRE(l.grafted.wrong.size() == 1);
    const auto& ops = l.grafted.wrong[0].ops;
    return std::any_of(ops.begin(), ops.end(),
                       [&](const std::string& name) { return short_name(name) == within; });
  };
  const Localisation indexer = localise_logits("indexer-relu-missing", 0);
  CAPTURE(indexer.why);
  CHECK(indexer.outcome == Outcome::fail);
  CHECK(suspected(indexer, "self_attn.indexer.scores"));
  CHECK_FALSE(suspected(indexer, "self_attn.heads"));
  CHECK(indexer.dump_next == indexer.grafted.wrong[0].ops);

  const Localisation scale = localise_logits("softmax-mscale", 0);
  CAPTURE(scale.why);
  CHECK(suspected(scale, "self_attn.heads"));
  CHECK_FALSE(suspected(scale, "self_attn.indexer.q"));
  CHECK_FALSE(suspected(scale, "mlp"));

  const Localisation unmasked = localise_logits("selection-before-mask", 0);
  CHECK(suspected(unmasked, "self_attn.indexer"));
  CHECK_FALSE(suspected(unmasked, "self_attn.indexer.weights_proj"));

  const Localisation head = localise_logits("final-norm-missing", 0);
  CHECK(suspected(head, "model.norm"));
  CHECK_FALSE(suspected(head, "self_attn.q_rope"));
}

TEST_CASE("the JSON of a localisation", "[localise]") {
  const Scratch scratch;
  TensorFile file = TensorFile::read(test::sample("v32") / "trace.fp64.safetensors");
  file.at("model.layers.1.mlp")(5, 7) += 1e-3;
  file.columns.push_back({"their.own", Dtype::f64, {1, 1}, {0}});
  file.write(scratch / "mine");
  const Localisation l = localised("v32", scratch / "mine");
  const Json json = to_json(l);
  CHECK(json["verdict"] == "fail");
  CHECK(json["exit_code"] == 1);
  CHECK(json["first_departure"] == "model.layers.1.mlp");
  REQUIRE(json["wrong"].size() == 2);  // and the block that was made from the right one
  CHECK(json["wrong"][0]["name"] == "model.layers.1.mlp");
  CHECK(json["wrong"][0]["at"]["position"] == 5);
  CHECK(json["wrong"][0]["at"]["channel"] == 7);
  CHECK(json["wrong"][1]["name"] == "model.layers.1");
  CHECK(json["unmapped"] == Json::array({"their.own"}));
  CHECK(json["receipt"]["seed"] == 1);
  CHECK(table(l, false).find("model.layers.1.mlp") != std::string::npos);
}
