// verify/runs/implementation.hpp — somebody's model as a function of tokens, whoever computes it.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/recording.hpp"
#include "core/trace.hpp"
#include "verify/runs/variant.hpp"

namespace dsa::verify {

/// What one call computed.
struct Said {
  std::vector<Tensor<double, 2>> logits;  // (S, V) a sequence
  std::string dtype;                      // they came in: "fp64", "fp32", "bf16" or "f16"
};

struct Implementation {
  std::string name;  // "reference", "cpu (bf16, avx512)", or the command
  /// A batch of sequences of one length, in one go. Rows of padding mean nothing.
  std::function<Said(const std::vector<Sequence>&)> run;
  /// One sequence through a cache, in chunks that end at `ends`. Empty: cannot be asked for.
  std::function<Said(const Sequence&, const std::vector<Index>& ends)> run_in_chunks;
  /// As `run`, with tensors and decisions of the first sequence. Empty: cannot be asked for.
  std::function<Said(const std::vector<Sequence>&, Trace&)> run_traced;
  bool in_process = false;  // a call is cheap, and a sequence may hold several documents
  /// The reference, or a variant of it: what happens inside can be seen. Empty: a command.
  std::optional<Variant> ours;
};

/// `small`: passes run on one thread each, which is faster than waiting for others.
Implementation reference_implementation(Variant, bool small);

/// A command of the user's, run through /bin/sh once a call. docs/invariants.md is the protocol:
/// {in}, {out} and {chunks} in it are replaced; {in} and {out} are appended where absent.
/// Errors: the command fails, writes nothing, or what it writes is not logits (B, S, vocab_size).
Implementation command_implementation(const std::string& command, Index vocab_size);

/// What the implementation makes of a golden's tokens, as if read from a file: logits, and the
/// trace where there is one.
Recording answered(const Implementation&, const Recording&);

}  // namespace dsa::verify
