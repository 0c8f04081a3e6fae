// The JSON form, as docs/report.md describes it.
#include <algorithm>

#include "verify/report/report.hpp"
#include "verify/report/text.hpp"
#include "verify/report/values.hpp"

namespace dsa::verify {
namespace {

Json index_json(Index i) { return i < 0 ? Json() : Json(i); }

Json place_json(const Place& at) {
  if (at.sequence < 0 && at.position < 0 && at.channel < 0) return nullptr;
  return {{"sequence", index_json(at.sequence)},
          {"position", index_json(at.position)},
          {"channel", index_json(at.channel)}};
}

const char* pass_or_fail(bool ok) { return ok ? "pass" : "fail"; }

Json check_json(const Check& c) {
  return {{"value", json_of(c.got)}, {"limit", json_of(c.allowed)},
          {"from", json_of(c.from)}, {"headroom", json_of(headroom_of(c.got, c.allowed))},
          {"at", place_json(c.at)},  {"over", c.over},
          {"compared", c.n},         {"verdict", pass_or_fail(c.ok())}};
}

Json metrics_json(const LogitsMetrics& m) {
  const bool any = m.rows > 0;  // statistics of nothing are null, not zero
  const auto known = [any](const Json& value) { return any ? value : Json(); };
  return {{"rows", m.rows},
          {"wrong_kind", m.wrong_kind},
          {"max_abs", known(json_of(m.max_abs))},
          {"max_abs_at", known(place_json(m.max_abs_at))},
          {"max_rel", known(json_of(m.max_rel))},
          {"max_rel_at", known(place_json(m.max_rel_at))},
          {"nmse", known(json_of(m.nmse))},
          {"kl_mean", known(json_of(m.kl_mean))},
          {"kl_max", known(json_of(m.kl_max))},
          {"kl_max_at", known({{"sequence", index_json(m.kl_max_at.sequence)},
                               {"position", index_json(m.kl_max_at.position)},
                               {"token", index_json(m.kl_max_token)}})},
          {"top1", known(json_of(m.top1))},
          {"top10_overlap", known(json_of(m.top10_overlap))},
          {"jaccard", known(json_of(m.jaccard))},
          {"rank_agreement", known(json_of(m.rank_agreement))},
          {"perplexity_golden", json_of(m.perplexity_want)},
          {"perplexity_other", json_of(m.perplexity_got)}};
}

Json undecided_json(const std::vector<RowResult>& rows) {
  Json list = Json::array();
  for (const RowResult& row : rows)
    if (row.undecided)
      list.push_back({{"sequence", index_json(row.at.sequence)},
                      {"position", index_json(row.at.position)},
                      {"decision", json_of(row.decision)},
                      {"decided_at", index_json(row.decided_at)},
                      {"margin", json_of(row.margin)},
                      {"noise", json_of(row.noise)},
                      {"kl", json_of(row.kl)},
                      {"limit", json_of(row.kl_limit)}});
  return list;
}

Json flips_json(const LogitsResult& logits) {
  Json list = Json::array();
  for (const FlipResult& flip : logits.flips)
    list.push_back({{"sequence", index_json(flip.sequence)},
                    {"position", index_json(flip.position)},
                    {"layer", index_json(flip.layer)},
                    {"decision", json_of(flip.decision)},
                    {"without", flip.without},
                    {"with", flip.with},
                    {"margin", json_of(flip.margin)},
                    {"noise", json_of(flip.noise)}});
  return list;
}

/// One array a column: a long golden has many rows, and a plot wants columns.
Json by_row_json(const std::vector<RowResult>& rows) {
  Json columns = {{"sequence", Json::array()},
                  {"position", Json::array()},
                  {"kl", Json::array()},
                  {"limit", Json::array()},
                  {"worst_over_allowed", Json::array()},
                  {"explained", Json::array()},
                  {"undecided", Json::array()}};
  for (const RowResult& row : rows) {
    columns["sequence"].push_back(index_json(row.at.sequence));
    columns["position"].push_back(index_json(row.at.position));
    columns["kl"].push_back(json_of(row.kl));
    columns["limit"].push_back(json_of(row.kl_limit));
    columns["worst_over_allowed"].push_back(json_of(row.worst_over_allowed));
    columns["explained"].push_back(row.explained);
    columns["undecided"].push_back(row.undecided);
  }
  return columns;
}

Json logits_json(const LogitsResult& logits) {
  Json json = metrics_json(logits.decided);
  json["all"] = metrics_json(logits.all);
  json["explained"] = logits.explained();
  json["flips"] = flips_json(logits);
  json["flips_expected"] = json_of(logits.flips_expected);
  json["flips_most"] = json_of(logits.flips_most);
  json["undecided"] = logits.undecided();
  json["undecided_rows"] = undecided_json(logits.rows);
  json["limit"] = {{"kl_max", logits.kl.n > 0 ? json_of(logits.kl.allowed) : Json()},
                   {"from", json_of(logits.kl.from)}};
  json["kl"] = check_json(logits.kl);
  json["elements"] = check_json(logits.elements);
  json["user"] = Json::array();
  for (const Check& check : logits.user) json["user"].push_back(check_json(check));
  json["by_row"] = by_row_json(logits.rows);
  return json;
}

}  // namespace

Json tensor_json(const TensorResult& t) {
  const char* kinds[] = {"tensor", "selection", "routing"};
  Json json = {{"name", json_of(t.name)},
               {"kind", kinds[static_cast<int>(t.kind)]},
               {"compared", t.n},
               {"over", t.over},
               {"wrong_kind", t.wrong_kind},
               {"worst_over_allowed", json_of(t.worst)},
               {"headroom", json_of(headroom_of(t.worst, 1))},
               {"at", place_json(t.at)},
               {"got", json_of(t.got)},
               {"want", json_of(t.want)},
               {"allowed", json_of(t.allowed)},
               {"from", json_of(t.from)},
               {"verdict", pass_or_fail(t.ok())}};
  if (t.kind != TensorResult::Kind::tensor) {
    json["agreeing"] = t.agreeing;
    json["explained"] = t.explained;
  }
  if (t.kind == TensorResult::Kind::selection) {
    json["agreement_by_position"] = Json::array();
    for (const double agreement : t.agreement_by_position)
      json["agreement_by_position"].push_back(json_of(agreement));
  }
  return json;
}

namespace {

/// Everything that a golden and a candidate have in common.
Json judgement_json(const Judgement& j) {
  Json json = {{"title", json_of(j.title)},
               {"precision", json_of(j.precision)},
               {"verdict", name_of(j.outcome)},
               {"why", json_of(j.why)},
               {"logits", j.logits ? logits_json(*j.logits) : Json()},
               {"tensors", Json::array()},
               {"notes", json_of(j.notes)},
               {"first_departure", j.first_departure ? json_of(*j.first_departure) : Json()}};
  for (const TensorResult& tensor : j.tensors) json["tensors"].push_back(tensor_json(tensor));
  if (!j.limits.empty()) json["limits"] = json_of(j.limits);
  return json;
}

/// What several verdicts share: the inputs' hashes stay with their own receipts.
Json shared_receipt(const std::vector<Verdict>& verdicts) {
  if (verdicts.empty()) return nullptr;
  Json receipt = receipt_json(verdicts.front().receipt);
  for (const char* own : {"checkpoint_sha256", "golden_sha256", "candidate_sha256"})
    receipt.erase(own);
  double seconds = 0, peak = 0;
  for (const Verdict& v : verdicts) {
    seconds += v.receipt.seconds;
    peak = std::max(peak, v.receipt.peak_memory_mib);
  }
  receipt["seconds"] = json_of(seconds);
  receipt["peak_memory_mib"] = json_of(peak);
  return receipt;
}

}  // namespace

Json receipt_json(const Receipt& r) {
  return {{"command", json_of(r.command)},
          {"version", json_of(r.version)},
          {"commit", json_of(r.commit)},
          {"compiler", json_of(r.compiler)},
          {"flags", json_of(r.flags)},
          {"device", json_of(r.device)},
          {"kernel", json_of(r.kernel)},
          {"checkpoint_sha256", json_of(r.checkpoint_sha256)},
          {"golden_sha256", json_of(r.golden_sha256)},
          {"candidate_sha256", json_of(r.candidate_sha256)},
          {"seed", r.draws.seed},
          {"runs", r.draws.runs},
          {"alpha", json_of(r.draws.alpha)},
          {"seconds", json_of(r.seconds)},
          {"peak_memory_mib", json_of(r.peak_memory_mib)}};
}

Json to_json(const Verdict& v) {
  Json json = judgement_json(v.judged);
  json["judged"] = {{"verdict", json["verdict"]}, {"why", json["why"]}};
  json["verdict"] = name_of(v.outcome);
  json["why"] = json_of(v.why);
  json["exit_code"] = exit_code(v.outcome);
  json["checkpoint"] = json_of(v.checkpoint);
  json["golden"] = json_of(v.golden);
  json["candidate"] = v.candidate.empty() ? Json() : json_of(v.candidate);
  json["family"] = json_of(v.family);
  json["sequences"] = v.sequences;
  json["positions"] = v.positions;
  json["layers"] = v.layers;
  json["span"] = {v.span.first, v.span.second};
  json["topk"] = v.topk;
  json["longest_visible"] = v.longest_visible;
  json["unused_keys"] = json_of(v.unused_keys);
  json["golden_judged"] = v.golden_judged ? judgement_json(*v.golden_judged) : Json();
  json["receipt"] = receipt_json(v.receipt);
  return json;
}

Json to_json(const Summary& s) {
  Json json = {{"verdict", name_of(s.outcome)},
               {"why", summary_of(s.verdicts)},
               {"exit_code", exit_code(s.outcome)},
               {"goldens", Json::array()},
               {"receipt", shared_receipt(s.verdicts)}};
  for (const Verdict& v : s.verdicts) json["goldens"].push_back(to_json(v));
  return json;
}

}  // namespace dsa::verify
