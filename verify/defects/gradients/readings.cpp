// Whose reading of the indexer's loss: other trainers' conventions, and switches that nobody means.
#include <algorithm>
#include <cmath>
#include <limits>

#include "verify/defects/gradients/parts.hpp"

namespace dsa::verify {
namespace {

using KeySet = KlSemantics::Keys;
using Detach = KlSemantics::Detach;
using Switch = std::function<void(KlSemantics&)>;

/// The reading of the run, with something turned.
GradientChange turned(std::string name, Switch turn) {
  return {std::move(name), [turn = std::move(turn)](GradientVariant& v) {
            KlSemantics semantics = v.objective.semantics;
            turn(semantics);
            read_as(v, semantics);
          }};
}

/// The forward pass chooses as the checkpoint says, whatever the stage.
void choose_sparsely(GradientVariant& v) { v.model.config.indexer->topk = v.topk; }

std::vector<GradientChange> readings_of(const KlSemantics& semantics,
                                        const GradientVariant& right) {
  std::vector<GradientChange> all;
  const KlSemantics warmup = in_warmup(semantics);
  const bool is_warmup = right.objective.semantics == in_warmup(right.objective.semantics);
  if (semantics != right.objective.semantics)
    all.push_back(
        {is_warmup ? "sparse stage" : "", [=](GradientVariant& v) { read_as(v, semantics); }});
  if (warmup != right.objective.semantics && warmup != semantics && !is_dense_stage(right))
    all.push_back({"all visible keys under a sparse forward pass",
                   [=](GradientVariant& v) { read_as(v, warmup); }});
  if (is_dense_stage(right))
    all.push_back({"all visible keys under a sparse forward pass", [=](GradientVariant& v) {
                     choose_sparsely(v);
                     read_as(v, warmup);
                   }});
  return all;
}

GradientDefects conventions() {
  GradientDefects all;
  int number = 410;
  for (const auto& [name, whose] :
       {std::pair{"paper", "the paper: no guards, means over valid rows and layers"},
        {"maxtext", "MaxText: 1e-8 in the logarithms and the sum, padding counted"},
        {"megatron", "Megatron-LM: clamps of 1e-10, layers summed"},
        {"hf-fork",
         "the HuggingFace fork: student over all visible keys, nothing detached, padding counted"},
        {"prime-rl",
         "prime-rl: unscaled student over all visible keys, layers summed, nothing detached"}}) {
    GradientDefect reading{number++,
                           std::string("reading-of-") + name,
                           std::string("The indexer's loss is read as in ") + whose + ".",
                           "",
                           "loss.kl",
                           of_kl,
                           {},
                           true,
                           true};
    reading.more = [named = std::string(name)](const GradientVariant& right) {
      return readings_of(semantics_named(named), right);
    };
    all.push_back(std::move(reading));
  }
  all.push_back({44,
                 "reading-dense-teacher",
                 "The teacher's softmax runs over all visible keys and is then restricted to the "
                 "chosen ones: the paper's text allows it.",
                 issue("NVIDIA/Megatron-LM", 5776),
                 "loss.kl",
                 of_kl,
                 {turned("", [](KlSemantics& s) { s.teacher_softmax = KeySet::visible; })},
                 true,
                 true});
  return all;
}

/// The latent alone stays attached: the linear modules that read hidden states give none back.
void attach_latent_only(GradientVariant& v) {
  KlSemantics semantics = v.objective.semantics;
  semantics.detach = Detach::nothing;
  read_as(v, semantics);
  const auto alone = [](const auto& inner, Name name, Out, reference::LinearGradient<double> d,
                        In x, const Linear& w, In d_y) { inner(name, Out{}, d, x, w, d_y); };
  around(v.backward.linear, ends("indexer.wk"), alone);
  around(v.backward.index_head_weights, anywhere(), alone);
}

GradientDefects detachments() {
  return {{201,
           "indexer-input-not-detached",
           "Plausible: the indexer's input is not detached: its loss trains the main model.",
           "",
           "self_attn.indexer.wq_b",
           of_kl,
           {turned("hidden states and query latent",
                   [](KlSemantics& s) { s.detach = Detach::nothing; }),
            turned("hidden states", [](KlSemantics& s) { s.detach = Detach::query_latent; }),
            {"query latent", attach_latent_only}}}};
}

GradientDefects key_sets() {
  const Applies warmup = [](const GradientVariant& v) { return of_kl(v) && is_dense_stage(v); };
  const Applies sparse = [](const GradientVariant& v) { return of_kl(v) && !is_dense_stage(v); };
  return {{207,
           "student-over-all-keys",
           "Plausible: the indexer's softmax runs over all visible keys, though the teacher knows "
           "the chosen ones "
           "only.",
           "",
           "loss.kl",
           sparse,
           {turned("", [](KlSemantics& s) { s.student_keys = KeySet::visible; }),
            turned("with a dense teacher",
                   [](KlSemantics& s) { s.student_keys = s.teacher_softmax = KeySet::visible; })},
           true},
          {58,
           "warm-up-forward-sparse",
           "The forward pass of the dense warm-up attends to the chosen keys only.",
           repository("AI-Hypercomputer/maxtext"),
           "loss.kl",
           warmup,
           {{"",
             [](GradientVariant& v) {
               choose_sparsely(v);
               read_as(v, in_warmup(v.objective.semantics));
             }}},
           true},
          {224,
           "warm-up-loss-over-chosen-keys",
           "Plausible: the warm-up's loss is over the chosen keys, under a dense forward pass.",
           "",
           "loss.kl",
           warmup,
           {{"teacher over the chosen keys",
             [](GradientVariant& v) {
               choose_sparsely(v);
               v.model.config.use_sparse_attention = false;
             }},
            {"teacher over all keys, then restricted",
             [](GradientVariant& v) {
               choose_sparsely(v);
               v.model.config.use_sparse_attention = false;
               KlSemantics semantics = v.objective.semantics;
               semantics.teacher_softmax = KeySet::visible;
               read_as(v, semantics);
             }}},
           true},
          {420,
           "sparse-stage-loss-over-all-keys",
           "Plausible: the loss of the sparse stage is over all visible keys, as in the warm-up.",
           "",
           "loss.kl",
           sparse,
           {turned("", [](KlSemantics& s) { s = in_warmup(s); })},
           true}};
}

GradientChange guarded(double eps, const char* where) {
  return turned(constant("eps", eps) + " " + where, [eps, in = std::string(where)](KlSemantics& s) {
    if (in.find("p") != std::string::npos) s.log_p.added = eps;
    if (in.find("q") != std::string::npos) s.log_q.added = eps;
    if (in.find("sum") != std::string::npos) s.l1.added = eps;
  });
}

/// Value by the guarded reading, gradient by the one without guards; or the other way.
GradientChange unfollowed(double eps, bool in_forward) {
  const auto guard = [eps](KlSemantics semantics) {
    semantics.log_p.added = semantics.log_q.added = eps;
    return semantics;
  };
  if (in_forward)
    return {constant("eps", eps) + " in the forward pass only", [=](GradientVariant& v) {
              v.ops.index_kl = [=, inner = v.ops.index_kl](
                                   Name name, const reference::KlInputs<double>& in,
                                   std::span<const double> weights, const KlSemantics& s) {
                return inner(name, in, weights, guard(s));
              };
            }};
  return {constant("eps", eps) + " in the backward pass only", [=](GradientVariant& v) {
            around(v.backward.index_kl, anywhere(),
                   [=](const auto& inner, Name name, Out d, const reference::KlInputs<double>& in,
                       std::span<const double> weights,
                       const KlSemantics& s) { inner(name, d, in, weights, guard(s)); });
          }};
}

GradientDefects guards() {
  GradientDefect eps{
      226, "kl-eps",  "Plausible: a large eps guards the logarithms of the indexer's loss.",
      "",  "loss.kl", of_kl,
      {},  true};
  for (const double value : {1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8, 1e-10, 1e-12})
    for (const char* where : {"p and q", "p", "q", "p, q and the sum"})
      eps.variants.push_back(guarded(value, where));
  GradientDefect backward{49,
                          "kl-eps-not-followed",
                          "The backward pass of the indexer's loss does not follow its eps.",
                          issue("NVIDIA/cudnn-frontend", 297),
                          "self_attn.indexer.scores",
                          of_kl,
                          {},
                          true};
  for (const double value : {1e-3, 1e-4, 1e-5, 1e-6})
    for (const bool forward : {true, false})
      backward.variants.push_back(unfollowed(value, forward));
  return {eps, backward};
}

/// Padding rows are queries of their sequence: they see its tokens, and count. `keys_too`: padding
/// is seen as well.
void count_padding(GradientVariant& v, bool keys_too) {
  std::vector<bool> padded;
  for (const Index document : v.sequence.documents) padded.push_back(document < 0);
  for (Sequence& one : v.sequences) {  // positions go on behind the last token; 0 before the first
    const auto first = std::find_if(one.documents.begin(), one.documents.end(),
                                    [](Index document) { return document >= 0; });
    const Index before = first - one.documents.begin();
    one.documents.assign(one.documents.size(), 0);
    for (std::size_t t = 0; t < one.positions.size(); ++t)
      one.positions[t] = std::max<Index>(0, static_cast<Index>(t) - before);
  }
  read_as(v, v.objective.semantics);
  if (keys_too) return;
  around(v.ops.indexer_scores, anywhere(),
         [padded](const auto& inner, Name name, Out scores, auto&&... rest) {
           inner(name, scores, rest...);
           for (Index t = 0; t < scores.shape[0]; ++t)
             for (Index s = 0; s < scores.shape[1]; ++s)
               if (padded[static_cast<std::size_t>(s)])
                 scores(t, s) = -std::numeric_limits<double>::infinity();
         });
}

GradientDefects padding() {
  return {{46,
           "kl-padding-counted",
           "Padding rows count in the indexer's loss.",
           issue("PaddlePaddle/PaddleFleet", 1291),
           "loss.kl",
           both(of_kl, has_padding),
           {{"as queries of their sequence", [](GradientVariant& v) { count_padding(v, false); }},
            {"as tokens of their sequence", [](GradientVariant& v) { count_padding(v, true); }},
            turned("as a segment of their own",
                   [](KlSemantics& s) { s.padding_counted = !s.padding_counted; })},
           true}};
}

}  // namespace

GradientDefects reading_defects() {
  GradientDefects all;
  for (const GradientDefects& part :
       {conventions(), detachments(), key_sets(), guards(), padding()})
    all.insert(all.end(), part.begin(), part.end());
  return all;
}

}  // namespace dsa::verify
