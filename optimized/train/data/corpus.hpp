// optimized/train/data/corpus.hpp — files as numbered documents of at most S tokens.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "optimized/train/data/document.hpp"
#include "optimized/train/data/tokens.hpp"

namespace dsa::train {

class Corpus {
 public:
  virtual ~Corpus() = default;
  virtual Index size() const = 0;  // documents
  virtual Document document(Index i) const = 0;
  const std::string& sha256() const { return sha256_; }  // of the files, one after the other

 protected:
  std::string sha256_;
};

/// How files are read: `kind` is
///   text   plain text files; each is cut into documents of S tokens
///   jsonl  {"text": ...} a line; a text longer than S tokens becomes several documents
///   chat   {"messages": [{"role", "content"}, ...]} a line, or "conversations" of role/content or
///          from/value (system, human or user, gpt or assistant); a message with "train": false is
///          context. What is beyond S tokens is left out
///   bin    shards of llm.c: 256 int32, of them magic 20240520, version 1 and the number of tokens,
///          then uint16 tokens; cut into documents of S tokens, and at the separator
struct Reading {
  std::string kind;
  Index seq = 0;         // S
  Index vocab_size = 0;  // every token is below it
  Index separator = -1;  // bin
};

/// `pattern`: a file, or names with * and ? in the last part of the path; in order of their names.
/// Errors name file and line: no such file, a line that is no such object, an empty corpus, a token
/// beyond the vocabulary.
std::unique_ptr<Corpus> open_corpus(const std::string& pattern, const Reading&, const TextTokens&);

/// The files that a pattern names.
std::vector<std::filesystem::path> files_of(const std::string& pattern);

}  // namespace dsa::train
