// tests/verify/localise_backward_test.cpp — a backward pass: made wrong, or of what was wrong.
#include "reference/model/backward.hpp"
#include "tests/catch.hpp"
#include "tests/paths.hpp"
#include "tests/scratch.hpp"
#include "tests/verify/localise_helpers.hpp"
#include "verify/localise/backward.hpp"

namespace {

using namespace dsa;
using namespace dsa::test;
using namespace dsa::verify;
using Catch::Matchers::Contains;
using reference::BackwardOps;
using reference::Precision;

/// What a training with these ops would dump of its backward pass, with its forward trace.
BackwardTrace dump_of(const BackwardOps<double>& ops,
                      const std::function<bool(const std::string&)>& keeps,
                      const Variant& run = v32().exact()) {
  const Sequence sequence = first_of_v32(40);
  BackwardTrace trace;
  trace.forward = test::dump_of(run, sequence, keeps);
  trace.gradients.path = "backward dump";
  for (const Trace::Entry& entry : trace.forward.trace.entries())
    if (within_layer(entry.name) == names::gate_experts) trace.gradients.trace.put(entry);
  trace.gradients.sequences = {sequence};
  const reference::Pass<double> forward{run.model, run.ops};
  const auto objective = reference::lm_objective<double>(sequence);
  reference::backward<double>({forward, ops, sequence, objective, [](auto&&...) {},
                               [&](const std::string& name, View<double, 2> gradient) {
                                 if (is_traced(name) && keeps(name))
                                   trace.gradients.trace.put(name, gradient);
                               }});
  return trace;
}

Localisation localised(const BackwardTrace& trace) {
  JudgeOptions options = quick(Precision::fp64, 3);
  Localisation l;
  localise_backward(l, v32(), trace, options);
  return l;
}

std::map<std::string, std::vector<std::string>> wrong_of(const Localisation& l) {
  std::map<std::string, std::vector<std::string>> wrong;
  for (const FaultyOp& w : l.grafted.wrong) wrong[w.tensor.name] = w.ops;
  return wrong;
}

using Ops = std::vector<std::string>;
const std::string layer1 = "model.layers.1.";

/// The rotation's backward rotates forwards, in one place.
BackwardOps<double> rotating_the_same_way(const std::string& at) {
  BackwardOps<double> ops = reference::backward_definition<double>();
  ops.rope = [at, inner = ops.rope](const std::string& name, View<double, 3> d_x,
                                    View<const double, 2> cos, View<const double, 2> sin,
                                    RopeLayout layout) {
    if (name != at) return inner(name, d_x, cos, sin, layout);
    Tensor<double, 2> other(sin.shape);
    for (Index i = 0; i < sin.size(); ++i) other.data()[i] = -sin.data[i];
    inner(name, d_x, cos, other, layout);
  };
  return ops;
}

/// What a row of the table makes for the module `at` comes out one percent too large.
template <class Row>
void enlarge(Row& row, const std::string& at) {
  row = [at, inner = row](const std::string& name, View<double, 2> d_x, auto&&... rest) {
    inner(name, d_x, rest...);
    for (Index i = 0; name == at && i < d_x.size(); ++i) d_x.data[i] *= 1.01;
  };
}

/// One wrong row of every kind that the language model's loss goes through, each in a place of its
/// own.
BackwardOps<double> wrong_everywhere() {
  BackwardOps<double> ops = rotating_the_same_way("model.layers.1.self_attn.q_rope");
  enlarge(ops.cross_entropy, "lm_head");
  enlarge(ops.rmsnorm, "model.layers.2.self_attn.q_a_layernorm");
  enlarge(ops.linear, "model.layers.1.self_attn.o_proj");
  enlarge(ops.router_scores, "model.layers.1.mlp.gate.scores");
  enlarge(ops.router_weights, "model.layers.2.mlp.gate.weights");
  enlarge(ops.swiglu, "model.layers.0.mlp.act_fn");
  enlarge(ops.add, "model.layers.2.attention_residual");
  ops.accumulate = [inner = ops.accumulate](const std::string& name, auto&& d, auto&&... rest) {
    inner(name, d, rest...);
    for (double& d_weight : d.d_weights) d_weight *= name.starts_with(layer1 + "mlp") ? 1.01 : 1;
  };
  ops.mla_expanded = [inner = ops.mla_expanded](const std::string& name, auto&& d, auto&&... rest) {
    inner(name, d, rest...);
    for (Index i = 0; name == "model.layers.0.self_attn.heads" && i < d.d_kv.size(); ++i)
      d.d_kv.data[i] *= 1.01;
  };
  return ops;
}

}  // namespace

TEST_CASE("torch's backward trace departs nowhere", "[localise][slow]") {
  const std::string calm = std::string(source_dir()) + "/data/gradients/v32calm";
  JudgeOptions options;
  options.runs = 2;
  const Localisation l =
      localise(calm + "/checkpoint", calm + "/backward-trace.safetensors", options);
  INFO(l.why);
  CHECK(l.outcome == Outcome::pass);
  CHECK(l.unmapped.empty());
  CHECK(l.precision == "fp64");
}

TEST_CASE("torch's backward traces in float32 and bfloat16 depart nowhere", "[localise]") {
  const std::string calm = std::string(source_dir()) + "/data/gradients/v32calm";
  for (const std::string dtype : {"fp32", "bf16"}) {
    JudgeOptions options;
    options.runs = 4;
    const Localisation l =
        localise(calm + "/checkpoint", calm + "/backward-trace." + dtype + ".safetensors", options);
    CAPTURE(l.why);
    CHECK(l.outcome == Outcome::pass);
    CHECK(l.grafted.wrong.empty());
    CHECK(l.precision == "hf-" + dtype);
  }
}

TEST_CASE("a wrong backward of every kind is found by itself", "[localise]") {
  const Localisation l = localised(dump_of(wrong_everywhere(), everything));
  const std::map<std::string, Ops> expected = {
      {"d.lm_head", {"loss.lm"}},
      {"d.model.layers.2.self_attn", {"model.layers.2.attention_residual"}},
      {"d.model.layers.2.self_attn.q_a_proj", {"model.layers.2.self_attn.q_a_layernorm"}},
      {"d.model.layers.2.mlp.gate.logits", {"model.layers.2.mlp.gate.weights"}},
      {"d.model.layers.1.mlp.gate.weights", {"model.layers.1.mlp.experts"}},
      {"d.model.layers.1.mlp.gate.logits", {"model.layers.1.mlp.gate.weights"}},
      {"d.model.layers.1.self_attn.heads", {"model.layers.1.self_attn.o_proj"}},
      {"d.model.layers.1.self_attn.q_b_proj",
       {"model.layers.1.self_attn.heads", "model.layers.1.self_attn.q_rope"}},
      {"d.model.layers.0.mlp.gate_proj", {"model.layers.0.mlp.down_proj"}},
      {"d.model.layers.0.self_attn.kv_b_proj", {"model.layers.0.self_attn.heads"}}};
  const auto wrong = wrong_of(l);
  for (const auto& [name, ops] : expected) {
    CAPTURE(name);
    CHECK(wrong.contains(name));
    if (wrong.contains(name)) CHECK(wrong.at(name) == ops);
  }
  CHECK(wrong.size() == expected.size());
}

TEST_CASE("a backward that is wrong in one place is named, and what inherits it is not",
          "[localise]") {
  const BackwardTrace trace =
      dump_of(rotating_the_same_way(layer1 + "self_attn.q_rope"), everything);
  const Localisation l = localised(trace);
  INFO(l.why);
  CHECK(l.outcome == Outcome::fail);
  CHECK(l.first_departure == "d." + layer1 + "self_attn.q_b_proj");
  const auto wrong = wrong_of(l);
  REQUIRE(wrong.size() == 1);
  CHECK(wrong.at("d." + layer1 + "self_attn.q_b_proj") ==
        Ops{layer1 + "self_attn.heads", layer1 + "self_attn.q_rope"});
  CHECK(std::find(l.inherited.begin(), l.inherited.end(), "d.model.embed_tokens") !=
        l.inherited.end());
  CHECK(l.dump_next.empty());
  CHECK_THAT(table(l, false), Contains("self_attn.q_rope"));
}

TEST_CASE("where a backward trace leaves tensors out, it says which to dump", "[localise]") {
  const Localisation l =
      localised(dump_of(rotating_the_same_way(layer1 + "self_attn.q_rope"), modules));
  const auto wrong = wrong_of(l);
  REQUIRE(wrong.size() == 1);
  CHECK(wrong.at("d." + layer1 + "self_attn.q_b_proj") ==
        Ops{layer1 + "self_attn.o_proj", layer1 + "self_attn.heads", layer1 + "self_attn.q_rope"});
  CHECK(l.dump_next == Ops{"d." + layer1 + "self_attn.heads", "d." + layer1 + "self_attn.q_rope"});
}

TEST_CASE("the right backward of a wrong forward pass names no op", "[localise]") {
  Variant wrong = v32().exact();
  wrong.ops.rmsnorm = [inner = wrong.ops.rmsnorm](const std::string& name, View<double, 2> y,
                                                  auto&&... rest) {
    inner(name, y, rest...);
    for (Index i = 0; name == layer1 + "post_attention_layernorm" && i < y.size(); ++i)
      y.data[i] *= 1.01;
  };
  const Localisation l =
      localised(dump_of(reference::backward_definition<double>(), everything, wrong));
  INFO(l.why);
  CHECK(l.outcome == Outcome::fail);
  CHECK(wrong_of(l).empty());
  CHECK_THAT(l.why, Contains("the forward tensors that were fed are themselves wrong"));
}

TEST_CASE("two wrong backwards in different layers are both named", "[localise]") {
  BackwardOps<double> ops = rotating_the_same_way("model.layers.2.self_attn.k_rope");
  ops.rmsnorm = [inner = ops.rmsnorm](const std::string& name, View<double, 2> d_x,
                                      View<double, 1> d_g, View<const double, 2> x,
                                      const Parameter& g, View<const double, 2> d_y, double eps) {
    if (name != "model.layers.0.post_attention_layernorm")
      return inner(name, d_x, d_g, x, g, d_y, eps);
    // Without the term of the mean square: d_x += g d_y / rms.
    for (Index t = 0; t < x.shape[0]; ++t) {
      double squares = 0;
      for (const double value : x[t]) squares += value * value / static_cast<double>(x.shape[1]);
      const std::vector<double> gain = read_all<double>(g);
      for (Index c = 0; c < x.shape[1]; ++c)
        d_x(t, c) += gain[static_cast<std::size_t>(c)] * d_y(t, c) / std::sqrt(squares + eps);
    }
  };
  const Localisation l = localised(dump_of(ops, everything));
  const auto wrong = wrong_of(l);
  REQUIRE(wrong.size() == 2);
  CHECK(wrong.at("d.model.layers.2.self_attn.kv_a_proj_with_mqa") ==
        Ops{"model.layers.2.self_attn.k_rope", "model.layers.2.self_attn.kv_a_layernorm"});
  CHECK(wrong.contains("d.model.layers.0.attention_residual"));
  CHECK(l.first_departure == "d.model.layers.2.self_attn.kv_a_proj_with_mqa");
}

TEST_CASE("a loss that is a sum is wrong at the logits, by the loss", "[localise]") {
  BackwardTrace trace = dump_of(reference::backward_definition<double>(), everything);
  Recording summed = trace.gradients;
  trace.gradients.trace = {};
  for (const Trace::Entry& entry : summed.trace.entries()) {
    if (is_decision(entry.name)) {
      trace.gradients.trace.put(entry);
      continue;
    }
    Tensor<double, 2> x = entry.values();
    for (double& value : x) value *= 39;
    trace.gradients.trace.put(entry.name, std::move(x));
  }
  const Localisation l = localised(trace);
  CHECK(wrong_of(l) == std::map<std::string, Ops>{{"d.lm_head", {"loss.lm"}}});
}

TEST_CASE("backward and forward traces are told apart, and must be of one run", "[localise]") {
  const Scratch scratch;
  const Config config = read_config(test::sample("v32") / "checkpoint");
  const auto write = [&](const std::string& name, Index first, bool backward) {
    TensorFile file;
    file.columns.push_back({"tokens", Dtype::i64, {1, 2}, {static_cast<double>(first), 2}});
    file.columns.push_back(
        {"model.norm",
         Dtype::f64,
         {1, 2, config.hidden_size},
         std::vector<double>(static_cast<std::size_t>(2 * config.hidden_size), 1)});
    if (backward) {
      file.columns.push_back(file.columns.back());
      file.columns.back().name = "d.decoder.final_layernorm";
      file.columns.push_back({"loss.lm", Dtype::f64, {1}, {5}});
    }
    file.write(scratch / name);
    return scratch / name;
  };
  const auto both = write("both", 1, true), forward = write("forward", 1, false),
             other = write("other", 3, false);
  const BackwardTrace trace = backward_trace(both, forward, config, "megatron");
  CHECK(trace.gradients.trace.entries().size() == 1);
  CHECK(trace.gradients.trace.contains("model.norm"));
  CHECK(trace.forward.path == forward);
  CHECK(trace.forward.trace.contains("model.norm"));
  CHECK_THROWS_WITH(backward_trace(both, other, config, ""), Contains("is of other tokens"));
  CHECK_THROWS_WITH(backward_trace(both, both, config, ""), Contains("expected a forward trace"));
  CHECK_THROWS_WITH(localise(test::sample("v32") / "checkpoint", forward, {}, other),
                    Contains("needs no --forward"));
}
