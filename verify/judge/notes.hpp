// verify/judge/notes.hpp — remarks beside a judgement: nothing of them decides.
#pragma once

#include <string>
#include <vector>

#include "verify/judge/rows.hpp"
#include "verify/runs/models.hpp"

namespace dsa::verify {

/// The emulated precision, to nearest: how much of the difference it explains.
std::string emulation_note(const ModelPair&, const Recording& side,
                           const std::vector<SequenceResult>&);

/// The reference in long double against itself in double, decisions held.
std::string own_error_note(const Model&, const Sequence&, const Run& base);

/// Which tensors of the file the reference does not know; empty if none.
std::string unknown_tensors_note(const Recording& side, const std::vector<TensorResult>& judged);

/// Whether rows depart in prompts of more than index_topk tokens only, and from rows on that see no
/// more than these, or in shorter prompts only: another path for them. Empty where it is not so,
/// and where all prompts are short, or long, or one holds several documents.
std::string lengths_note(const LogitsResult&, const std::vector<Sequence>&, Index topk);

}  // namespace dsa::verify
