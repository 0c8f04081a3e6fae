#include "optimized/train/data/corpus.hpp"

#include <fnmatch.h>

#include <algorithm>
#include <cstring>

#include "core/check.hpp"
#include "core/file.hpp"
#include "core/json.hpp"
#include "core/sha256.hpp"
#include "optimized/train/data/chat_lines.hpp"

namespace dsa::train {
namespace {

namespace fs = std::filesystem;

/// Documents one after the other in memory.
class InMemory : public Corpus {
 public:
  Index size() const override { return static_cast<Index>(begin_.size()) - 1; }

  Document document(Index i) const override {
    const auto at = static_cast<std::size_t>(i);
    Document document;
    for (std::size_t t = begin_[at]; t < begin_[at + 1]; ++t)
      document.put(tokens_[t], !answer_.empty() && answer_[t] != 0);
    return document;
  }

  void add(const std::vector<Token>& tokens, Index seq) {
    for (std::size_t t = 0; t < tokens.size(); ++t) {
      if (t > 0 && t % static_cast<std::size_t>(seq) == 0) begin_.push_back(tokens_.size());
      tokens_.push_back(static_cast<std::int32_t>(tokens[t]));
    }
    if (!tokens.empty()) begin_.push_back(tokens_.size());
  }

  void add(Document document, Index seq) {
    const auto n = static_cast<std::size_t>(std::min(seq, document.size()));
    if (n == 0) return;
    tokens_.insert(tokens_.end(), document.tokens.begin(),
                   document.tokens.begin() + static_cast<std::ptrdiff_t>(n));
    answer_.insert(answer_.end(), document.answer.begin(),
                   document.answer.begin() + static_cast<std::ptrdiff_t>(n));
    begin_.push_back(tokens_.size());
  }

  void set_sha256(std::string hash) { sha256_ = std::move(hash); }

 private:
  std::vector<std::int32_t> tokens_;
  std::vector<std::uint8_t> answer_;  // empty: nothing is one
  std::vector<std::size_t> begin_ = {0};
};

/// Mapped shards of llm.c.
class Shards : public Corpus {
 public:
  Shards(const std::vector<fs::path>& files, const Reading& reading, std::string hash) {
    sha256_ = std::move(hash);
    for (const fs::path& file : files) open(file, reading);
  }

  Index size() const override { return static_cast<Index>(pieces_.size()); }

  Document document(Index i) const override {
    const Piece& piece = pieces_[static_cast<std::size_t>(i)];
    Document document;
    for (Index t = 0; t < piece.length; ++t)
      document.put(token(shards_[piece.shard]->bytes(), piece.begin + t));
    return document;
  }

 private:
  struct Piece {
    std::size_t shard = 0;
    Index begin = 0, length = 0;
  };
  static constexpr std::size_t header = 1024;

  static Token token(std::span<const std::byte> bytes, Index t) {
    std::uint16_t x = 0;
    std::memcpy(&x, bytes.data() + header + 2 * static_cast<std::size_t>(t), sizeof x);
    return x;
  }

  void open(const fs::path& file, const Reading& reading) {
    const auto mapped = MappedFile::open(file);
    const auto bytes = mapped->bytes();
    std::int32_t head[3] = {};
    if (bytes.size() >= header) std::memcpy(head, bytes.data(), sizeof head);
    require(head[0] == 20240520 && head[1] == 1,
            file.string() +
                " is no shard of llm.c: expected a header of 1024 bytes with magic "
                "20240520 and version 1");
    const Index tokens = head[2];
    require(tokens >= 0 && bytes.size() == header + 2 * static_cast<std::size_t>(tokens),
            file.string() + " says that it holds " + std::to_string(tokens) + " tokens, but has " +
                std::to_string((bytes.size() - header) / 2) + "; it was cut short");
    shards_.push_back(mapped);
    cut(file, tokens, reading);
  }

  void cut(const fs::path& file, Index tokens, const Reading& reading) {
    Index begin = 0;
    const auto end_piece = [&](Index end) {
      if (end > begin) pieces_.push_back({shards_.size() - 1, begin, end - begin});
      begin = end;
    };
    for (Index t = 0; t < tokens; ++t) {
      const Token x = token(shards_.back()->bytes(), t);
      require(x < reading.vocab_size, file.string() + ": token " + std::to_string(t) + " is " +
                                          std::to_string(x) + ", but vocab_size is " +
                                          std::to_string(reading.vocab_size));
      if (t - begin == reading.seq || x == reading.separator) end_piece(t);
    }
    end_piece(tokens);
  }

  std::vector<std::shared_ptr<const MappedFile>> shards_;
  std::vector<Piece> pieces_;
};

/// Calls f(text of the line, "FILE:LINE") for every line that is not blank.
template <class F>
void for_each_line(const fs::path& file, F&& f) {
  const std::string all = read_text(file);
  Index number = 0;
  for (std::size_t begin = 0; begin < all.size();) {
    const std::size_t end = std::min(all.find('\n', begin), all.size());
    const std::string line = all.substr(begin, end - begin);
    ++number;
    if (line.find_first_not_of(" \t\r") != line.npos)
      f(line, file.string() + ":" + std::to_string(number));
    begin = end + 1;
  }
}

void read_file(InMemory& corpus, const fs::path& file, const Reading& reading,
               const TextTokens& tokens) {
  if (reading.kind == "text") return corpus.add(tokens.encode(read_text(file)), reading.seq);
  for_each_line(file, [&](const std::string& line, const std::string& what) {
    const Json json = parse_json(line, what);
    if (reading.kind == "chat")
      return corpus.add(tokens.conversation(turns_of(json, what), what), reading.seq);
    require(json.is_object() && json.contains("text") && json["text"].is_string(),
            what + " has no \"text\", expected {\"text\": \"...\"}; messages are read by chat:");
    corpus.add(tokens.encode(json["text"].get<std::string>()), reading.seq);
  });
}

}  // namespace

std::vector<fs::path> files_of(const std::string& pattern) {
  const fs::path path(pattern);
  std::vector<fs::path> files;
  if (fs::is_regular_file(path)) return {path};
  const fs::path directory = path.has_parent_path() ? path.parent_path() : fs::path(".");
  if (fs::is_directory(directory))
    for (const auto& entry : fs::directory_iterator(directory))
      if (entry.is_regular_file() &&
          fnmatch(path.filename().c_str(), entry.path().filename().c_str(), FNM_PERIOD) == 0)
        files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  require(!files.empty(), "there is no file " + pattern + "; give a file, or names with * and ?");
  return files;
}

std::unique_ptr<Corpus> open_corpus(const std::string& pattern, const Reading& reading,
                                    const TextTokens& tokens) {
  const std::vector<fs::path> files = files_of(pattern);
  std::string hashes;
  for (const fs::path& file : files) hashes += sha256_of_file(file);
  const std::string hash = sha256(std::as_bytes(std::span(hashes)));
  std::unique_ptr<Corpus> corpus;
  if (reading.kind == "bin") {
    corpus = std::make_unique<Shards>(files, reading, hash);
  } else {
    require(tokens.vocab_size() <= reading.vocab_size,
            "the tokenizer has " + std::to_string(tokens.vocab_size()) +
                " tokens, but vocab_size is " + std::to_string(reading.vocab_size));
    auto in_memory = std::make_unique<InMemory>();
    for (const fs::path& file : files) read_file(*in_memory, file, reading, tokens);
    in_memory->set_sha256(hash);
    corpus = std::move(in_memory);
  }
  require(corpus->size() > 0, pattern + " holds no document; there is nothing to train on");
  return corpus;
}

}  // namespace dsa::train
