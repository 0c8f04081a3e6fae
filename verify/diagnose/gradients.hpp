// verify/diagnose/gradients.hpp — which known defect of training explains somebody's gradients.
//
// A loss that departs is computed anew with every known defect of training
// (verify/defects/gradients/), in double. What its value excludes is not run backwards. The nearest
// are held against the candidate by limits of perturbed runs with the defect in them: a defect
// explains a loss if value and gradients lie within them, and if the definition's do not.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/json.hpp"
#include "verify/gradients/judge.hpp"

namespace dsa::verify {

/// One variant of one defect, and what became of it.
struct RankedGradients {
  std::string loss;  // "kl"
  int number = 0;
  std::string name, variant, sentence, link, first;
  bool convention = false;
  double distance = 0;  // what remains: see GradientSearch
  bool tried = false;   // held against the candidate
  bool explained = false;
  double worst_over_allowed = 0;  // where tried; NaN elsewhere
};

struct GradientDiagnosis {
  std::string checkpoint, golden, candidate, precision;
  std::string conclusion;  // "correct", "defect", "convention" or "unknown"
  std::string why;
  std::vector<int> defects, also;        // as in Diagnosis
  std::vector<RankedGradients> ranking;  // loss by loss; explained ones first, then by what remains
  std::vector<std::pair<std::string, double>> before;  // (loss, distance from the definition)
  Index variants = 0;                                  // how many were run
  GradientVerdict plain;                               // the candidate against the definition
  Receipt receipt;
};

/// `golden` tells the stage of training; empty: the candidate's own losses do. Error: bad input.
GradientDiagnosis diagnose_gradients(const std::filesystem::path& checkpoint,
                                     const std::filesystem::path& golden,
                                     const std::filesystem::path& candidate,
                                     const GradientOptions&);

/// A safetensors file with losses or gradients in it, not logits or a trace.
bool holds_gradients(const std::filesystem::path&);

std::string table(const GradientDiagnosis&, bool colour);
Json to_json(const GradientDiagnosis&);
std::string to_html(const GradientDiagnosis&);
int exit_code(const GradientDiagnosis&);

}  // namespace dsa::verify
