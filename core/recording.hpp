// core/recording.hpp — token ids, with the logits and traces that an implementation computed.
//
// Two formats, both read and written:
//   safetensors   tokens (B,S) or (S); logits.fp64|fp32|bf16, or logits (B,S,V); attention_mask
//                 (B,S); traces under HuggingFace module names, of the first sequence; the text
//                 of a single sequence as "text" of the metadata. See data/README.md.
//   JSON lines    MaxText's: {"prompt", "tokens", "logits", optional "formatted_prompt"} a line.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "core/trace.hpp"

namespace dsa {

using Token = std::int64_t;

/// Tokens in order, with what makes a key visible to a query: same document, not later.
struct Sequence {
  std::vector<Token> tokens;
  std::vector<Index> positions;  // of the rotary embedding
  std::vector<Index> documents;  // -1: padding, which sees nothing and is seen by nobody
  Index size() const { return static_cast<Index>(tokens.size()); }
};

/// One document, positions from 0.
Sequence plain_sequence(std::vector<Token> tokens);

/// attention_mask of zeros and ones: zeros are padding on either side, positions count ones.
Sequence masked_sequence(std::vector<Token> tokens, const std::vector<Index>& attention_mask);

/// Several documents one after the other; positions restart with each.
Sequence packed_sequence(const std::vector<std::vector<Token>>& documents);

/// Every id is in [0, vocab_size), or merely not negative where vocab_size is 0 (unknown); the
/// Error begins with `what`.
void check_tokens(const std::vector<Token>&, Index vocab_size, const std::string& what);

/// What an implementation computed: a golden, a candidate, or an answer of a backend of ours.
struct Recording {
  std::filesystem::path path = {};  // or the name of the implementation
  std::vector<Sequence> sequences = {};
  std::vector<std::string> prompts = {};       // JSON lines only
  std::vector<std::string> texts = {};  // that were tokenised, by sequence; "" or absent: not told
  std::string dtype = {};                      // of the logits: "fp64", "fp32", "bf16", "f16"
  std::vector<Tensor<double, 2>> logits = {};  // (S, V) a sequence; empty: traces only
  std::vector<std::string> columns = {};       // names that `--dtype` may have
  Trace trace = {};                            // of sequence 0, in alphabetical order
};

/// "fp32" for F32; "" for a dtype that logits are not stored in.
std::string column_name(Dtype);

/// JSON begins with a brace or a bracket. The header size of a safetensors file may begin with the
/// same byte, but is below 2^32: its fourth to seventh bytes are 0, which no text contains.
bool is_json(std::span<const std::byte>);

/// Reads a golden or a candidate; the content decides the format, not the name.
/// `dtype`: which logits column ("fp64", "fp32", "bf16"); empty: the most precise.
/// `vocab_size` checks tokens and logits; 0: unchecked.
/// Tokens are checked against the width of the logits too.
Recording read_recording(const std::filesystem::path&, const std::string& dtype, Index vocab_size);

/// The same from bytes in memory, which must outlive the trace (`path` is for messages).
Recording parse_recording(std::span<const std::byte>, const std::filesystem::path&,
                          const std::string& dtype, Index vocab_size);

/// MaxText's JSON lines, fp32 values. Padding is left out; packed documents, NaN and infinities,
/// which the format cannot express, are Errors.
void write_jsonl(const std::filesystem::path&, const Recording&);

}  // namespace dsa
