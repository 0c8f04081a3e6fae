// The catalogue as a page: docs/defects.md.
#include "verify/defects/page.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "verify/defects/defect.hpp"
#include "verify/defects/gradients/defect.hpp"

namespace dsa::verify {
namespace {

constexpr const char* introduction = R"md(# Known defects

Bugs of real implementations of DeepSeek Sparse Attention, of multi-head latent attention, of the
router and of FP8, each as a variant of the reference. If a candidate differs from the definition,
the closest variant is a name for its bug. The links lead to the reports. Their claims were not
verified by running their code.

A variant changes the config, a parameter or one row of the reference's op table
(`verify/defects/defect.hpp`), for a precision's roundings as well as for the definition's. **First
tensor** is the first name of a trace under which a run with the defect differs from one without,
in the first layer where the defect can occur. Numbers up to 200 are reports; numbers above 200 are
plausible mistakes without a report, and say so. **Variants** are values or forms that were seen; of
*fitted* constants `dsa-verify diagnose` also finds any other value, and *more* means that it tries
further places, layers or periods. A *convention* is no mistake: implementations differ by right.

- Variants that act on the inside of the attention (`kv-b-*`, `keys-as-values`,
  `query-split-swapped`, `partial-attention-merged-in-base-two`, `selection-per-head`,
  `shared-mask-in-attention`, and "masked after by a finite number") are defined for its expanded
  form, the one that is judged.
- `fp8-*` defects change weights that are stored in FP8. A model that was decoded beforehand has no
  scales left; such a variant then changes nothing.
- `fp8-scales-transposed` differs first in the first matrix of several blocks both ways: `mlp.gate_proj` in
  the bundled sample.
- `fp8-index-*` describe an indexer in FP8, roundings and defect together.
- Only a trace shows `indexer-scale`, `indexer-heads-averaged` and `indexer-hadamard-unscaled`:
  positive factors do not change a top-k, so that the logits are right. Defects that reorder only
  near-ties, such as `indexer-key-norm-eps`, are hard to see without one.

)md";

constexpr const char* of_training = R"md(# Known defects of training

Bugs of losses and of backward passes, each as a variant of the reference's backward pass: a row of
its table of ops, or what a loss is made of (`verify/defects/gradients/defect.hpp`). `dsa-verify
diagnose` compares files of gradients with them. A defect explains a loss if its value and all of
its gradients lie within limits that are measured with the defect in place, and if the definition's
do not. **First departure** is the loss itself, or the module at which a backward pass first goes
wrong. *More* means variants by layer, by trainer or by count of the batch. In front of any variant,
a common factor of loss and gradients is *fitted*. A *convention* is no mistake: trainers differ by
right.

)md";

constexpr const char* adding = R"md(## Adding one

1. Find its family in `verify/defects/`: one file a family, one function that lists its defects.
2. Write the change as a small function of `Variant&`. Prefer a field of the config; else wrap one
   op with `around(altered.ops.OP, WHERE, f)`, where f gets the inner op, the trace name and the
   op's arguments. Call the inner op with other inputs, or change its result: roundings stay.
3. If an op needs what an earlier op saw, keep it in a `Memory`.
4. Add the entry: number, name, sentence, link, first tensor, which configs it can occur in, and a
   variant for every constant or form that was seen, and a `Constant` where any value may occur.
5. A defect of training is a `GradientDefect` of a file of `verify/defects/gradients/`. It alters a
   `GradientVariant`, and says whether the value of the loss changes.
6. Print this page anew, and [power.md](power.md): `tests/verify/defects_test.cpp` compares page and
   catalogue, runs every variant over the bundled samples, and checks that it differs first where it
   says.
7. If nothing can show it, add it to `verify/defects/excluded.cpp` with the reason.
)md";

struct Family {
  const char* title;
  std::vector<Defect> (*defects)();
};

constexpr Family families[] = {
    {"Lightning indexer", indexer_defects},
    {"Selection", selection_defects},
    {"MLA", mla_defects},
    {"Rotary embedding", rope_defects},
    {"Router", router_defects},
    {"Norms", norm_defects},
    {"FP8", fp8_defects},
    {"Block", block_defects},
    {"Weights", weight_defects},
};

struct TrainingFamily {
  const char* title;
  std::vector<GradientDefects (*)()> defects;
};

const TrainingFamily training_families[] = {
    {"The token that a row predicts, and the rows that count", {target_defects}},
    {"Readings of the indexer's loss", {reading_defects}},
    {"The indexer's loss: formula and rows", {kl_defects}},
    {"The indexer's loss: teacher", {teacher_defects, attached_teacher_defects}},
    {"The indexer backwards", {indexer_gradient_defects}},
    {"Attention backwards", {attention_gradient_defects, attention_key_defects}},
    {"Modules backwards", {module_defects}},
    {"Experts backwards", {expert_defects}},
    {"Flow and counts", {flow_defects}},
};

/// "[owner/name#5](https://github.com/owner/name/issues/5)"
std::string link_to(const std::string& link) {
  if (link.empty()) return "";
  std::string shown = link.substr(link.find(".com/") + 5);
  if (const auto at = shown.find("/issues/"); at != std::string::npos) shown.replace(at, 8, "#");
  if (const auto at = shown.find("/commit/"); at != std::string::npos) shown.replace(at, 8, "@");
  return fmt::format("[{}]({})", shown, link);
}

std::string variants_of(const Defect& defect) {
  std::string text;
  const auto add = [&](const std::string& part) {
    if (!part.empty()) text += (text.empty() ? "" : "; ") + part;
  };
  for (const DefectVariant& variant : defect.variants) add(variant.name);
  if (defect.constant) add("fitted " + defect.constant->name);
  if (defect.more) add("more");
  if (defect.convention) add("convention");
  return text;
}

std::string variants_of(const GradientDefect& defect) {
  std::string text;
  const auto add = [&](const std::string& part) {
    if (!part.empty()) text += (text.empty() ? "" : "; ") + part;
  };
  for (const GradientChange& change : defect.variants) add(change.name);
  if (defect.more) add("more");
  if (defect.convention) add("convention");
  return text;
}

std::string training_page() {
  std::string page = of_training;
  for (const TrainingFamily& family : training_families) {
    page += fmt::format(
        "## {}\n\n| # | name | what is wrong | report | first departure | variants |\n"
        "|---|---|---|---|---|---|\n",
        family.title);
    for (const auto defects : family.defects)
      for (const GradientDefect& d : defects())
        page += fmt::format("| {} | `{}` | {} | {} | `{}` | {} |\n", d.number, d.name, d.sentence,
                            link_to(d.link), d.first, variants_of(d));
    page += "\n";
  }
  return page;
}

}  // namespace

std::string catalogue_page() {
  std::string page = "<!-- Generated: `dsa-verify defects > docs/defects.md`. -->\n";
  page += introduction;
  for (const Family& family : families) {
    page += fmt::format(
        "## {}\n\n| # | name | what is wrong | report | first tensor | variants |\n"
        "|---|---|---|---|---|---|\n",
        family.title);
    std::vector<Defect> defects = family.defects();
    std::stable_sort(defects.begin(), defects.end(),
                     [](const Defect& a, const Defect& b) { return a.number < b.number; });
    for (const Defect& d : defects)
      page += fmt::format("| {} | `{}` | {} | {} | `{}` | {} |\n", d.number, d.name, d.sentence,
                          link_to(d.link), d.first, variants_of(d));
    page += "\n";
  }
  page += training_page();
  page += "## Left out\n\n| # | what is wrong | why no variant shows it |\n|---|---|---|\n";
  for (const Excluded& each : excluded_defects())
    page += fmt::format("| {} | {} | {} |\n", each.number, each.sentence, each.reason);
  return page + "\n" + adding;
}

}  // namespace dsa::verify
