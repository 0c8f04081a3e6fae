// core/kl_semantics.hpp — one trainer's reading of the indexer's loss, as data.
//
// The loss itself: reference/ops/index_kl.hpp. Trainers differ in the keys of either side, in
// guards against log 0, in reductions and in what is detached.
#pragma once

#include <string>
#include <string_view>

#include "core/json_fwd.hpp"
#include "core/recording.hpp"

namespace dsa {

/// A guard against log 0 or division by 0: x becomes max( x + added, least ).
struct Guard {
  double added = 0, least = 0;
  friend bool operator==(const Guard&, const Guard&) = default;
};

/// One trainer's reading of the indexer's loss.
struct KlSemantics {
  enum class Keys { chosen, visible };
  enum class Reduction { mean, sum };
  /// What of the indexer's input is a constant to the loss: hidden states and query latent, the
  /// latent alone, or neither. The teacher is a constant in every reading.
  enum class Detach { inputs, query_latent, nothing };

  Keys teacher_softmax = Keys::chosen;  // the keys over which each head's softmax runs
  Keys teacher_keys = Keys::chosen;     // the keys that p is restricted to
  Keys student_keys = Keys::chosen;     // the keys over which q is a softmax
  bool student_scaled = true;           // q sees scores with H^-1/2 D^-1/2, or without
  Guard l1, log_p, log_q;               // in the sum of u, under log p, under log q
  Reduction tokens = Reduction::mean;
  Reduction layers = Reduction::mean;  // over the layers that compute an index
  bool padding_counted = false;        // padding is a segment of its own, and counted
  Detach detach = Detach::inputs;

  friend bool operator==(const KlSemantics&, const KlSemantics&) = default;
};

/// "paper", "maxtext", "megatron", "hf-fork", "prime-rl", "xtuner". An unknown name is an Error
/// that lists them.
///
/// paper: the paper writes sums over tokens and layers. A reduction is a factor of the coefficient,
/// and files hold means: both are means here.
KlSemantics semantics_named(std::string_view);
std::string semantics_names();

/// The same reading in the dense warm-up: teacher and student over every visible key.
KlSemantics in_warmup(KlSemantics);

/// A reading whose teacher has keys that its student lacks has an infinite loss: an Error.
void check(const KlSemantics&);

/// One sequence of a batch as this reading sees it, before join(): where padding is counted, it
/// becomes a document of its own, at its places in the sequence.
Sequence seen_by(const KlSemantics&, Sequence sequence);

/// {"name": NAME}, and the switches that differ from it. Switches: "teacher_softmax",
/// "teacher_keys", "student_keys" ("chosen" or "visible"), "student_scaled", "l1_added",
/// "l1_least", "log_p_added", "log_p_least", "log_q_added", "log_q_least", "tokens", "layers"
/// ("mean" or "sum"), "padding_counted", "detach" ("inputs", "query_latent" or "nothing").
Json to_json(const KlSemantics&);

/// A name, or what to_json() writes. Errors are one sentence that begins with `what`.
KlSemantics parse_semantics(const Json&, const std::string& what);

}  // namespace dsa
