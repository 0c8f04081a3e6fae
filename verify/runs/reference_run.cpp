#include "verify/runs/reference_run.hpp"

namespace dsa::verify {

const Decision* Run::find(const std::string& name) const {
  for (const Decision& decision : decisions)
    if (decision.name == name) return &decision;
  return nullptr;
}

Run run_reference(const Model& model, const Sequence& sequence, const reference::Ops<double>& ops,
                  const RunOptions& options) {
  Run run;
  reference::Pass<double> pass{model, ops};
  pass.tap.tensor = [&](const std::string& name, View<double, 2> x) {
    if (options.keep && options.keep(name)) {
      run.trace.put(name, x);
      run.order.push_back(name);
    }
    if (options.graft) options.graft(name, x);
  };
  pass.tap.decision = [&](const std::string& name, View<const double, 2> scores,
                          View<Index, 2> chosen) {
    if (options.decide) options.decide(name, scores, chosen);
    if (!options.record_decisions) return;
    Decision decision{name, Tensor<double, 2>(scores.shape), Tensor<Index, 2>(chosen.shape)};
    std::copy(scores.begin(), scores.end(), decision.scores.begin());
    std::copy(chosen.begin(), chosen.end(), decision.chosen.begin());
    run.decisions.push_back(std::move(decision));
    run.order.push_back(name);
  };
  reference::Cache<double> cache;
  Tensor<double, 2> x = options.span.input ? *options.span.input : reference::embed(pass, sequence);
  reference::run_layers(pass, x, sequence, cache, options.span.begin, options.span.end);
  if (options.head && options.span.end == model.config.num_hidden_layers)
    run.logits = reference::logits(pass, x);
  return run;
}

}  // namespace dsa::verify
