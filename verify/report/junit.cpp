// JUnit XML, as CI servers read it: a suite a golden, a case a check.
#include "verify/report/junit.hpp"

#include <fmt/format.h>

#include <pugixml.hpp>
#include <sstream>

#include "verify/report/report.hpp"
#include "verify/report/text.hpp"

namespace dsa::verify {
namespace {

void set(pugi::xml_node node, const char* name, const std::string& value) {
  node.append_attribute(name) = clean(value).c_str();
}

/// Counts of one suite: the attributes come before the cases, the numbers after them.
struct Counts {
  int tests = 0, failures = 0, skipped = 0;
};

class Suite {
 public:
  Suite(pugi::xml_node suites, const std::string& name) : node_(suites.append_child("testsuite")) {
    set(node_, "name", name);
    for (const char* later : {"tests", "failures", "errors", "skipped", "time"})
      node_.append_attribute(later);
  }

  pugi::xml_node node() const { return node_; }

  /// `problem` empty: the case passes.
  void add(const std::string& group, const std::string& name, Outcome outcome,
           const std::string& problem, double seconds = 0) {
    pugi::xml_node test = node_.append_child("testcase");
    set(test, "classname", group);
    set(test, "name", name);
    set(test, "time", fmt::format("{:.3f}", seconds));
    ++counts_.tests;
    if (outcome == Outcome::pass) return;
    const bool failed = outcome == Outcome::fail;
    ++(failed ? counts_.failures : counts_.skipped);
    pugi::xml_node reason = test.append_child(failed ? "failure" : "skipped");
    set(reason, "message", problem);
    if (!failed) return;
    set(reason, "type", "limit");
    reason.text() = clean(problem).c_str();
  }

  Counts finish(double seconds) {
    write(node_, counts_, seconds);
    return counts_;
  }

  static void write(pugi::xml_node node, const Counts& counts, double seconds) {
    node.attribute("tests") = counts.tests;
    node.attribute("failures") = counts.failures;
    node.attribute("errors") = 0;  // bad input ends the program with exit 2 and no report
    node.attribute("skipped") = counts.skipped;
    node.attribute("time") = fmt::format("{:.3f}", seconds).c_str();
  }

 private:
  pugi::xml_node node_;
  Counts counts_;
};

void add_check(Suite& suite, const std::string& group, const std::string& name, const Check& c) {
  const std::string problem =
      c.n == 0
          ? "nothing was compared"
          : fmt::format("{} of {} above the limit; worst {} at {}, limit {} from {}", count(c.over),
                        count(c.n), number(c.got), place(c.at), number(c.allowed), c.from);
  suite.add(group, name, c.ok() ? Outcome::pass : Outcome::fail, problem);
}

void add_judgement(Suite& suite, const std::string& group, const Judgement& j) {
  for (const TensorResult& t : j.tensors) {
    const bool first = j.first_departure == t.name;
    suite.add(group, t.name, t.ok() ? Outcome::pass : Outcome::fail,
              (first ? "first departure: " : "") + complaint(t) +
                  (t.from.empty() ? "" : "; limit from " + t.from));
  }
  if (!j.logits) return;
  const LogitsResult& logits = *j.logits;
  const bool none_decided = logits.kl.n == 0 && logits.undecided() > 0;
  if (none_decided) {
    suite.add(group, "logits: KL", Outcome::inconclusive, "every row is undecided");
  } else {
    add_check(suite, group, "logits: KL", logits.kl);
    add_check(suite, group, "logits: elements", logits.elements);
  }
  for (const Check& c : logits.user) add_check(suite, group, "logits: " + c.from, c);
}

void add_property(pugi::xml_node properties, const std::string& name, const std::string& value) {
  if (value.empty()) return;
  pugi::xml_node property = properties.append_child("property");
  set(property, "name", name);
  set(property, "value", value);
}

void add_receipt(pugi::xml_node properties, const Receipt& r) {
  add_property(properties, "command", r.command);
  add_property(properties, "version", r.version);
  add_property(properties, "commit", r.commit);
  add_property(properties, "compiler", r.compiler);
  add_property(properties, "device", r.device);
  add_property(properties, "seed", std::to_string(r.draws.seed));
  add_property(properties, "checkpoint_sha256", r.checkpoint_sha256);
  add_property(properties, "golden_sha256", r.golden_sha256);
  add_property(properties, "candidate_sha256", r.candidate_sha256);
}

void add_properties(Suite& suite, const Verdict& v) {
  pugi::xml_node properties = suite.node().append_child("properties");
  add_property(properties, "checkpoint", v.checkpoint);
  add_property(properties, "golden", v.golden);
  add_property(properties, "candidate", v.candidate);
  add_property(properties, "precision", v.judged.precision);
  add_receipt(properties, v.receipt);
}

Counts add_suite(pugi::xml_node suites, const Verdict& v) {
  Suite suite(suites, v.golden + (v.candidate.empty() ? "" : ", " + v.candidate));
  add_properties(suite, v);
  if (v.golden_judged) add_judgement(suite, "golden", *v.golden_judged);
  add_judgement(suite, v.candidate.empty() ? "golden" : "candidate", v.judged);
  suite.add("verdict", "verdict", v.outcome, v.why, v.receipt.seconds);
  return suite.finish(v.receipt.seconds);
}

/// The document around suites that `add` makes; each hands back its counts and seconds.
template <class Add>
std::string document_of(Add&& add) {
  pugi::xml_document document;
  pugi::xml_node declaration = document.append_child(pugi::node_declaration);
  declaration.append_attribute("version") = "1.0";
  declaration.append_attribute("encoding") = "UTF-8";
  pugi::xml_node suites = document.append_child("testsuites");
  suites.append_attribute("name") = "dsa-verify";
  for (const char* later : {"tests", "failures", "errors", "skipped", "time"})
    suites.append_attribute(later);
  Counts total;
  double seconds = 0;
  add(suites, [&](const Counts& counts, double taken) {
    total.tests += counts.tests;
    total.failures += counts.failures;
    total.skipped += counts.skipped;
    seconds += taken;
  });
  Suite::write(suites, total, seconds);
  std::ostringstream text;
  document.save(text, "  ", pugi::format_default, pugi::encoding_utf8);
  return text.str();
}

}  // namespace

std::string to_junit(const std::vector<Verdict>& verdicts) {
  return document_of([&](pugi::xml_node suites, auto&& count) {
    for (const Verdict& v : verdicts) count(add_suite(suites, v), v.receipt.seconds);
  });
}

std::string to_junit(const JunitSuite& asked) {
  return document_of([&](pugi::xml_node suites, auto&& count) {
    Suite suite(suites, asked.name);
    pugi::xml_node properties = suite.node().append_child("properties");
    for (const auto& [name, value] : asked.properties) add_property(properties, name, value);
    add_receipt(properties, asked.receipt);
    for (const JunitCase& c : asked.cases) suite.add(c.group, c.name, c.outcome, c.problem);
    suite.add("verdict", "verdict", asked.outcome, asked.why, asked.receipt.seconds);
    count(suite.finish(asked.receipt.seconds), asked.receipt.seconds);
  });
}

}  // namespace dsa::verify
