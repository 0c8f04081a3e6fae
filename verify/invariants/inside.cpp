#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "core/threads.hpp"
#include "core/trace_names.hpp"
#include "reference/ops/hadamard.hpp"
#include "reference/ops/rope.hpp"
#include "verify/invariants/parts.hpp"
#include "verify/measure/bounds.hpp"
#include "verify/measure/divergence.hpp"

namespace dsa::verify {
namespace {

constexpr double u = unit_roundoff_fp64;

/// The largest of many values / limits.
class Largest {
 public:
  explicit Largest(Invariant& invariant) : invariant_(invariant) {}
  void add(double value, double limit, const std::string& at) {
    const bool worse =
        invariant_.n == 0 || is_worse(value * invariant_.limit, invariant_.value * limit);
    ++invariant_.n;
    over_ |= !(value <= limit);
    if (worse) invariant_.value = value, invariant_.limit = limit, invariant_.at = at;
    invariant_.held = over_ ? Held::fail : Held::pass;
  }

 private:
  Invariant& invariant_;
  bool over_ = false;
};

/// A count of rows where something is not as it must be.
class Count {
 public:
  explicit Count(Invariant& invariant) : invariant_(invariant) {
    invariant_.from = "exact: a count of rows";
  }
  void add(bool right, const std::string& at) {
    ++invariant_.n;
    if (!right && invariant_.value++ == 0) invariant_.at = at;
    invariant_.held = invariant_.value == 0 ? Held::pass : Held::fail;
  }

 private:
  Invariant& invariant_;
};

Tensor<double, 2> logits_of(const Variant& ours, const Sequence& sequence,
                            reference::MlaForm form = reference::MlaForm::expanded) {
  reference::Cache<double> cache;
  return reference::forward<double>({ours.model, ours.ops, {}, form}, sequence, cache);
}

// --- other ways of computing ---

void absorbed(const Asked& asked, Noise& noise, Invariant& invariant) {
  RowComparison comparison(noise, false);
  comparison.add(asked.logits,
                 logits_of(*asked.implementation.ours, asked.main, reference::MlaForm::absorbed),
                 {asked.length()}, "absorbed");
  comparison.conclude(invariant);
}

void sparse_is_dense(const Asked& asked, Noise& noise, Invariant& invariant) {
  if (!asked.config.indexer) {
    invariant.note = "the model has no indexer";
    return;
  }
  const Index n = std::min(asked.length(), asked.topk());
  const Sequence s = plain_sequence({asked.main.tokens.begin(), asked.main.tokens.begin() + n});
  Variant dense = *asked.implementation.ours;
  dense.model.config.use_sparse_attention = false;
  RowComparison comparison(noise, false);
  comparison.add(logits_of(dense, s), logits_of(*asked.implementation.ours, s), {n}, "dense");
  invariant.note = fmt::format("the first {} tokens, index_topk = {}", n, asked.topk());
  comparison.conclude(invariant);
}

void shifted(const Asked& asked, Noise& noise, Invariant& invariant) {
  const Index by = asked.length();
  Sequence s = asked.main;
  for (Index& position : s.positions) position += by;
  RowComparison comparison(noise, false);
  comparison.add(asked.logits, logits_of(*asked.implementation.ours, s), {asked.length()},
                 "shifted");
  invariant.note = fmt::format("every position {} later", by);
  comparison.conclude(invariant);
}

void threads(const Asked& asked, Noise& noise, Invariant& invariant) {
  RowComparison comparison(noise, true);
  for (const int n : {1, 2, 3}) {
    const Threads scope(n, Sharing::always);
    comparison.add(asked.logits, logits_of(*asked.implementation.ours, asked.main),
                   {asked.length()}, fmt::format("{} threads", n));
  }
  invariant.note = "1, 2 and 3 threads";
  comparison.conclude(invariant);
}

// --- decisions ---

/// How many different keys a row may choose, and whether it chose that many, all of them visible.
struct Chosen {
  Index size = 0, expected = 0;
  bool repeated = false, unseen = false;
};

Chosen look_at(const Decision& decision, Index t, Index at_most,
               const std::function<bool(Index)>& visible) {
  Chosen row;
  Index seen = 0;
  for (Index s = 0; s < decision.scores.shape()[1]; ++s) seen += visible(s);
  row.expected = std::min(at_most, seen);
  std::set<Index> different;
  for (const Index s : decision.chosen.view()[t]) {
    if (s < 0) continue;
    ++row.size;
    row.repeated |= !different.insert(s).second;
    row.unseen |= s >= decision.scores.shape()[1] || !visible(s);
  }
  return row;
}

struct OfDecisions {
  Invariant size{"|chosen| = min(k, visible)", "a query selects as many keys as it may and can"};
  Invariant different{"no key twice", "the keys that a query selects are different ones"};
  Invariant visible{"chosen keys are visible",
                    "a query selects keys that are not later, not padding, of its own document"};
  Invariant experts{"experts",
                    "a token goes to num_experts_per_tok different experts (and "
                    "topk_group different groups)"};
};

void look_at_run(const Config& config, const Run& run, const Sequence& sequence,
                 const std::string& how, OfDecisions& all) {
  Count size(all.size), different(all.different), visible(all.visible), experts(all.experts);
  for (const Decision& decision : run.decisions)
    for (Index t = 0; t < sequence.size(); ++t) {
      const std::string at = fmt::format("{}, row {}, {}", decision.name, t, how);
      const Index mine = sequence.documents[static_cast<std::size_t>(t)];
      if (is_selection(decision.name)) {
        const Chosen row = look_at(decision, t, config.indexer->topk, [&](Index s) {
          return s <= t && mine >= 0 && sequence.documents[static_cast<std::size_t>(s)] == mine;
        });
        size.add(row.size == row.expected, at);
        different.add(!row.repeated, at);
        visible.add(!row.unseen, at);
      } else {
        const bool of_groups = decision.name.ends_with("groups");
        const Chosen row =
            look_at(decision, t, of_groups ? config.topk_group : config.num_experts_per_tok,
                    [](Index) { return true; });
        experts.add(row.size == row.expected && !row.repeated && !row.unseen, at);
      }
    }
}

std::vector<Invariant> decisions(const Asked& asked) {
  const Variant& ours = *asked.implementation.ours;
  OfDecisions all;
  const Index T = asked.length();
  std::vector<Token> tokens = asked.main.tokens;
  std::vector<Index> mask(tokens.size(), 1);
  for (Index t = 0; t < std::min<Index>(T - 1, 5); ++t) mask[static_cast<std::size_t>(t)] = 0;
  const auto half = tokens.begin() + T / 2;
  const std::pair<const char*, Sequence> sequences[] = {
      {"in one go", asked.main},
      {"padded on the left", masked_sequence(tokens, mask)},
      {"packed", packed_sequence({{tokens.begin(), half}, {half, tokens.end()}})}};
  for (const auto& [how, sequence] : sequences) {
    RunOptions options;
    options.span = {0, ours.model.config.num_hidden_layers};
    look_at_run(asked.config, run_reference(ours.model, sequence, ours.ops, options), sequence, how,
                all);
  }
  for (Invariant* i : {&all.size, &all.different, &all.visible})
    i->note =
        asked.config.indexer ? "in one go, padded on the left, packed" : "the model has no indexer";
  if (all.experts.n == 0) all.experts.note = "the model has no router";
  return {all.size, all.different, all.visible, all.experts};
}

// --- norms ---

double norm(View<const double, 1> x, Index begin, Index end) {
  double sum = 0;
  for (Index i = begin; i < end; ++i) sum += x(i) * x(i);
  return std::sqrt(sum);
}

/// Channels [begin, begin + P) of every head of `before`, and where they are in `after`.
struct Rotated {
  std::string before, after;
  Index heads = 1, width = 0, begin = 0, after_width = 0, after_begin = 0;
};

std::vector<Rotated> rotations(const Config& c, Index layer) {
  const auto at = [&](const char* name) { return in_layer(layer, name); };
  const Index N = c.num_attention_heads, B = c.qk_nope_head_dim, P = c.qk_rope_head_dim,
              R = c.kv_lora_rank;
  std::vector<Rotated> all = {
      {at(c.q_lora_rank ? names::q_b_proj : names::q_proj), at(names::q_rope), N, B + P, B, P, 0},
      {at(names::kv_a_proj_with_mqa), at(names::k_rope), 1, R + P, R, P, 0}};
  if (!c.indexer || !c.indexer->computes[static_cast<std::size_t>(layer)]) return all;
  const Index D = c.indexer->head_dim, first = c.indexer->rope_first ? 0 : D - P;
  all.push_back(
      {at(names::indexer_wq_b), at(names::indexer_q), c.indexer->n_heads, D, first, D, first});
  all.push_back({at(names::indexer_k_norm), at(names::indexer_k), 1, D, first, D, first});
  return all;
}

void rope_preserves(const Asked& asked, const Run& run, Invariant& invariant) {
  const Config& c = asked.config;
  const Index P = c.qk_rope_head_dim;
  const double factor = reference::rope_attention_factor(c.rope);
  // P squares and their sum on either side; cos and sin (two roundings each, and one with the
  // factor), two products and a sum, each against the length of its pair.
  const double bound = gamma(P + 2, u) + gamma(10, u);
  Largest largest(invariant);
  for (Index l = 0; l < c.num_hidden_layers; ++l)
    for (const Rotated& r : rotations(c, l)) {
      const Tensor<double, 2> before = run.trace.at(r.before).values(),
                              after = run.trace.at(r.after).values();
      for (Index t = 0; t < asked.length(); ++t)
        for (Index h = 0; h < r.heads; ++h) {
          const Index from = h * r.width + r.begin, to = h * r.after_width + r.after_begin;
          const double want = factor * norm(before.view()[t], from, from + P),
                       got = norm(after.view()[t], to, to + P);
          largest.add(std::abs(got - want), bound * want,
                      fmt::format("{}, row {}, head {}", r.after, t, h));
        }
    }
  invariant.from = fmt::format("(gamma({}) + gamma(10)) times the norm, at 2^-53", P + 2);
}

bool is_power_of_two(Index n) { return n > 0 && (n & (n - 1)) == 0; }

void hadamard_preserves(const Asked& asked, const Run& run, Invariant& invariant) {
  if (!asked.config.indexer || !is_power_of_two(asked.config.indexer->head_dim)) {
    invariant.note =
        asked.config.indexer ? "index_head_dim is not a power of two" : "the model has no indexer";
    return;
  }
  const Index D = asked.config.indexer->head_dim;
  const Index stages = static_cast<Index>(std::log2(static_cast<double>(D)));
  // A sum of two a stage, the scaling, and D squares and their sum on either side.
  const double bound = std::sqrt(static_cast<double>(D)) * gamma(stages + 2, u) + gamma(D + 2, u);
  Largest largest(invariant);
  for (const Trace::Entry& entry : run.trace.entries()) {
    if (within_layer(entry.name) != names::indexer_k) continue;
    const Tensor<double, 2> keys = entry.values();
    Tensor<double, 2> x = keys;
    reference::hadamard<double>(x);
    for (Index t = 0; t < asked.length(); ++t) {
      const double want = norm(keys.view()[t], 0, D);
      largest.add(std::abs(norm(x.view()[t], 0, D) - want), bound * want,
                  fmt::format("{}, row {}", entry.name, t));
    }
  }
  invariant.from = fmt::format("(sqrt({}) gamma({}) + gamma({})) times the norm, at 2^-53", D,
                               stages + 2, D + 2);
}

void router_sums(const Asked& asked, const Run& run, Invariant& invariant) {
  if (!asked.config.router.norm_topk_prob) {
    invariant.note = "norm_topk_prob is off, or the model has no router";
    return;
  }
  const Index k = asked.config.num_experts_per_tok;
  const double scale = asked.config.routed_scaling_factor;
  Largest largest(invariant);
  for (const Trace::Entry& entry : run.trace.entries()) {
    if (within_layer(entry.name) != names::gate_weights) continue;
    const Tensor<double, 2> weights = entry.values();
    for (Index t = 0; t < asked.length(); ++t) {
      double sum = 0;
      for (const double w : weights.view()[t]) sum += w;
      largest.add(std::abs(sum - scale), gamma(2 * k + 2, u) * scale,
                  fmt::format("{}, row {}", entry.name, t));
    }
  }
  // k - 1 sums twice, the 1e-20, a division and two products.
  invariant.from = fmt::format("gamma({}) routed_scaling_factor, at 2^-53", 2 * k + 2);
}

}  // namespace

std::vector<Invariant> inside_invariants(const Asked& asked, Noise& noise) {
  Invariant forms{"absorbed = expanded", "the two forms of MLA are algebraically the same"},
      dense{"sparse = dense", "with no more keys than index_topk, every visible key is selected"},
      shift{"shifted = unshifted", "RoPE is relative: only differences of positions matter"},
      counts{"thread counts agree", "the number of threads changes no bit"},
      rope{"RoPE preserves norms", "a rotation leaves a head's length (times YaRN's factor)"},
      hadamard{"Hadamard preserves norms", "H / sqrt(D) is orthogonal (on the index keys)"},
      router{"router weights sum to the scale",
             "with norm_topk_prob, they sum to routed_scaling_factor"};
  OfDecisions of;
  if (!asked.is_ours()) {
    std::vector<Invariant> all = {forms,      shift,      dense, counts,   of.size, of.different,
                                  of.visible, of.experts, rope,  hadamard, router};
    for (Invariant& i : all) {
      i.held = Held::not_possible;
      i.note = "logits are all that is seen of it";
    }
    return all;
  }
  absorbed(asked, noise, forms);
  shifted(asked, noise, shift);
  sparse_is_dense(asked, noise, dense);
  threads(asked, noise, counts);
  const Variant& ours = *asked.implementation.ours;
  RunOptions options;
  options.span = {0, ours.model.config.num_hidden_layers};
  options.keep = [](const std::string& name) {
    return within_layer(name).starts_with(names::self_attn) ||
           within_layer(name) == names::gate_weights;
  };
  const Run run = run_reference(ours.model, asked.main, ours.ops, options);
  rope_preserves(asked, run, rope);
  hadamard_preserves(asked, run, hadamard);
  router_sums(asked, run, router);
  std::vector<Invariant> all = {forms, shift, dense, counts};
  for (const Invariant& i : decisions(asked)) all.push_back(i);
  for (const Invariant& i : {rope, hadamard, router}) all.push_back(i);
  return all;
}

}  // namespace dsa::verify
