// tests/verify/report_helpers.hpp — verdicts made by hand, to be reported.
#pragma once

#include <limits>
#include <string>

#include "verify/verdict.hpp"

namespace dsa::test {

using namespace dsa::verify;

inline constexpr double inf = std::numeric_limits<double>::infinity();
inline constexpr double no_number = std::numeric_limits<double>::quiet_NaN();

inline LogitsResult logits_of(Index rows, Index undecided) {
  LogitsResult logits;
  for (Index i = 0; i < rows; ++i) {
    RowResult row;
    row.at = {0, i, -1};
    row.kl = 1e-28 * static_cast<double>(i);
    row.kl_limit = 1e-25;
    if (i < undecided) {
      row.undecided = true;
      row.decision = "model.layers.1.self_attn.indexer.topk";
      row.decided_at = i;
      row.margin = 1e-9;
      row.noise = 4e-8;
    }
    logits.rows.push_back(row);
  }
  logits.all.rows = rows;
  logits.all.kl_max = 3e-28;
  logits.all.kl_max_at = {0, 3, -1};
  logits.all.kl_max_token = 77;
  logits.all.top1 = 1;
  logits.decided = logits.all;
  logits.decided.rows = rows - undecided;
  logits.decided.kl_mean = 1e-28;
  logits.decided.max_abs = 2.5e-13;
  if (logits.decided.rows == 0) return logits;
  logits.kl.add_value(2e-26, 1e-25, {0, 3, -1});
  logits.kl.n = logits.decided.rows, logits.kl.from = "32 perturbed runs";
  logits.elements.add_value(0.5, 1, {0, 2, 9});
  logits.elements.n = logits.decided.rows * 10;
  logits.elements.from = "the same runs, by element";
  return logits;
}

inline TensorResult tensor_of(const std::string& name, double worst) {
  TensorResult t;
  t.name = name;
  t.n = 1234;
  t.over = worst <= 1 ? 0 : 7;
  t.worst = worst;
  t.at = {0, 3, 5};
  t.got = 1.5;
  t.want = 1.25;
  t.allowed = 0.25 / worst;
  t.from = "gamma(64) bound";
  return t;
}

inline Verdict verdict_of(Outcome outcome) {
  Verdict v;
  v.checkpoint = "samples/tiny";
  v.golden = "samples/tiny/golden.safetensors";
  v.family = "deepseek_v32";
  v.sequences = 1;
  v.positions = 4;
  v.layers = 2;
  v.topk = 2;
  v.longest_visible = 4;
  v.outcome = outcome;
  v.why = "because of this";
  v.judged.title = "golden (fp64) against the definition";
  v.judged.precision = "fp64";
  v.judged.outcome = outcome;
  v.judged.why = v.why;
  v.judged.logits = logits_of(4, 1);
  v.judged.tensors = {tensor_of("model.embed_tokens", 0.25), tensor_of("model.layers.0.mlp", 0.5)};
  TensorResult topk = tensor_of("model.layers.0.self_attn.indexer.topk", 0);
  topk.kind = TensorResult::Kind::selection;
  topk.n = 4;
  topk.agreeing = 3;
  topk.explained = 1;
  topk.agreement_by_position = {1, 1, 1, 0.5};
  v.judged.tensors.push_back(topk);
  v.receipt.command = "dsa-verify golden samples/tiny";
  v.receipt.version = "0.1.0";
  v.receipt.commit = "9ab12c0";
  v.receipt.draws.seed = 1;
  v.receipt.seconds = 1.5;
  return v;
}

inline Verdict failing() {
  Verdict v = verdict_of(Outcome::fail);
  v.judged.tensors.push_back(tensor_of("model.layers.1.mlp", 8));
  TensorResult broken = tensor_of("model.norm", inf);
  broken.wrong_kind = 3;
  broken.got = no_number;
  v.judged.tensors.push_back(broken);
  v.judged.first_departure = "model.layers.1.mlp";
  v.judged.logits->decided.kl_max = no_number;
  v.judged.logits->kl.got = no_number;
  v.judged.logits->kl.over = 1;
  v.judged.logits->rows[3].kl = no_number;
  return v;
}

inline Verdict inconclusive() {
  Verdict v = verdict_of(Outcome::inconclusive);
  v.judged.logits = logits_of(4, 4);
  v.judged.tensors.clear();
  return v;
}

inline Verdict with_candidate() {
  Verdict v = failing();
  v.candidate = "out/mine.safetensors";
  v.golden_judged = verdict_of(Outcome::pass).judged;
  return v;
}

}  // namespace dsa::test
