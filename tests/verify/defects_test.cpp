// tests/verify/defects_test.cpp — every known defect shows where it says it does.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <thread>

#include "core/checkpoint.hpp"
#include "core/recording.hpp"
#include "tests/catch.hpp"
#include "tests/models.hpp"
#include "tests/paths.hpp"
#include "verify/defects/alter.hpp"
#include "verify/defects/gradients/defect.hpp"
#include "verify/defects/page.hpp"
#include "verify/runs/reference_run.hpp"

using namespace dsa;
using namespace dsa::verify;
using dsa::test::source_dir;

namespace {

using test::differ;
using test::source_dir;

/// A bundled sample with the first sequence of its golden, and the definition's run over it.
struct Bundled {
  std::string name;
  Model model;
  Sequence sequence;
  Run right;
};

Run run_of(const Model& model, const Sequence& sequence, const reference::Ops<double>& ops) {
  RunOptions options;
  options.span.end = model.config.num_hidden_layers;
  options.keep = [](const std::string&) { return true; };
  return run_reference(model, sequence, ops, options);
}

/// Shortest first.
const std::vector<Bundled>& bundled() {
  static const std::vector<Bundled> all = [] {
    std::vector<Bundled> samples;
    for (const std::string name : {"fp8", "v2", "ties", "v2lite", "glm", "v3", "v32"}) {
      const std::string at = source_dir() + "/data/samples/" + name;
      Model model = open_checkpoint(at + "/checkpoint");
      const Recording golden =
          read_recording(at + "/logits.safetensors", "fp64", model.config.vocab_size);
      Run right = run_of(model, golden.sequences[0], reference::definition<double>());
      samples.push_back({name, std::move(model), golden.sequences[0], std::move(right)});
    }
    return samples;
  }();
  return all;
}

/// As sets with repetition: the order within a row means nothing.
bool differ(Tensor<Index, 2> a, Tensor<Index, 2> b) {
  if (a.shape() != b.shape()) return true;
  for (Index t = 0; t < a.shape()[0]; ++t) {
    const auto x = a.view()[t], y = b.view()[t];
    std::sort(x.begin(), x.end());
    std::sort(y.begin(), y.end());
    if (!std::equal(x.begin(), x.end(), y.begin())) return true;
  }
  return false;
}

bool differ_at(const std::string& name, const Run& right, const Run& wrong) {
  if (const Decision* want = right.find(name)) {
    const Decision* got = wrong.find(name);
    return got == nullptr || differ(want->chosen, got->chosen);
  }
  const Trace::Entry* got = wrong.trace.find(name);
  return got == nullptr || differ(right.trace.find(name)->values(), got->values());
}

/// The first name, in order of execution, under which the runs differ; empty if none. gate_proj
/// and up_proj do not depend on each other: gate_proj counts as the first of the two.
std::string first_departure(const Run& right, const Run& wrong) {
  const std::string up = "up_proj";
  for (const std::string& name : right.order) {
    if (!differ_at(name, right, wrong)) continue;
    if (!name.ends_with(up)) return name;
    const std::string gate = name.substr(0, name.size() - up.size()) + "gate_proj";
    return differ_at(gate, right, wrong) ? gate : name;
  }
  return "";
}

std::string departure_of(const Bundled& sample, const DefectVariant& variant) {
  Variant altered{sample.model, reference::definition<double>()};
  variant.apply(altered);
  return first_departure(sample.right, run_of(altered.model, sample.sequence, altered.ops));
}

/// Ends in `first`, at the beginning of a component of the name.
bool is_at(const std::string& name, const std::string& first) {
  return name == first || name.ends_with("." + first);
}

std::string full_name(const Defect& defect, const DefectVariant& variant) {
  return defect.name + (variant.name.empty() ? "" : " (" + variant.name + ")");
}

}  // namespace

TEST_CASE("names are unique, and so are the variants of a defect", "[defects]") {
  std::set<std::string> names;
  for (const Defect& defect : all_defects()) {
    INFO(defect.name);
    CHECK(names.insert(defect.name).second);
    CHECK(std::regex_match(defect.name, std::regex("[a-z0-9]+(-[a-z0-9]+)*")));
    CHECK(defect.sentence.find('|') == std::string::npos);  // it stands in a table
    CHECK_FALSE(defect.variants.empty());
    std::set<std::string> variants;
    for (const DefectVariant& variant : defect.variants)
      CHECK(variants.insert(variant.name).second);
  }
}

TEST_CASE("every number of the gallery is either in the catalogue or excluded", "[defects]") {
  std::set<int> included, excluded;
  for (const Defect& defect : all_defects()) included.insert(defect.number);
  for (const GradientDefect& defect : all_gradient_defects()) included.insert(defect.number);
  for (const Excluded& each : excluded_defects()) {
    INFO(each.number);
    CHECK(excluded.insert(each.number).second);
    CHECK(included.count(each.number) == 0);
    CHECK_FALSE(each.reason.empty());
  }
  for (int number = 1; number <= 118; ++number) {
    INFO(number);
    CHECK(included.count(number) + excluded.count(number) == 1);
  }
  for (int number = 201; number <= 229; ++number) {
    INFO(number);
    CHECK(included.count(number) + excluded.count(number) == 1);
  }
}

TEST_CASE("reported defects link to their report, plausible ones to none", "[defects]") {
  const std::regex link(
      "https://github\\.com/[A-Za-z0-9-]+/[A-Za-z0-9._-]+(/issues/[0-9]+|/commit/[0-9a-f]{7,40})?");
  for (const Defect& defect : all_defects()) {
    INFO(defect.name);
    const bool reported = defect.number <= 200;
    CHECK(reported == std::regex_match(defect.link, link));
    CHECK(reported == !defect.sentence.starts_with("Plausible: "));
    if (!reported) CHECK(defect.link.empty());
  }
}

TEST_CASE("docs/defects.md is what `dsa-verify defects` prints", "[defects]") {
  std::ifstream file(source_dir() + "/docs/defects.md");
  std::stringstream text;
  text << file.rdbuf();
  const std::string page = text.str();
  CHECK(page == catalogue_page());
  for (const Defect& defect : all_defects()) {
    INFO(defect.name);
    CHECK(page.find("`" + defect.name + "`") != std::string::npos);
  }
}

TEST_CASE("every variant departs first where its defect says, on a bundled sample", "[defects]") {
  for (const Defect& defect : all_defects())
    for (const DefectVariant& variant : defect.variants) {
      std::string seen;
      bool found = false;
      for (const Bundled& sample : bundled()) {
        if (!defect.applies(sample.model.config)) continue;
        const std::string name = departure_of(sample, variant);
        seen += sample.name + ": " + (name.empty() ? "no difference" : name) + "; ";
        if (is_at(name, defect.first)) {
          found = true;
          break;
        }
      }
      INFO(full_name(defect, variant) << ", expected " << defect.first << "; saw " << seen);
      CHECK(found);
    }
}

TEST_CASE("on top of a precision, nothing departs earlier than without", "[defects]") {
  const Bundled& sample = bundled().front();
  using reference::Precision;
  const Config& config = sample.model.config;
  const Model loaded = reference::loaded_as(sample.model, Precision::hf_bf16);
  const auto ops = reference::ops_of(Precision::hf_bf16, {}, config);
  const Run right = run_of(loaded, sample.sequence, ops);
  const auto place = [&](const std::string& name) {
    return name.empty() ? right.order.end()
                        : std::find(right.order.begin(), right.order.end(), name);
  };
  int seen = 0;
  for (const Defect& defect : all_defects()) {
    if (!defect.applies(config)) continue;
    INFO(defect.name);
    Variant altered{loaded, ops};
    defect.variants.front().apply(altered);
    const Run wrong = run_of(altered.model, sample.sequence, altered.ops);
    const std::string first = first_departure(right, wrong);
    CHECK(place(first) >= place(departure_of(sample, defect.variants.front())));
    seen += !first.empty();
  }
  CHECK(seen > 60);
}

TEST_CASE("one table serves passes in parallel threads", "[defects]") {
  const Bundled& sample = bundled().back();
  Sequence half = sample.sequence;
  for (auto* part : {&half.positions, &half.documents, &half.tokens}) part->resize(40);
  for (const Defect& defect : all_defects()) {
    if (!defect.applies(sample.model.config)) continue;
    INFO(defect.name);
    Variant altered{sample.model, reference::definition<double>()};
    defect.variants.front().apply(altered);
    const auto run = [&](const Sequence& sequence) {
      return run_of(altered.model, sequence, altered.ops);
    };
    const Run one = run(sample.sequence), other = run(half);
    Run one_again, other_again;
    std::thread first([&] { one_again = run(sample.sequence); });
    std::thread second([&] { other_again = run(half); });
    first.join();
    second.join();
    CHECK(first_departure(one, one_again).empty());
    CHECK(first_departure(other, other_again).empty());
  }
}

TEST_CASE("what an op saw is an Error before it was kept, and each thread's own", "[defects]") {
  const Memory<int> memory;
  CHECK_FALSE(memory.has());
  CHECK_THROWS_WITH(memory.get(), Catch::Matchers::Contains("was never kept"));
  memory.put(1);
  CHECK(memory.get() == 1);
  memory.put(2);
  CHECK(memory.get() == 2);
  bool elsewhere = true;
  std::thread([&] { elsewhere = memory.has(); }).join();
  CHECK_FALSE(elsewhere);
}

namespace {

/// Six tokens, of which three are selected: every branch of a selection, in no time.
Bundled shortened(Bundled sample) {
  constexpr std::size_t T = 4;
  for (auto* part : {&sample.sequence.positions, &sample.sequence.documents}) part->resize(T);
  sample.sequence.tokens.resize(T);
  if (sample.model.config.indexer) sample.model.config.indexer->topk = 2;
  return sample;
}

/// Whether the two together run; an Error is an answer, too.
bool runs(const Bundled& sample, const DefectVariant& first, const DefectVariant& second) {
  Variant altered{sample.model, reference::definition<double>()};
  try {
    first.apply(altered);
    second.apply(altered);
    run_of(altered.model, sample.sequence, altered.ops);
  } catch (const Error&) {
    return false;
  }
  return true;
}

}  // namespace

TEST_CASE("a defect that replaces what another remembers is an Error, not a crash", "[defects]") {
  const Bundled sample = shortened(bundled().back());
  const auto variant = [](const std::string& name, std::size_t i) {
    for (const Defect& defect : all_defects())
      if (defect.name == name) return defect.variants.at(i);
    throw Error("no defect " + name);
  };
  const DefectVariant remembers = variant("selection-keeps-all-ties", 0),
                      replaces = variant("selection-by-fp8-scores", 1);
  CHECK_FALSE(runs(sample, remembers, replaces));
  CHECK(runs(sample, replaces, remembers));
}

// Samples take the pairs by turns: one every other pair, the next the rest.
TEST_CASE("pairs of defects run, or say why not, on every sample", "[defects][slow]") {
  int ran = 0, refused = 0;
  std::size_t turn = 0;
  for (const Bundled& long_sample : bundled()) {
    const Bundled sample = shortened(long_sample);
    // Of one defect's variants all do alike; each has its turn on the sample that most apply to.
    std::vector<const DefectVariant*> every, one_each;
    for (const Defect& defect : all_defects()) {
      if (!defect.applies(sample.model.config)) continue;
      one_each.push_back(&defect.variants.front());
      for (const DefectVariant& variant : defect.variants) every.push_back(&variant);
    }
    const auto& firsts = sample.name == "fp8" ? every : one_each;
    for (std::size_t i = 0; i < firsts.size(); ++i)
      for (std::size_t j = (i + turn) % 2; j < one_each.size(); j += 2)
        ++(runs(sample, *firsts[i], *one_each[j]) ? ran : refused);
    ++turn;
  }
  CHECK(ran > 35000);
  CHECK(refused > 0);
  CHECK(refused < ran / 10);
}

TEST_CASE("docs/power.md has a row for every variant", "[defects]") {
  std::ifstream file(source_dir() + "/docs/power.md");
  std::stringstream text;
  text << file.rdbuf();
  std::string page = text.str();
  for (const Defect& defect : all_defects())
    for (const DefectVariant& variant : defect.variants) {
      INFO(full_name(defect, variant));
      const std::regex row("\\n" + std::to_string(defect.number) + " +" + defect.name + " [^\\n]*");
      bool found = false;
      for (std::sregex_iterator at(page.begin(), page.end(), row), end; at != end; ++at)
        found |= at->str().find(variant.name) != std::string::npos;
      CHECK(found);
    }
}
