// optimized/cpu/session.hpp — a checkpoint in memory, and one conversation with it.
//
//   Session session("models/v32", {});
//   View<const float, 1> logits = session.append(prompt);          // of the last token
//   while (...) logits = session.append({&next, 1});               // one token at a time
#pragma once

#include <filesystem>
#include <span>
#include <vector>

#include "optimized/cpu/forward.hpp"

namespace dsa::cpu {

struct SessionOptions {
  Format format = Format::bf16;
  Cpu cpu;
  Mla mla = Mla::automatic;
  Index chunk = 512;  // tokens of a pass, at most
  int threads = 0;    // 0: as many as OpenMP would take
  Index memory = 0;   // bytes that may be used; 0: what is available
};

class Session {
 public:
  /// Loads the model. Error: it does not fit into memory, or the checkpoint is not one.
  Session(const std::filesystem::path& checkpoint, const SessionOptions&);
  Session(const Model&, const SessionOptions&);

  const Config& config() const { return model_.config; }
  Index length() const { return cache_.rows(); }     // tokens fed
  Index largest_length() const { return largest_; }  // that memory allows

  /// Feeds the next tokens. Returns the logits (V) of the last one, which live until the next
  /// call. Error: no token, or one outside the vocabulary; more tokens than largest_length().
  View<const float, 1> append(std::span<const Token> tokens);

  /// Forgets every token.
  void clear() { cache_.clear(); }

  /// Forgets every token but the first n, of length() at most.
  void keep(Index n) { cache_.keep(n); }

 private:
  Index largest_;  // first: nothing is loaded that does not fit
  PackedModel model_;
  Workspace workspace_;
  Cache cache_;
  Tensor<float, 2> logits_;          // (1, V)
  std::vector<Index> positions_;     // of a pass
  std::vector<std::int32_t> begin_;  // zeros: one document
};

}  // namespace dsa::cpu
