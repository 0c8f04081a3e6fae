// verify/runs/implementation.hpp — an implementation of the model as a function of tokens.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/recording.hpp"
#include "verify/runs/variant.hpp"

namespace dsa::verify {

/// What its functions return: logits and their dtype; tokens are the caller's.
struct Implementation {
  std::string name;  // "reference", "cpu (bf16, avx512)", or the command
  /// A batch of sequences of one length, in one go. Rows of padding mean nothing.
  std::function<Recording(const std::vector<Sequence>&)> run;
  /// One sequence through a cache, in chunks that end at `ends`. Empty: it has no cache.
  std::function<Recording(const Sequence&, const std::vector<Index>& ends)> run_in_chunks;
  /// As `run`, with the trace of the first sequence. Empty: it cannot trace.
  std::function<Recording(const std::vector<Sequence>&)> run_traced;
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

/// Runs the implementation on the golden's tokens: its logits, and its trace where it has one.
Recording answered(const Implementation&, const Recording& golden);

}  // namespace dsa::verify
