// optimized/shared/recall.hpp — how well a selection finds what dense attention looks at.
#pragma once

#include "core/tensor.hpp"

namespace dsa {

/// Of the teacher's mass (over every visible key), the share that lies on the K chosen keys, and on
/// as many others. Means over the rows with more than 4 K visible keys.
struct Recall {
  Index rows = 0;
  double indexer = 0, random = 0, recent = 0, oracle = 0;
  double teacher_entropy = 0;  // nats
  double dead = 0;             // share of (row, key, head) whose ReLU is 0
  /// The share of the visible keys that holds 90, 95 or 99 % of the mass: keys are taken in the
  /// indexer's order, or by their mass.
  double indexer_keys_90 = 0, indexer_keys_95 = 0, indexer_keys_99 = 0;
  double oracle_keys_90 = 0, oracle_keys_95 = 0, oracle_keys_99 = 0;
};

/// A mean of a Recall, and what reports call it.
struct RecallMean {
  const char* name;
  double Recall::*value;
};

inline constexpr RecallMean recall_means[] = {
    {"indexer", &Recall::indexer},
    {"random", &Recall::random},
    {"recent", &Recall::recent},
    {"oracle", &Recall::oracle},
    {"teacher_entropy", &Recall::teacher_entropy},
    {"dead", &Recall::dead},
    {"indexer_keys_90", &Recall::indexer_keys_90},
    {"indexer_keys_95", &Recall::indexer_keys_95},
    {"indexer_keys_99", &Recall::indexer_keys_99},
    {"oracle_keys_90", &Recall::oracle_keys_90},
    {"oracle_keys_95", &Recall::oracle_keys_95},
    {"oracle_keys_99", &Recall::oracle_keys_99},
};

}  // namespace dsa
