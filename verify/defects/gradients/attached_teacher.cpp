// A teacher that is not a constant: the indexer's loss flows into main attention.
#include <algorithm>
#include <cmath>
#include <map>
#include <memory>

#include "reference/ops/mla_keys.hpp"
#include "verify/defects/gradients/parts.hpp"

namespace dsa::verify {
namespace {

/// What a layer's loss gives the teacher: d_u, once its forward pass is known.
using TeacherGradients = std::map<std::string, Tensor<double, 2>>;

Tensor<double, 2> teacher_gradient(const reference::KlInputs<double>& in,
                                   std::span<const double> weights) {
  Tensor<double, 2> d_u(in.u.shape);
  for (Index t = 0; t < in.u.shape[0]; ++t) {
    const std::vector<Index> keys = reference::keys_of(in.keys[t]);
    std::vector<double> q, d_p;
    double mass = 0, along = 0;
    for (const Index s : keys) {
      q.push_back(in.scale * in.scores(t, s));
      mass += in.u(t, s);
    }
    reference::softmax(q.data(), static_cast<Index>(q.size()));
    for (std::size_t i = 0; i < keys.size(); ++i) {
      const double p = in.u(t, keys[i]) / mass;
      d_p.push_back(p > 0 ? std::log(p) - std::log(q[i]) + 1 : 0);
      along += p * d_p.back();
    }
    for (std::size_t i = 0; i < keys.size(); ++i)
      d_u(t, keys[i]) = weights[static_cast<std::size_t>(t)] * (d_p[i] - along) / mass;
  }
  return d_u;
}

/// The loss flows back through main attention's probabilities, too.
void attach_teacher(GradientVariant& v, KlSemantics::Detach detach) {
  KlSemantics semantics = v.objective.semantics;
  semantics.detach = detach;
  read_as(v, semantics);
  v.objective.lm.assign(v.objective.kl.size(), 0.0);  // the pass goes through the whole model
  const auto& computes = v.model.config.indexer->computes;
  const auto layers = static_cast<double>(std::count(computes.begin(), computes.end(), true));
  const double share = semantics.layers == KlSemantics::Reduction::mean ? 1 / layers : 1;
  const auto given = std::make_shared<TeacherGradients>();
  v.ops.index_kl = [=, inner = v.ops.index_kl](Name name, const reference::KlInputs<double>& in,
                                               std::span<const double> weights,
                                               const KlSemantics& s) {
    Tensor<double, 2> d_u = teacher_gradient(in, weights);
    for (double& x : d_u) x *= share;
    (*given)[name.substr(0, name.rfind('.'))] = std::move(d_u);
    return inner(name, in, weights, s);
  };
  around(v.backward.mla_expanded, anywhere(),
         [=](const auto& inner, Name name, const reference::MlaExpandedGradient<double>& d,
             const reference::MlaExpandedInputs<double>& in, View<const double, 3> d_out) {
           inner(name, d, in, d_out);
           const auto found = given->find(name.substr(0, name.rfind('.')));
           if (found == given->end()) return;  // a layer that shares its selection
           const Tensor<double, 2>& d_u = found->second;
           const Tensor<double, 3> none(d_out.shape);
           AttentionRules rules;
           rules.d_z = [&](const AttentionRow& row) {
             std::vector<double> d_z;
             double delta = 0;
             for (std::size_t i = 0; i < row.keys.size(); ++i)
               delta += row.p[i] * d_u(row.t, row.keys[i]);
             for (std::size_t i = 0; i < row.keys.size(); ++i)
               d_z.push_back(row.p[i] * (d_u(row.t, row.keys[i]) - delta));
             return d_z;
           };
           attention_backward(d, in, none.view(), rules);
         });
}

}  // namespace

GradientDefects attached_teacher_defects() {
  using Detach = KlSemantics::Detach;
  return {{209,
           "teacher-not-detached",
           "Plausible: the teacher is not detached: the indexer's loss trains main attention.",
           "",
           "self_attn.heads",
           of_kl,
           {{"the teacher alone", [](GradientVariant& v) { attach_teacher(v, Detach::inputs); }},
            {"and the indexer's input",
             [](GradientVariant& v) { attach_teacher(v, Detach::nothing); }}}}};
}

}  // namespace dsa::verify
