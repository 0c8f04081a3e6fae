#include "verify/report/merge.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "core/check.hpp"
#include "core/trace_names.hpp"
#include "verify/report/report.hpp"
#include "verify/report/text.hpp"
#include "verify/report/values.hpp"

namespace dsa::verify {
namespace {

using Reports = std::vector<SpanReport>;

Index begin_of(const SpanReport& report) { return report.json.at("span").at(0).get<Index>(); }
Index end_of(const SpanReport& report) { return report.json.at("span").at(1).get<Index>(); }
std::string span_of(const SpanReport& report) {
  return fmt::format("layers {}:{}", begin_of(report), end_of(report));
}

/// What merging reads of a report.
void expect_report(const SpanReport& report) {
  const Json& json = report.json;
  const auto refuse = [&](const std::string& lacks) {
    throw Error(report.file + " is no report on a span of layers (it has no " + lacks +
                "); give files that dsa-verify golden --json wrote");
  };
  if (!json.is_object()) refuse("fields");
  const auto span = json.find("span");
  if (span == json.end() || !span->is_array() || span->size() != 2 ||
      !(*span)[0].is_number_integer() || !(*span)[1].is_number_integer())
    refuse("span");
  const auto expect = [&](const Json& in, const char* key, auto is) {
    if (const auto value = in.find(key); value == in.end() || !((*value).*is)()) refuse(key);
  };
  using Value = bool (Json::*)() const noexcept;
  const Value object = &Json::is_object, text = &Json::is_string, array = &Json::is_array,
              integer = &Json::is_number_integer, number = &Json::is_number;
  for (const char* key : {"verdict", "why", "precision", "title"}) expect(json, key, text);
  for (const char* key : {"tensors", "notes"}) expect(json, key, array);
  for (const char* key : {"layers", "positions"}) expect(json, key, integer);
  for (const char* key : {"logits", "first_departure", "golden_judged"})
    if (!json.contains(key)) refuse(key);
  expect(json, "receipt", object);
  const Json& receipt = json["receipt"];
  for (const char* key :
       {"checkpoint_sha256", "golden_sha256", "candidate_sha256", "version", "commit", "device"})
    expect(receipt, key, text);
  for (const char* key : {"runs", "alpha", "seconds", "peak_memory_mib"})
    expect(receipt, key, number);
  for (const Json& tensor : json["tensors"]) expect(tensor, "name", text);
}

/// One thing that all reports must have in common.
void expect_same(const Reports& reports, const Json::json_pointer& field, const char* what) {
  const SpanReport& first = reports.front();
  for (const SpanReport& report : reports)
    require(report.json.at(field) == first.json.at(field),
            fmt::format("{} is of another {} than {}: {}, not {}; run them alike and merge again",
                        report.file, what, first.file, report.json.at(field).dump(),
                        first.json.at(field).dump()));
}

void expect_alike(const Reports& reports) {
  const std::pair<const char*, const char*> fields[] = {
      {"/receipt/checkpoint_sha256", "checkpoint"},
      {"/receipt/golden_sha256", "golden"},
      {"/receipt/candidate_sha256", "candidate"},
      {"/layers", "number of layers"},
      {"/positions", "number of positions"},
      {"/precision", "precision"},
      {"/receipt/runs", "number of perturbed runs"},
      {"/receipt/alpha", "alpha"},
      {"/receipt/version", "version"},
      {"/receipt/commit", "commit"}};
  for (const auto& [field, what] : fields) expect_same(reports, Json::json_pointer(field), what);
}

bool compared(const SpanReport& report, const std::string& tensor) {
  const Json& tensors = report.json.at("tensors");
  return std::any_of(tensors.begin(), tensors.end(),
                     [&](const Json& t) { return t.at("name") == tensor; });
}

/// All layers once, each span from where the one before it was compared.
void expect_cover(const Reports& reports) {
  const auto missing = [](Index a, Index b) {
    throw Error(
        fmt::format("no report judges layers {0}:{1}; run dsa-verify golden with --layers "
                    "{0}:{1}, and merge again",
                    a, b));
  };
  Index next = 0;
  for (std::size_t i = 0; i < reports.size(); ++i) {
    const SpanReport& report = reports[i];
    if (begin_of(report) > next) missing(next, begin_of(report));
    if (i > 0) {
      const SpanReport& before = reports[i - 1];
      require(begin_of(report) == next,
              fmt::format("layer {} is judged by {} ({}) and by {} ({}); give every layer once",
                          begin_of(report), before.file, span_of(before), report.file,
                          span_of(report)));
      const std::string border = layer_name(next - 1);
      require(compared(before, border),
              fmt::format("{} ({}) did not compare {}, where {} begins; give the golden a trace "
                          "of it",
                          before.file, span_of(before), border, report.file));
    }
    next = end_of(report);
  }
  const Index layers = reports.front().json.at("layers").get<Index>();
  if (next < layers) missing(next, layers);
}

std::string worst_of(const std::vector<const Json*>& judgements) {
  for (const char* verdict : {"fail", "inconclusive"})
    for (const Json* one : judgements)
      if (one->at("verdict") == verdict) return verdict;
  return "pass";
}

/// The parts of a judgement, of the first side or of its golden, as one.
Json joined(const std::vector<const Json*>& parts, const Reports& reports) {
  Json json = {{"title", parts.front()->at("title")},
               {"precision", parts.front()->at("precision")},
               {"verdict", worst_of(parts)},
               {"logits", parts.back()->at("logits")},
               {"tensors", Json::array()},
               {"notes", Json::array()},
               {"first_departure", nullptr}};
  std::string why;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const Json& part = *parts[i];
    const std::string where = span_of(reports[i]) + ": ";
    for (const Json& tensor : part.at("tensors")) json["tensors"].push_back(tensor);
    for (const Json& note : part.at("notes"))
      json["notes"].push_back(where + note.get<std::string>());
    for (const Json& limit : part.value("limits", Json::array()))
      json["limits"].push_back(where + limit.get<std::string>());
    if (json["first_departure"].is_null()) json["first_departure"] = part.at("first_departure");
    if (why.empty() && json["verdict"] != "pass" && part.at("verdict") == json["verdict"])
      why = where + part.at("why").get<std::string>();
  }
  json["why"] =
      !why.empty()
          ? why
          : fmt::format("{} tensors{} lie within their limits, in {} spans of layers",
                        json["tensors"].size(),
                        json["logits"].is_null() ? "" : " and the decided logits", parts.size());
  return json;
}

Json joined_receipt(const Reports& reports, const std::string& command_line) {
  Json receipt = reports.front().json.at("receipt");
  double seconds = 0, peak = 0;
  std::set<std::string> devices;
  for (const SpanReport& report : reports) {
    const Json& one = report.json.at("receipt");
    seconds += one.at("seconds").get<double>();
    peak = std::max(peak, one.at("peak_memory_mib").get<double>());
    devices.insert(one.at("device").get<std::string>());
  }
  receipt["command"] = json_of(command_line);
  receipt["seconds"] = json_of(seconds);
  receipt["peak_memory_mib"] = json_of(peak);
  receipt["device"] = fmt::format("{}", fmt::join(devices, ", "));
  return receipt;
}

Outcome outcome_named(const Json& verdict) {
  for (const Outcome outcome : {Outcome::pass, Outcome::inconclusive})
    if (verdict == name_of(outcome)) return outcome;
  return Outcome::fail;
}

}  // namespace

Json merged(std::vector<SpanReport> reports, const std::string& command_line) {
  require(!reports.empty(), "there is no report to merge; give those of all spans of layers");
  for (const SpanReport& report : reports) expect_report(report);
  expect_alike(reports);
  std::stable_sort(reports.begin(), reports.end(), [](const SpanReport& a, const SpanReport& b) {
    return begin_of(a) < begin_of(b);
  });
  expect_cover(reports);
  std::vector<const Json*> sides, goldens;
  for (const SpanReport& report : reports) {
    sides.push_back(&report.json);
    if (report.json.at("golden_judged").is_object())
      goldens.push_back(&report.json.at("golden_judged"));
  }
  Json json = reports.front().json;
  json.update(joined(sides, reports));
  json["judged"] = {{"verdict", json["verdict"]}, {"why", json["why"]}};
  json["exit_code"] = exit_code(outcome_named(json["verdict"]));
  if (goldens.size() == reports.size()) json["golden_judged"] = joined(goldens, reports);
  json["span"] = {0, json["layers"]};
  json["notes"].push_back(
      fmt::format("alpha is that of a span: a right result is rejected with a probability of at "
                  "most {} times {}",
                  reports.size(), json["receipt"]["alpha"].dump()));
  json["receipt"] = joined_receipt(reports, command_line);
  json["spans"] = Json::array();
  for (const SpanReport& report : reports)
    json["spans"].push_back({{"span", report.json.at("span")},
                             {"report", json_of(report.file)},
                             {"verdict", report.json.at("verdict")},
                             {"why", report.json.at("why")},
                             {"tensors", report.json.at("tensors").size()},
                             {"seconds", report.json.at("receipt").at("seconds")}});
  return json;
}

std::string table_of_merged(const Json& json, bool colour) {
  const Outcome outcome = outcome_named(json.at("verdict"));
  const std::string why = json.at("why").get<std::string>();
  std::string all = opening_line(outcome, why, colour);
  all += fmt::format("{:>9}  {:>12}  {:>7}  {:>9}  report\n", "layers", "verdict", "tensors",
                     "seconds");
  for (const Json& span : json.at("spans"))
    all += fmt::format(
        "{:>9}  {:>12}  {:>7}  {:>9.1f}  {}\n",
        fmt::format("{}:{}", span["span"][0].get<Index>(), span["span"][1].get<Index>()),
        span["verdict"].get<std::string>(), span["tensors"].get<Index>(),
        span["seconds"].get<double>(), clean(span["report"].get<std::string>()));
  return all + closing_line(outcome, why, colour);
}

}  // namespace dsa::verify
