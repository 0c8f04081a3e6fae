// optimized/cpu/ops/heads_blocks.hpp — attention in training by blocks of queries and keys, of some
// documents: over every visible key, or over those that a mask leaves.
#pragma once

#include "optimized/cpu/ops/documents.hpp"
#include "optimized/cpu/ops/heads_attention.hpp"

namespace dsa::cpu {

/// Bit j of words[i * row + p]: query i sees key 64 p + j of its document. No words: it sees all
/// that is visible.
struct KeyMask {
  const std::uint64_t* words = nullptr;
  Index row = 0;
};

void attend_blocks(Cpu, const HeadsOut&, const HeadsIn&, std::vector<KeyRange> documents, KeyMask,
                   TrainMemory&);
void differentiate_blocks(Cpu, const HeadsGradient&, const HeadsIn&, const HeadsResult&,
                          std::vector<KeyRange> documents, KeyMask, TrainMemory&);

/// As far as there are keys of it; empty where there is none.
inline KeyRange with_keys(KeyRange document, const HeadsIn& in) {
  return {document.begin, std::min(document.end, in.k.shape[0])};
}
/// Those that have keys.
std::vector<KeyRange> documents_of(const HeadsIn&);

/// Error: shapes disagree.
void expect_heads(const HeadsIn&);
void expect_heads(const HeadsIn&, const HeadsOut&);
void expect_heads(const HeadsIn&, const HeadsResult&, const HeadsGradient&);

}  // namespace dsa::cpu
