#include "core/kl_semantics.hpp"

#include <algorithm>
#include <array>
#include <limits>

#include "core/keys.hpp"
#include "core/words.hpp"

namespace dsa {
namespace {

using KeySet = KlSemantics::Keys;
using Reduction = KlSemantics::Reduction;
using Detach = KlSemantics::Detach;

struct Named {
  std::string_view name;
  KlSemantics semantics;
};

/// As read in the code of each: MaxText 0.2.5, Megatron-LM d98e8a64 with use_sparse_loss, the
/// HuggingFace fork 05daf43c with its default flags, prime-rl, xtuner.
std::array<Named, 6> all_semantics() {
  KlSemantics maxtext;
  maxtext.l1.added = maxtext.log_p.added = maxtext.log_q.added = 1e-8;
  maxtext.padding_counted = true;
  KlSemantics megatron;
  megatron.l1.least = megatron.log_p.least = 1e-10;
  megatron.layers = Reduction::sum;
  KlSemantics fork;
  fork.student_keys = KeySet::visible;
  fork.l1.added = fork.log_p.added = 1e-10;
  fork.padding_counted = true;
  fork.detach = Detach::nothing;
  KlSemantics prime;
  prime.student_keys = KeySet::visible;
  prime.student_scaled = false;
  prime.l1.least = prime.log_p.least = 1e-12;
  prime.layers = Reduction::sum;
  prime.detach = Detach::nothing;
  return {{{"paper", {}},
           {"maxtext", maxtext},
           {"megatron", megatron},
           {"hf-fork", fork},
           {"prime-rl", prime},
           {"xtuner", {}}}};
}

// The words of the switches, in the order of the enumerations.
constexpr std::array<std::string_view, 2> key_words = {"chosen", "visible"};
constexpr std::array<std::string_view, 2> reduction_words = {"mean", "sum"};
constexpr std::array<std::string_view, 3> detach_words = {"inputs", "query_latent", "nothing"};

/// Calls f(switch, member) for every switch; f is generic in the member's type.
template <class Semantics, class F>
void for_each_switch(Semantics& s, F&& f) {
  f("teacher_softmax", s.teacher_softmax);
  f("teacher_keys", s.teacher_keys);
  f("student_keys", s.student_keys);
  f("student_scaled", s.student_scaled);
  f("l1_added", s.l1.added);
  f("l1_least", s.l1.least);
  f("log_p_added", s.log_p.added);
  f("log_p_least", s.log_p.least);
  f("log_q_added", s.log_q.added);
  f("log_q_least", s.log_q.least);
  f("tokens", s.tokens);
  f("layers", s.layers);
  f("padding_counted", s.padding_counted);
  f("detach", s.detach);
}

struct ToJson {
  Json operator()(bool x) const { return x; }
  Json operator()(double x) const { return x; }
  Json operator()(KeySet x) const { return key_words[static_cast<std::size_t>(x)]; }
  Json operator()(Reduction x) const { return reduction_words[static_cast<std::size_t>(x)]; }
  Json operator()(Detach x) const { return detach_words[static_cast<std::size_t>(x)]; }
};

template <class Enum, std::size_t N>
Enum word(const Keys& json, std::string_view key, const std::array<std::string_view, N>& words) {
  const Json& value = *json.find(key);
  for (std::size_t i = 0; i < N; ++i)
    if (value == Json(words[i])) return static_cast<Enum>(i);
  json.fail_expected(key, alternatives({words.begin(), words.end()}));
}

struct FromJson {
  const Keys& json;
  std::string_view key;

  void operator()(bool& x) const { x = json.boolean_or(key, x); }
  void operator()(double& x) const { x = json.number(key, 0, std::numeric_limits<double>::max()); }
  void operator()(KeySet& x) const { x = word<KeySet>(json, key, key_words); }
  void operator()(Reduction& x) const { x = word<Reduction>(json, key, reduction_words); }
  void operator()(Detach& x) const { x = word<Detach>(json, key, detach_words); }
};

}  // namespace

KlSemantics semantics_named(std::string_view name) {
  for (const Named& named : all_semantics())
    if (named.name == name) return named.semantics;
  throw Error("unknown semantics '" + std::string(name) + "'; expected " + semantics_names());
}

std::string semantics_names() {
  std::vector<std::string> names;
  for (const Named& named : all_semantics()) names.emplace_back(named.name);
  return alternatives(names);
}

KlSemantics in_warmup(KlSemantics semantics) {
  semantics.teacher_softmax = semantics.teacher_keys = semantics.student_keys = KeySet::visible;
  return semantics;
}

void check(const KlSemantics& semantics) {
  require(semantics.teacher_keys == KeySet::chosen || semantics.student_keys == KeySet::visible,
          "the teacher is over all visible keys and the student over the chosen ones: the KL is "
          "infinite; give both the same keys, or the teacher the chosen ones");
}

Sequence seen_by(const KlSemantics& semantics, Sequence sequence) {
  if (!semantics.padding_counted) return sequence;
  std::vector<Index>& documents = sequence.documents;
  const Index own =
      documents.empty() ? 0 : *std::max_element(documents.begin(), documents.end()) + 1;
  for (std::size_t t = 0; t < documents.size(); ++t)
    if (documents[t] < 0) {
      documents[t] = own;
      sequence.positions[t] = static_cast<Index>(t);
    }
  return sequence;
}

Json to_json(const KlSemantics& semantics) {
  // The preset with the fewest switches to turn; the first of several.
  Json best;
  for (const Named& named : all_semantics()) {
    Json json = {{"name", named.name}};
    Json preset;
    for_each_switch(named.semantics,
                    [&](const char* key, const auto& x) { preset[key] = ToJson{}(x); });
    for_each_switch(semantics, [&](const char* key, const auto& x) {
      if (preset[key] != ToJson{}(x)) json[key] = ToJson{}(x);
    });
    if (best.is_null() || json.size() < best.size()) best = json;
  }
  return best;
}

KlSemantics parse_semantics(const Json& json, const std::string& what) {
  if (json.is_string()) return semantics_named(json.get<std::string>());
  const Keys keys(json, what);
  KlSemantics semantics;
  if (const Json* name = keys.find("name")) {
    if (!name->is_string()) keys.fail_expected("name", semantics_names());
    semantics = semantics_named(name->get<std::string>());
  }
  for_each_switch(semantics, [&](const char* key, auto& x) {
    if (keys.has(key)) FromJson{keys, key}(x);
  });
  for (const std::string& unknown : keys.unused())
    keys.fail(unknown, "is no switch of the indexer's loss");
  check(semantics);
  return semantics;
}

}  // namespace dsa
