// verify/kernels/peers/peer_layouts.hpp — cases as other people's kernels are called with them, and
// what those answer as ours: `dsa-verify ops --layout`.
//
// Heads and channels for which a kernel has no shape are filled up with zeros, which change no sum,
// so that it is judged on all cases that it can take.
#pragma once

#include "verify/kernels/op.hpp"

namespace dsa::verify::kernels {

struct PeerLayout {
  std::string_view name, op;  // "flashmla", and the op that it has a kernel for
  /// Why the case is beyond the kernel, one sentence; empty where it is not.
  std::string (*refuses)(const Case&);
  Arrays (*inputs)(const Case&);
  Arrays (*outputs)(const Case&);  // types and shapes; zeros
  /// Error: an output is missing or has another shape.
  Arrays (*ours)(const Case&, const Arrays& theirs);
};

/// flashmla: sparse prefill of bf16, sparse decoding over a paged FP8 cache. tilelang: the sparse
/// MLA of its examples, of bf16. deepgemm: index scores over e4m3 keys, contiguous and paged.
/// Error: lists the names.
const PeerLayout& peer_layout_named(const std::string&);

}  // namespace dsa::verify::kernels
