// tests/verify/report_test.cpp — one verdict in four forms: what each must say, and that it is well
// formed.
#include "verify/report/report.hpp"

#include <cmath>
#include <pugixml.hpp>
#include <set>
#include <sstream>

#include "tests/catch.hpp"
#include "tests/verify/report_helpers.hpp"
#include "verify/report/text.hpp"
#include "verify/report/values.hpp"

using Catch::Matchers::Contains;
using dsa::Index;
using dsa::Json;
using namespace dsa::test;
using namespace dsa::verify;

namespace {

pugi::xml_document parsed(const std::string& xml) {
  pugi::xml_document document;
  const auto result = document.load_string(xml.c_str());
  INFO(result.description());
  CHECK(result);
  return document;
}

/// Every element that is opened is closed, in order: enough to catch an unescaped name.
bool is_balanced(const std::string& html) {
  const std::set<std::string> empty = {"meta", "br", "!doctype"};
  std::vector<std::string> open;
  for (auto at = html.find('<'); at != std::string::npos; at = html.find('<', at + 1)) {
    const auto end = html.find('>', at);
    if (end == std::string::npos) return false;
    const bool closes = html[at + 1] == '/';
    const auto begin = at + (closes ? 2 : 1);
    const std::string name = html.substr(begin, html.find_first_of(" />\n", begin) - begin);
    if (empty.count(name) || html[end - 1] == '/') continue;
    if (!closes) {
      open.push_back(name);
    } else {
      if (open.empty() || open.back() != name) return false;
      open.pop_back();
    }
  }
  return open.empty();
}

}  // namespace

TEST_CASE("exit codes and the worst of several verdicts", "[report]") {
  CHECK(exit_code(Outcome::pass) == 0);
  CHECK(exit_code(Outcome::fail) == 1);
  CHECK(exit_code(Outcome::inconclusive) == 3);
  const Verdict good = verdict_of(Outcome::pass), open = inconclusive(), bad = failing();
  CHECK(worst_of({good, good}) == Outcome::pass);
  CHECK(worst_of({good, open}) == Outcome::inconclusive);
  CHECK(worst_of({open, bad, good}) == Outcome::fail);
  CHECK(worst_of({}) == Outcome::inconclusive);  // nothing judged is nothing shown
  CHECK(good.judged.logits->undecided() == 1);
}

TEST_CASE("the JSON report has the promised fields", "[report]") {
  const Json json = to_json(verdict_of(Outcome::pass));
  CHECK(json["verdict"] == "pass");
  CHECK(json["why"] == "because of this");
  CHECK(json["exit_code"] == 0);
  CHECK(json["candidate"].is_null());
  CHECK(json["golden_judged"].is_null());
  CHECK(json["first_departure"].is_null());
  CHECK(json["receipt"]["commit"] == "9ab12c0");

  const Json& logits = json["logits"];
  CHECK(logits["max_abs"] == 2.5e-13);
  CHECK(logits["kl_mean"] == 1e-28);
  CHECK(logits["kl_max"] == 3e-28);
  CHECK(logits["kl_max_at"] == Json({{"sequence", 0}, {"position", 3}, {"token", 77}}));
  CHECK(logits["top1"] == 1.0);
  CHECK(logits["rows"] == 3);
  CHECK(logits["all"]["rows"] == 4);
  CHECK(logits["all"]["kl_max"] == 3e-28);
  CHECK(logits["undecided"] == 1);
  REQUIRE(logits["undecided_rows"].size() == 1);
  CHECK(logits["undecided_rows"][0]["decision"] == "model.layers.1.self_attn.indexer.topk");
  CHECK(logits["undecided_rows"][0]["noise"] == 4e-8);
  CHECK(logits["limit"] == Json({{"kl_max", 1e-25}, {"from", "32 perturbed runs"}}));
  CHECK(logits["kl"]["headroom"] == 1e-25 / 2e-26);
  CHECK(logits["by_row"]["kl"].size() == 4);

  REQUIRE(json["tensors"].size() == 3);
  CHECK(json["tensors"][0]["name"] == "model.embed_tokens");
  CHECK(json["tensors"][0]["worst_over_allowed"] == 0.25);
  CHECK(json["tensors"][0]["at"] == Json({{"sequence", 0}, {"position", 3}, {"channel", 5}}));
  CHECK(json["tensors"][0]["verdict"] == "pass");
  CHECK(json["tensors"][2]["kind"] == "selection");
  CHECK(json["tensors"][2]["headroom"] == "Infinity");
  CHECK(json["tensors"][2]["agreement_by_position"] == Json({1.0, 1.0, 1.0, 0.5}));
}

TEST_CASE("JSON: NaN and infinities are strings, what was not measured is null", "[report]") {
  const Json json = to_json(failing());
  CHECK(json["verdict"] == "fail");
  CHECK(json["first_departure"] == "model.layers.1.mlp");
  CHECK(json["logits"]["kl_max"] == "NaN");
  CHECK(json["tensors"][4]["worst_over_allowed"] == "Infinity");
  CHECK(json["tensors"][4]["got"] == "NaN");
  CHECK(json["tensors"][4]["verdict"] == "fail");

  const Json open = to_json(inconclusive());
  CHECK(open["exit_code"] == 3);
  CHECK(open["tensors"] == Json::array());
  CHECK(open["logits"]["kl_max"].is_null());  // of no row
  CHECK(open["logits"]["limit"]["kl_max"].is_null());
  CHECK(open["logits"]["all"]["kl_max"] == 3e-28);

  Verdict traced = verdict_of(Outcome::pass);
  traced.judged.logits.reset();
  CHECK(to_json(traced)["logits"].is_null());
}

TEST_CASE("JSON survives the way through a file, any bytes in names", "[report]") {
  Verdict v = with_candidate();
  v.golden = "caf\xE9/golden";  // Latin-1
  v.judged.tensors[0].name = "a\"b\\c\n";
  const Json json = to_json(v);
  const std::string text = json.dump(2);
  CHECK(dsa::parse_json(text, "report") == json);
  CHECK(json["golden"] == "caf\xEF\xBF\xBD/golden");
  CHECK(json["golden_judged"]["verdict"] == "pass");
  CHECK(json["golden_judged"]["tensors"].size() == 3);
  CHECK(json["golden_judged"]["logits"]["kl_max"] == 3e-28);

  const Json several = to_json(Summary{"samples", {v, verdict_of(Outcome::pass)}, Outcome::fail});
  CHECK(several["verdict"] == "fail");
  CHECK(several["why"] == "2 goldens: 1 pass, 1 fail");
  CHECK(several["goldens"].size() == 2);
  CHECK(several["receipt"]["seconds"] == 3.0);
  CHECK(!several["receipt"].contains("golden_sha256"));
  CHECK(to_json(Summary{})["verdict"] == "inconclusive");
}

TEST_CASE("the JUnit report parses, and its counts are those of its cases", "[report]") {
  Verdict strange = with_candidate();
  strange.judged.tensors[0].name = "a<b>&\"c\x01";
  const auto document = parsed(to_junit({verdict_of(Outcome::pass), strange, inconclusive()}));
  const auto suites = document.child("testsuites");
  int tests = 0, failures = 0, skipped = 0;
  for (const auto suite : suites.children("testsuite")) {
    int own = 0, own_failures = 0, own_skipped = 0;
    for (const auto test : suite.children("testcase")) {
      ++own;
      own_failures += test.child("failure") ? 1 : 0;
      own_skipped += test.child("skipped") ? 1 : 0;
      CHECK(!std::string(test.attribute("classname").value()).empty());
      CHECK(!std::string(test.attribute("time").value()).empty());
    }
    CHECK(suite.attribute("tests").as_int() == own);
    CHECK(suite.attribute("failures").as_int() == own_failures);
    CHECK(suite.attribute("skipped").as_int() == own_skipped);
    CHECK(suite.attribute("time").as_double() == 1.5);
    tests += own;
    failures += own_failures;
    skipped += own_skipped;
  }
  CHECK(suites.attribute("tests").as_int() == tests);
  CHECK(suites.attribute("failures").as_int() == failures);
  CHECK(suites.attribute("skipped").as_int() == skipped);
  CHECK(failures == 4);  // a tensor, a tensor with NaN, the KL, the verdict
  CHECK(skipped == 2);   // logits without a decided row, the verdict
  const auto found = suites.find_node([](pugi::xml_node node) {
    return std::string(node.attribute("name").value()) == "a<b>&\"c?";
  });
  CHECK(found);
}

TEST_CASE("the HTML report is one page that loads nothing", "[report]") {
  const std::string html = to_html(with_candidate());
  CHECK_THAT(html, Contains("<h1>Fail</h1>"));
  CHECK_THAT(html, Contains("What to do."));
  CHECK_THAT(html, Contains("first departure: model.layers.1.mlp"));
  CHECK_THAT(html, Contains("KL by position") && Contains("Error by tensor") &&
                       Contains("Selection agreement"));
  CHECK_THAT(html, Contains("Receipt") && Contains("9ab12c0"));
  CHECK_THAT(html, Contains("prefers-color-scheme: dark") && Contains("@media print"));
  for (const char* loaded : {"http", "//", "src=", "@import", "url(", "<script", "<link"})
    CHECK_THAT(html, !Contains(loaded));
  CHECK_THAT(html, !Contains("nan\"") && !Contains("inf\"") && !Contains("\"nan"));
  CHECK(is_balanced(html));
}

TEST_CASE("the HTML report escapes every name", "[report]") {
  Verdict v = with_candidate();
  const std::string bad = "<script>alert('1')</script>&\"";
  for (std::string* text :
       {&v.checkpoint, &v.golden, &v.candidate, &v.family, &v.why, &v.judged.title, &v.judged.why,
        &v.judged.precision, &v.judged.logits->kl.from, &v.judged.logits->rows[0].decision,
        &v.judged.tensors[0].name, &v.judged.tensors[0].from, &v.receipt.command, &v.receipt.commit,
        &v.receipt.compiler, &v.receipt.flags, &v.receipt.device, &v.receipt.golden_sha256})
    *text = bad;
  v.judged.first_departure = bad;
  v.judged.notes = {bad};
  Check user;
  user.add_value(1, 2, {}), user.from = bad;
  v.judged.logits->user = {user};
  for (const std::string& html : {to_html(v), to_html(Summary{"samples", {v, v}})}) {
    CHECK_THAT(html, !Contains("<script"));
    CHECK_THAT(html, Contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;&quot;"));
    CHECK(is_balanced(html));
  }
}

TEST_CASE("the HTML report draws nothing where there is nothing", "[report]") {
  Verdict empty = verdict_of(Outcome::inconclusive);
  empty.judged.logits.reset();
  empty.judged.tensors.clear();
  CHECK_THAT(to_html(empty),
             Contains("<h1>Inconclusive</h1>") && !Contains("<svg") && !Contains("<figure"));
  CHECK(is_balanced(to_html(empty)));
  CHECK(is_balanced(to_html(Summary{})));
  const std::string open = to_html(inconclusive());  // logits, and no row of them decided
  CHECK_THAT(open, Contains("KL by position") && !Contains("Error by tensor"));
  CHECK(is_balanced(open));
}

TEST_CASE("the table shows value, limit, headroom, place and where the limit comes from",
          "[report]") {
  const std::string text = table(verdict_of(Outcome::pass), false);
  CHECK_THAT(text, Contains("model.layers.0.mlp") && Contains("0.5") && Contains("2x") &&
                       Contains("0:3:5") && Contains("[a]"));
  CHECK_THAT(text, Contains("3 agree, 1 explained, 0 over"));
  CHECK_THAT(text, Contains("[a] limit: gamma(64) bound"));
  CHECK_THAT(text, Contains("limit: 32 perturbed runs") && Contains("5x"));
  CHECK_THAT(text, Contains("1 of 4 rows undecided") && Contains("4e-08"));
  CHECK_THAT(text, Catch::Matchers::EndsWith("PASS: because of this -> exit 0\n"));
  CHECK_THAT(text, !Contains("\x1b"));
  CHECK_THAT(table(verdict_of(Outcome::pass), true), Contains("\x1b[32mPASS\x1b[0m"));
  std::istringstream lines(table(with_candidate(), false));
  for (std::string line; std::getline(lines, line);) {
    INFO(line);
    CHECK(line.size() <= page_width + 2);
    CHECK((line.empty() || line.back() != ' '));
  }
}

TEST_CASE("the table summarises what passes and never what fails", "[report]") {
  Verdict v = failing();
  for (int l = 2; l < 30; ++l) {
    const std::string layer = "model.layers." + std::to_string(l);
    v.judged.tensors.push_back(tensor_of(layer + ".self_attn", 0.125));
    v.judged.tensors.push_back(tensor_of(layer + ".mlp", l == 20 ? 3 : 0.25));
  }
  const std::string text = table(v, false);
  CHECK_THAT(text, Contains("layers 2-20: 37 tensors ok"));
  CHECK_THAT(text, Contains("layers 21-29: 18 tensors ok"));
  CHECK_THAT(text, Contains("model.layers.20.mlp") && Contains("model.layers.1.mlp"));
  CHECK_THAT(text, Contains("FIRST DEPARTURE: 7 of 1,234 elements above the limit"));
  CHECK_THAT(text, Contains("3 elements NaN or infinite on one side only"));
  CHECK_THAT(text, Contains("next: Start at model.layers.1.mlp"));
  CHECK_THAT(text, Catch::Matchers::EndsWith("FAIL: because of this -> exit 1\n"));
}

TEST_CASE("the table lists eight undecided rows and counts the rest", "[report]") {
  Verdict v = inconclusive();
  v.judged.logits = logits_of(20, 20);
  const std::string text = table(v, false);
  CHECK_THAT(text, Contains("20 of 20 rows undecided") && Contains("and 12 more"));
  CHECK_THAT(text, Contains("0:7 ") && !Contains("0:8 "));
  CHECK_THAT(text, Contains("next: Give a trace"));
  CHECK_THAT(text, Catch::Matchers::EndsWith("INCONCLUSIVE: because of this -> exit 3\n"));
  v.longest_visible = 2;
  CHECK_THAT(table(v, false), Contains("next: Use a prompt that lets some query see more than 2"));
}

TEST_CASE("a terminal never obeys a name", "[report]") {
  Verdict v = failing();
  v.golden = "\x1b[2J\x9b\x07golden";
  v.judged.tensors[3].name = "\x1b]0;title";
  v.judged.first_departure = v.judged.tensors[3].name;
  CHECK_THAT(table(v, false), !Contains("\x1b") && !Contains("\x07"));
  CHECK_THAT(table(Summary{"samples", {v}}, false), !Contains("\x1b"));
}

TEST_CASE("the summary has a line a golden, and why for each that did not pass", "[report]") {
  const Summary summary{"samples/", {verdict_of(Outcome::pass), failing()}, Outcome::fail};
  const std::string text = table(summary, false);
  CHECK_THAT(text, Contains("goldens of samples/") && Contains("3/3") && Contains("3/5") &&
                       Contains("    because of this\n"));
  // Relative to the directory that was named: nothing is cut away that tells rows apart.
  CHECK_THAT(text, Contains("\ntiny/golden.safetensors  "));
  CHECK(text.starts_with("FAIL: 2 goldens: 1 pass, 1 fail\n"));
  CHECK_THAT(text, Catch::Matchers::EndsWith("FAIL: 2 goldens: 1 pass, 1 fail -> exit 1\n"));
}

TEST_CASE("the summary's exit code is the process's", "[report]") {
  // One golden that cannot decide does not spoil the others (judge/samples.hpp).
  const Summary summary{"samples", {verdict_of(Outcome::pass), inconclusive()}, Outcome::pass};
  CHECK_THAT(table(summary, false), Catch::Matchers::EndsWith("-> exit 0\n"));
  CHECK(to_json(summary)["exit_code"] == 0);
  CHECK_THAT(to_html(summary), Contains("<h1>Pass</h1>"));
}

TEST_CASE("a failing report begins and ends with its sentence", "[report]") {
  CHECK(table(failing(), false).starts_with("FAIL: because of this\n\n"));
  CHECK(table(inconclusive(), false).starts_with("INCONCLUSIVE: because of this\n\n"));
  CHECK(table(failing(), true).starts_with("\x1b[1;31mFAIL\x1b[0m: because"));
  CHECK(table(verdict_of(Outcome::pass), false).starts_with("checkpoint "));
}

TEST_CASE("a failure says how many times above its limit it is", "[report]") {
  CHECK(headroom(0.5, 1) == "2x");
  CHECK(headroom(1, 1) == "1x");
  CHECK(headroom(0, 1) == "exact");
  CHECK(headroom(2.33e10, 1) == "2.33e+10 x the limit");
  CHECK(headroom(inf, 1) == "inf x the limit");
  CHECK(headroom(no_number, 1) == "NaN");
  Verdict v = failing();
  v.judged.tensors[3] = tensor_of("model.layers.61.self_attn.indexer.k_norm", 2.33e10);
  CHECK_THAT(table(v, false), Contains("model.layers.61.self_attn.indexer.k_norm ") &&
                                  Contains("2.33e+10 x the limit  0:3:5       FAIL"));
}
