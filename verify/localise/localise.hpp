// verify/localise/localise.hpp — which ops of somebody's implementation are wrong by themselves.
//
// A wrong op spoils everything behind it. So the reference is run once more with the other side's
// tensors put in place of its own wherever the trace tells them (verify/localise/graft.hpp): every
// op is then fed what the other side fed it, and a tensor that still departs is made wrong, not
// merely from something wrong. Limits come from perturbed runs that are grafted alike.
// docs/localise.md.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/json.hpp"
#include "verify/judge/against_definition.hpp"

namespace dsa::verify {

/// A tensor that departs although what it was made from is the other side's.
struct FaultyOp {
  TensorResult tensor;
  /// The ops, named by their tensors, that lie between it and what the trace tells: itself, and
  /// before it whatever the trace leaves out. One of them is wrong, or several. In order. In the
  /// backward pass: those whose backward lies there.
  std::vector<std::string> ops;
};

/// What grafting found.
struct Grafted {
  std::vector<FaultyOp> wrong;  // in order of execution
  /// Told but not judged: made from numbers that are not finite, or hanging on decisions that
  /// rounding may turn and the trace does not tell.
  std::vector<std::string> unjudged;
  std::vector<std::string> undecided;  // these decisions
};

struct Localisation {
  std::string checkpoint, candidate, precision;
  Outcome outcome = Outcome::inconclusive;  // pass: nothing departs
  std::string why;
  std::optional<std::string> first_departure;
  Judgement plain;  // without grafting
  Grafted grafted;
  std::vector<std::string> inherited;  // depart in the plain judgement only
  std::vector<std::string> dump_next;  // tensors that would narrow it down
  std::vector<std::string> unmapped;   // of the file; the reference has none of that name
  Receipt receipt;
};

/// The tensors of side's trace that are wrong by themselves. Where the side has logits but no
/// lm_head, they are that.
Grafted graft(const ModelPair&, const Recording& side, const JudgeOptions&);

/// The ops that rows of logits leave under suspicion, by how many keys the first departing row
/// sees; all of them where none departs. `executed`: names, in order. Fills `why`, a sentence.
std::vector<std::string> suspects(const Judgement& plain, const std::vector<Sequence>&,
                                  const Config&, const std::vector<std::string>& executed,
                                  std::string& why);

/// A candidate that holds "d.NAME" is localised in the backward pass
/// (verify/localise/backward.hpp); `forward`: the forward trace of the same run, where it is a file
/// of its own. Error: bad input.
Localisation localise(const std::filesystem::path& checkpoint,
                      const std::filesystem::path& candidate, const JudgeOptions&,
                      const std::filesystem::path& forward = {});

std::string table(const Localisation&, bool colour);
Json to_json(const Localisation&);

}  // namespace dsa::verify
