// optimized/cpu/ops/heads_blocks.hpp — attention in training by blocks of queries and keys, of some
// documents: over every visible key, or over those that a mask leaves.
#pragma once

#include "optimized/cpu/ops/documents.hpp"
#include "optimized/cpu/ops/heads_attention.hpp"

namespace dsa::cpu {

/// Bit j of words[t * row + p]: row t sees key 64 p + j of its document. No words: it sees all that
/// is visible.
struct KeyMask {
  const std::uint64_t* words = nullptr;
  Index row = 0;
};

void attend_blocks(Cpu, const HeadsOut&, const HeadsIn&, std::vector<KeyRange> documents, KeyMask,
                   TrainMemory&);
void differentiate_blocks(Cpu, const HeadsGradient&, const HeadsIn&, const HeadsResult&,
                          std::vector<KeyRange> documents, KeyMask, TrainMemory&);

/// Error: shapes disagree.
void expect_heads(const HeadsIn&);
void expect_heads(const HeadsIn&, const HeadsOut&);
void expect_heads(const HeadsIn&, const HeadsResult&, const HeadsGradient&);

}  // namespace dsa::cpu
