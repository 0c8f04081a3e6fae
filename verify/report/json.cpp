// The JSON form, as docs/report.md describes it.
#include <algorithm>
#include <cmath>

#include "verify/report/report.hpp"
#include "verify/report/text.hpp"

namespace dsa::verify {
namespace {

/// JSON has no NaN and no infinities: they are the strings that Python's json would write bare.
Json number_json(double x) {
  if (std::isnan(x)) return "NaN";
  if (std::isinf(x)) return x > 0 ? "Infinity" : "-Infinity";
  return x;
}

Json number_json(const std::optional<double>& x) { return x ? number_json(*x) : Json(); }

}  // namespace

Json text_json(const std::string& text) {
  return Json::parse(Json(text).dump(-1, ' ', false, Json::error_handler_t::replace));
}

namespace {

Json index_json(Index i) { return i < 0 ? Json() : Json(i); }

Json place_json(const Place& at) {
  if (at.sequence < 0 && at.position < 0 && at.channel < 0) return nullptr;
  return {{"sequence", index_json(at.sequence)},
          {"position", index_json(at.position)},
          {"channel", index_json(at.channel)}};
}

const char* word(bool ok) { return ok ? "pass" : "fail"; }

Json check_json(const Check& c) {
  return {{"value", number_json(c.got)},
          {"limit", number_json(c.allowed)},
          {"from", text_json(c.from)},
          {"headroom", number_json(headroom_of(c.got, c.allowed))},
          {"at", place_json(c.at)},
          {"over", c.over},
          {"compared", c.n},
          {"verdict", word(c.ok())}};
}

Json metrics_json(const LogitsMetrics& m) {
  const bool any = m.rows > 0;  // statistics of nothing are null, not zero
  const auto known = [any](const Json& value) { return any ? value : Json(); };
  return {{"rows", m.rows},
          {"wrong_kind", m.wrong_kind},
          {"max_abs", known(number_json(m.max_abs))},
          {"max_abs_at", known(place_json(m.max_abs_at))},
          {"max_rel", known(number_json(m.max_rel))},
          {"max_rel_at", known(place_json(m.max_rel_at))},
          {"nmse", known(number_json(m.nmse))},
          {"kl_mean", known(number_json(m.kl_mean))},
          {"kl_max", known(number_json(m.kl_max))},
          {"kl_max_at", known({{"sequence", index_json(m.kl_max_at.sequence)},
                               {"position", index_json(m.kl_max_at.position)},
                               {"token", index_json(m.kl_max_token)}})},
          {"top1", known(number_json(m.top1))},
          {"top10_overlap", known(number_json(m.top10_overlap))},
          {"jaccard", known(number_json(m.jaccard))},
          {"rank_agreement", known(number_json(m.rank_agreement))},
          {"perplexity_golden", number_json(m.perplexity_want)},
          {"perplexity_other", number_json(m.perplexity_got)}};
}

Json undecided_json(const std::vector<RowResult>& rows) {
  Json list = Json::array();
  for (const RowResult& row : rows)
    if (row.undecided)
      list.push_back({{"sequence", index_json(row.at.sequence)},
                      {"position", index_json(row.at.position)},
                      {"decision", text_json(row.decision)},
                      {"decided_at", index_json(row.decided_at)},
                      {"margin", number_json(row.margin)},
                      {"noise", number_json(row.noise)},
                      {"kl", number_json(row.kl)},
                      {"limit", number_json(row.kl_limit)}});
  return list;
}

Json flips_json(const LogitsResult& logits) {
  Json list = Json::array();
  for (const FlipResult& flip : logits.flips)
    list.push_back({{"sequence", index_json(flip.sequence)},
                    {"position", index_json(flip.position)},
                    {"layer", index_json(flip.layer)},
                    {"decision", text_json(flip.decision)},
                    {"without", flip.without},
                    {"with", flip.with},
                    {"margin", number_json(flip.margin)},
                    {"noise", number_json(flip.noise)}});
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
    columns["kl"].push_back(number_json(row.kl));
    columns["limit"].push_back(number_json(row.kl_limit));
    columns["worst_over_allowed"].push_back(number_json(row.worst_over_allowed));
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
  json["flips_expected"] = number_json(logits.flips_expected);
  json["flips_most"] = number_json(logits.flips_most);
  json["undecided"] = logits.undecided();
  json["undecided_rows"] = undecided_json(logits.rows);
  json["limit"] = {{"kl_max", logits.kl.n > 0 ? number_json(logits.kl.allowed) : Json()},
                   {"from", text_json(logits.kl.from)}};
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
  Json json = {{"name", text_json(t.name)},
               {"kind", kinds[static_cast<int>(t.kind)]},
               {"compared", t.n},
               {"over", t.over},
               {"wrong_kind", t.wrong_kind},
               {"worst_over_allowed", number_json(t.worst)},
               {"headroom", number_json(headroom_of(t.worst, 1))},
               {"at", place_json(t.at)},
               {"got", number_json(t.got)},
               {"want", number_json(t.want)},
               {"allowed", number_json(t.allowed)},
               {"from", text_json(t.from)},
               {"verdict", word(t.ok())}};
  if (t.kind != TensorResult::Kind::tensor) {
    json["agreeing"] = t.agreeing;
    json["explained"] = t.explained;
  }
  if (t.kind == TensorResult::Kind::selection) {
    json["agreement_by_position"] = Json::array();
    for (const double agreement : t.agreement_by_position)
      json["agreement_by_position"].push_back(number_json(agreement));
  }
  return json;
}

namespace {

/// Everything that a golden and a candidate have in common.
Json judgement_json(const Judgement& j) {
  Json json = {{"title", text_json(j.title)},
               {"precision", text_json(j.precision)},
               {"verdict", name_of(j.outcome)},
               {"why", text_json(j.why)},
               {"logits", j.logits ? logits_json(*j.logits) : Json()},
               {"tensors", Json::array()},
               {"notes", Json::array()},
               {"first_departure", j.first_departure ? text_json(*j.first_departure) : Json()}};
  for (const TensorResult& tensor : j.tensors) json["tensors"].push_back(tensor_json(tensor));
  for (const std::string& note : j.notes) json["notes"].push_back(text_json(note));
  for (const std::string& line : j.limits) json["limits"].push_back(text_json(line));
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
  receipt["seconds"] = number_json(seconds);
  receipt["peak_memory_mib"] = number_json(peak);
  return receipt;
}

}  // namespace

Json receipt_json(const Receipt& r) {
  return {{"command", text_json(r.command)},
          {"version", text_json(r.version)},
          {"commit", text_json(r.commit)},
          {"compiler", text_json(r.compiler)},
          {"flags", text_json(r.flags)},
          {"device", text_json(r.device)},
          {"kernel", text_json(r.kernel)},
          {"checkpoint_sha256", text_json(r.checkpoint_sha256)},
          {"golden_sha256", text_json(r.golden_sha256)},
          {"candidate_sha256", text_json(r.candidate_sha256)},
          {"seed", r.draws.seed},
          {"runs", r.draws.runs},
          {"alpha", number_json(r.draws.alpha)},
          {"seconds", number_json(r.seconds)},
          {"peak_memory_mib", number_json(r.peak_memory_mib)}};
}

Json to_json(const Verdict& v) {
  Json json = judgement_json(v.judged);
  json["judged"] = {{"verdict", json["verdict"]}, {"why", json["why"]}};
  json["verdict"] = name_of(v.outcome);
  json["why"] = text_json(v.why);
  json["exit_code"] = exit_code(v.outcome);
  json["checkpoint"] = text_json(v.checkpoint);
  json["golden"] = text_json(v.golden);
  json["candidate"] = v.candidate.empty() ? Json() : text_json(v.candidate);
  json["family"] = text_json(v.family);
  json["sequences"] = v.sequences;
  json["positions"] = v.positions;
  json["layers"] = v.layers;
  json["topk"] = v.topk;
  json["longest_visible"] = v.longest_visible;
  json["golden_judged"] = v.golden_judged ? judgement_json(*v.golden_judged) : Json();
  json["receipt"] = receipt_json(v.receipt);
  return json;
}

Json to_json(const std::vector<Verdict>& verdicts) {
  const Outcome worst = worst_of(verdicts);
  Json json = {{"verdict", name_of(worst)},
               {"why", summary_of(verdicts)},
               {"exit_code", exit_code(worst)},
               {"goldens", Json::array()},
               {"receipt", shared_receipt(verdicts)}};
  for (const Verdict& v : verdicts) json["goldens"].push_back(to_json(v));
  return json;
}

}  // namespace dsa::verify
