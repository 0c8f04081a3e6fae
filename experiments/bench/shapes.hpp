// experiments/bench/shapes.hpp — problems of the sizes that matter for speed.
//
// Shapes of bench-mid (data/make_wide.cpp): a chunk of a prefill, and one token decoded. They have
// inputs but no answer, which would take the reference minutes: a kernel is judged on the suite of
// its op before it is timed.
#pragma once

#include <vector>

#include "verify/kernels/op.hpp"

namespace dsa::bench {

struct Shape {
  std::string op, label;  // "indexer_topk", "T256_S16384"
  std::function<verify::kernels::Case(const std::string& dtype)> pose;
};

/// Every op, prefill before decoding.
std::vector<Shape> bench_mid_shapes();

/// indexer_topk, mla_sparse or mla_dense: the last T queries of a context of S.
verify::kernels::Case chunk_case(const std::string& op, const std::string& dtype, Index T, Index S);

}  // namespace dsa::bench
