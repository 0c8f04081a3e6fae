// verify/defects/defect.hpp — known bugs of real implementations, as variants of the reference.
//
// A defect is a change to single rows of the reference's op table, or to the numbers an op is told
// (the config, a parameter). It is never an `if` inside reference/. The catalogue is all_defects();
// docs/defects.md prints it.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "verify/runs/variant.hpp"

namespace dsa::verify {

struct DefectVariant {
  std::string name;  // "" where there is only one; else the constant, e.g. "eps=1e-05"
  std::function<void(Variant&)> apply;
};

/// A constant that may be wrong by any amount; variants hold the values that were seen.
struct Constant {
  std::string name;                                               // "eps"
  std::function<std::pair<double, double>(const Config&)> range;  // positive, both ends included
  bool whole = false;                                             // integers only
  std::function<void(Variant&, double)> apply;
  /// What the fitted value is, in terms of the config: "sqrt(index_head_dim)"; may be empty.
  std::function<std::string(const Config&, double)> meaning = {};
};

/// Where a candidate first differs from the definition: some variants begin there.
struct Symptom {
  Index rows = 0;   // positions of the longest sequence
  Index first = 0;  // the first position that differs
};

struct Defect {
  int number = 0;        // in docs/defects.md; above 200: plausible, not reported
  std::string name;      // "indexer-rope-interleaved": unique, stable, for scripts
  std::string sentence;  // what is wrong, in one sentence
  std::string link;      // a report of it in the wild; empty where there is none
  std::string first;     // the first tensor that diverges, by its trace name within a layer:
                         // "self_attn.indexer.q", "mlp.gate.weights", "model.norm"
  std::function<bool(const Config&)> applies;  // false: cannot occur in this model
  std::vector<DefectVariant> variants;
  std::optional<Constant> constant = {};
  /// Further variants, tried where none of the catalogue explains the candidate.
  std::function<std::vector<DefectVariant>(const Config&, const Symptom&)> more = {};
  /// Not a mistake: implementations differ by right, and the sentence says who does which.
  bool convention = false;
};

/// Why a defect of the gallery is not in the catalogue.
struct Excluded {
  int number = 0;
  std::string sentence;  // what the defect is
  std::string reason;  // "positive factors do not change a top-k and ...": why nothing could see it
};

/// One function a family, one file each in verify/defects/.
std::vector<Defect> indexer_defects();
std::vector<Defect> selection_defects();
std::vector<Defect> mla_defects();
std::vector<Defect> rope_defects();
std::vector<Defect> router_defects();
std::vector<Defect> norm_defects();
std::vector<Defect> fp8_defects();
std::vector<Defect> block_defects();
std::vector<Defect> weight_defects();

/// Defect 115, of no catalogue: one module has the weights of `other`, a checkpoint of the same
/// shapes such as the base of an adapter, in every layer or in one.
Defect other_weights_defect(const Model& other, const Config&);

/// All of them, in order of number; numbers may repeat (one report, several distinct mistakes),
/// names may not.
std::span<const Defect> all_defects();
std::span<const Excluded> excluded_defects();

}  // namespace dsa::verify
