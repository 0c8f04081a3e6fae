// optimized/train/data/synthetic.hpp — tasks that need a key from far back, made from a seed.
//
// The vocabulary is that of bytes, so that text may be trained beside: fillers are the letters a to
// z, keys the ids from 128, values the ids behind the keys, and 1 asks for a copy.
//
//   copy     values ... 1 the same values              answers: those behind the 1
//   recall   key values, pair after pair; then          answers: the values behind each asked key
//            keys that are asked for, with values
//   needle   the same, the pairs scattered in filler    answers: likewise
//            among pairs that are never asked for
//   lookup   values scattered in filler, each of its    answers: the value behind each asked key
//            own key's class; then keys that are asked for
//
// A value's class is its number modulo `keys`. So lookup needs attention by content alone, which is
// learned early; recall binds a key to a value in the document, which is learned late.
//
//
// A distance is that of an answer's first token to what it repeats. Distances fall into classes of
// `bucket` neighbours; every held_out-th class is left to evaluation, all others to training.
// Filler before a question brings its distance into the right class.
#pragma once

#include <cstdint>
#include <string>

#include "optimized/train/data/document.hpp"

namespace dsa::train {

struct Task {
  enum class Kind { copy, recall, needle, lookup };

  Kind kind = Kind::recall;
  Index keys = 64, values = 64;  // different ones
  Index value_length = 1;
  Index pairs = 2;        // that are asked for; copy: tokens copied
  Index queries = 0;      // of a training document; 0: as many as pairs
  Index distractors = 0;  // needle, lookup: pairs that are never asked for
  Index length = 0;       // needle, lookup: tokens of a document
  Index bucket = 8, held_out = 4;
};

Task::Kind task_named(const std::string&);  // "copy", ...; an Error lists them

/// Errors: more pairs than keys, ids beyond the vocabulary, a document longer than `most` tokens.
void check(const Task&, Index vocab_size, Index most);

/// Whether answers at this distance are evaluation's.
bool is_held_out(const Task&, Index distance);

/// The i-th document of (seed); `evaluation`: every pair is asked once, at distances that training
/// never has.
Document make_document(const Task&, std::uint64_t seed, std::uint64_t i, bool evaluation);

/// Upper bound of a document's length.
Index longest(const Task&);

}  // namespace dsa::train
