// tests/verify/trace_attack_test.cpp — spoiled traces must fail at the tensor that was spoiled;
// other forms of a right trace must not.
#include <cmath>
#include <functional>
#include <set>

#include "tests/catch.hpp"
#include "tests/scratch.hpp"
#include "tests/verify/judge_helpers.hpp"
#include "verify/runs/reference_run.hpp"

using namespace dsa;
using namespace dsa::test;
using namespace dsa::verify;

namespace {

constexpr double hidden = -1e300;  // scores at most this are masked
constexpr Index t = 70;            // the victim's position: sees 71 keys, keeps 22
const std::string layer = "model.layers.1.";
const std::string indexer = layer + "self_attn.indexer", gate = layer + "mlp.gate.";

std::set<Index> ids_of(Column& ids, Index row) {
  return {ids.row(row), ids.row(row) + ids.shape.back()};
}

/// Where a row keeps its best-scored choice.
double& best(Column& ids, Column& scores) {
  double* row = ids.row(t);
  return *std::max_element(row, row + ids.shape.back(), [&](double a, double b) {
    return scores(t, static_cast<Index>(a)) < scores(t, static_cast<Index>(b));
  });
}

/// The visible subscript with the lowest score that was not chosen.
Index worst(Column& ids, Column& scores) {
  const std::set<Index> chosen = ids_of(ids, t);
  Index found = -1;
  for (Index s = 0; s < scores.shape.back(); ++s)
    if (!chosen.contains(s) && scores(t, s) > hidden &&
        (found < 0 || scores(t, s) < scores(t, found)))
      found = s;
  return found;
}

void to_half(Column& x) {
  for (double& value : x.values) value = round_to(Dtype::f16, value);
}

struct Attack {
  const char* name;
  std::string departs;  // the first departure
  std::function<void(TensorFile&)> spoil;
};

std::vector<Attack> attacks_on_decisions() {
  const std::string experts = gate + "experts", scores = indexer + ".scores";
  return {
      {"a key far from the boundary", indexer,
       [=](TensorFile& f) {
         best(f.at(indexer), f.at(scores)) =
             static_cast<double>(worst(f.at(indexer), f.at(scores)));
       }},
      {"a key twice", indexer, [](TensorFile& f) { f.at(indexer)(t, 0) = f.at(indexer)(t, 1); }},
      {"one key short", indexer, [](TensorFile& f) { f.at(indexer)(t, 5) = -1; }},
      {"no key at all", indexer,
       [](TensorFile& f) { std::fill_n(f.at(indexer).row(t), 22, -1.0); }},
      {"a key of the future", indexer, [](TensorFile& f) { f.at(indexer)(t, 5) = t + 1; }},
      {"a key beyond the end", indexer, [](TensorFile& f) { f.at(indexer)(t, 5) = 90; }},
      {"a visible key short in an early row", indexer,
       [](TensorFile& f) {
         double* row = f.at(indexer).row(10);
         std::replace(row, row + 22, 4.0, 50.0);
       }},
      {"the keys of the row before", indexer,
       [](TensorFile& f) {
         Column& ids = f.at(indexer);
         std::copy_n(ids.row(t - 1), 22, ids.row(t));
         ids(t, 0) = 0;  // different sets, at any rate
       }},
      {"an expert far from the boundary", experts,
       [=](TensorFile& f) {
         best(f.at(experts), f.at(gate + "logits")) =
             static_cast<double>(worst(f.at(experts), f.at(gate + "logits")));
       }},
      {"an expert twice", experts,
       [=](TensorFile& f) { f.at(experts)(t, 0) = f.at(experts)(t, 1); }},
      {"an expert that does not exist", experts, [=](TensorFile& f) { f.at(experts)(t, 0) = 21; }},
  };
}

std::vector<Attack> attacks_on_values() {
  const std::string weights = gate + "weights", scores = indexer + ".scores";
  std::vector<Attack> list = {
      {"weights without their experts", weights,
       [=](TensorFile& f) { std::reverse(f.at(weights).row(t), f.at(weights).row(t) + 5); }},
      {"a score leaks", scores, [=](TensorFile& f) { f.at(scores)(t, t + 3) = 0; }},
      {"a score is masked", scores,
       [=](TensorFile& f) { f.at(scores)(t, 2) = f.at(scores)(t, t + 3); }},
      {"a NaN among the masked", scores,
       [=](TensorFile& f) { f.at(scores)(t, t + 3) = std::nan(""); }},
      {"a block's output is inf", layer.substr(0, layer.size() - 1),
       [](TensorFile& f) {
         f.at("model.layers.1")(t, 7) = std::numeric_limits<double>::infinity();
       }},
      {"logits delayed", "lm_head",
       [](TensorFile& f) {
         Column& x = f.at("lm_head");
         std::copy_backward(x.row(0), x.row(89), x.row(90));
       }},
  };
  for (const char* part :
       {"input_layernorm", "self_attn.q_a_proj", "self_attn.kv_b_proj", "self_attn.indexer.wk",
        "self_attn.indexer.weights_proj", "self_attn", "mlp.gate.logits", "mlp"})
    list.push_back({"half precision", layer + part,
                    [name = layer + part](TensorFile& f) { to_half(f.at(name)); }});
  list.push_back({"stored in half precision", layer + "mlp.shared_experts",
                  [](TensorFile& f) { f.at(layer + "mlp.shared_experts").dtype = Dtype::f16; }});
  return list;
}

TensorFile trace_of(const std::string& name) {
  return TensorFile::read(sample(name) / "trace.fp64.safetensors");
}

Verdict judged(const std::string& name, const std::filesystem::path& golden,
               const std::optional<std::filesystem::path>& candidate) {
  return judge(sample(name) / "checkpoint", golden, candidate, quick(reference::Precision::fp64));
}

void attack_traces(const std::vector<Attack>& attacks) {
  const Scratch scratch;
  for (const Attack& attack : attacks) {
    TensorFile spoiled = trace_of("v32");
    attack.spoil(spoiled);
    spoiled.write(scratch / "bad");
    CAPTURE(attack.name, attack.departs);
    for (const bool alone : {true, false}) {
      const Verdict verdict =
          alone ? judged("v32", scratch / "bad", std::nullopt)
                : judged("v32", sample("v32") / "trace.fp64.safetensors", scratch / "bad");
      CHECK(verdict.outcome == Outcome::fail);
      CHECK(verdict.judged.first_departure.value_or("none") == attack.departs);
    }
  }
}

/// A trace as sample `like` has it, of a run that breaks every exact tie the other way.
TensorFile trace_with_other_ties(const std::string& name, const TensorFile& like) {
  const Model model = resident(open_checkpoint(sample(name) / "checkpoint"), Index{1} << 30);
  const Recording golden = read_recording(sample(name) / "trace.fp64.safetensors", "", 0);
  RunOptions options;
  options.span.end = model.config.num_hidden_layers;
  options.keep = [](const std::string&) { return true; };
  options.decide = [](const std::string&, View<const double, 2> scores, View<Index, 2> chosen) {
    for (Index q = 0; q < scores.shape[0]; ++q) {
      std::vector<Index> order;
      for (Index s = 0; s < scores.shape[1]; ++s)
        if (scores(q, s) > hidden) order.push_back(s);
      std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) {
        return scores(q, a) != scores(q, b) ? scores(q, a) > scores(q, b) : a > b;
      });
      std::fill(chosen[q].begin(), chosen[q].end(), -1);
      const auto k = std::min<std::size_t>(order.size(), chosen[q].shape[0]);
      std::copy_n(order.begin(), k, chosen[q].begin());
    }
  };
  const Run run =
      run_reference(model, golden.sequences[0], reference::definition<double>(), options);
  TensorFile file = like;
  for (Column& column : file.columns) {
    if (const Trace::Entry* entry = run.trace.find(column.name)) {
      const Tensor<double, 2> values = entry->values();
      column.values.assign(values.begin(), values.end());
    } else if (const Decision* decision = run.find(column.name)) {
      column.values.assign(decision->chosen.begin(), decision->chosen.end());
    }
  }
  file.at("lm_head").values.assign(run.logits.begin(), run.logits.end());
  return file;
}

}  // namespace

TEST_CASE("spoiled decisions fail where they were spoiled", "[judge]") {
  attack_traces(attacks_on_decisions());
}

TEST_CASE("spoiled tensors fail where they were spoiled", "[judge]") {
  attack_traces(attacks_on_values());
}

TEST_CASE("the order in which ids are listed is nobody's business", "[judge]") {
  const Scratch scratch;
  TensorFile trace = trace_of("v32");
  for (Column& column : trace.columns) {
    const bool routing = column.name.ends_with("gate.experts") ||
                         column.name.ends_with("gate.weights");  // both: they go together
    if (!routing && !column.name.ends_with("self_attn.indexer")) continue;
    for (Index q = 0; q < column.rows(); ++q)
      std::reverse(column.row(q), column.row(q) + column.shape.back());
  }
  trace.write(scratch / "reversed");
  const Verdict alone = judged("v32", scratch / "reversed", std::nullopt);
  CHECK(alone.outcome == Outcome::pass);
  CHECK(judged("v32", sample("v32") / "trace.fp64.safetensors", scratch / "reversed").outcome ==
        Outcome::pass);
  for (const TensorResult& tensor : alone.judged.tensors) {
    CAPTURE(tensor.name);
    CHECK(tensor.ok());
    if (tensor.kind != TensorResult::Kind::tensor) CHECK(tensor.agreeing == tensor.n);
  }
}

TEST_CASE("exact ties may be broken either way", "[judge]") {
  const Scratch scratch;
  const auto golden = sample("ties") / "trace.fp64.safetensors";
  trace_with_other_ties("ties", trace_of("ties")).write(scratch / "other");
  const Verdict alone = judged("ties", scratch / "other", std::nullopt);
  CHECK(alone.outcome == Outcome::pass);
  Index explained = 0;
  for (const TensorResult& tensor : alone.judged.tensors) explained += tensor.explained;
  CHECK(explained > 0);  // there were ties
  // Golden and candidate are both right, and differ.
  const Verdict both = judged("ties", golden, scratch / "other");
  CAPTURE(both.why);
  CHECK(both.outcome != Outcome::fail);
  const Verdict logits = judged("ties", sample("ties") / "logits.safetensors", golden);
  CAPTURE(logits.why);
  CHECK(logits.outcome != Outcome::fail);
}
