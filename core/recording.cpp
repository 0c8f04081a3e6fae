#include "core/recording.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "core/recording_jsonl.hpp"
#include "core/trace_names.hpp"

namespace dsa {
namespace {

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text.empty() ? "none" : text;
}

/// masked_sequence; Errors begin with `what`.
Sequence masked(std::vector<Token> tokens, const std::vector<Index>& mask,
                const std::string& what) {
  require(!tokens.empty(), what + " is an empty sequence, expected at least one token");
  require(mask.size() == tokens.size(),
          fmt::format("{} has {} mask values for {} tokens, expected one each", what, mask.size(),
                      tokens.size()));
  Sequence sequence;
  Index ones = 0;
  for (const Index bit : mask) {
    if (bit != 0 && bit != 1)
      throw Error(fmt::format("{} has the mask value {}, expected 0 or 1", what, bit));
    sequence.positions.push_back(bit == 1 ? ones : 0);
    sequence.documents.push_back(bit - 1);
    ones += bit;
  }
  require(ones > 0, what + " is nothing but padding, expected at least one token");
  sequence.tokens = std::move(tokens);
  return sequence;
}

}  // namespace

Sequence plain_sequence(std::vector<Token> tokens) {
  const std::vector<Index> mask(tokens.size(), 1);
  return masked(std::move(tokens), mask, "the sequence");
}

Sequence masked_sequence(std::vector<Token> tokens, const std::vector<Index>& attention_mask) {
  return masked(std::move(tokens), attention_mask, "the sequence");
}

Sequence packed_sequence(const std::vector<std::vector<Token>>& documents) {
  Sequence all;
  for (std::size_t i = 0; i < documents.size(); ++i) {
    require(
        !documents[i].empty(),
        fmt::format("document {} of the packed sequence is empty, expected at least one token", i));
    for (std::size_t position = 0; position < documents[i].size(); ++position) {
      all.tokens.push_back(documents[i][position]);
      all.positions.push_back(static_cast<Index>(position));
      all.documents.push_back(static_cast<Index>(i));
    }
  }
  require(!all.tokens.empty(), "the packed sequence has no documents, expected at least one");
  return all;
}

void check_tokens(const std::vector<Token>& tokens, Index vocab_size, const std::string& what) {
  for (std::size_t i = 0; i < tokens.size(); ++i)
    if (tokens[i] < 0 || (vocab_size != 0 && tokens[i] >= vocab_size))
      throw Error(fmt::format(
          "{} has token id {} at position {}, expected {}", what, tokens[i], i,
          vocab_size == 0
              ? "no negative one"
              : fmt::format("0 to {}; it was made with another tokenizer", vocab_size - 1)));
}

std::string column_name(Dtype dtype) {
  switch (dtype) {
    case Dtype::f64:
      return "fp64";
    case Dtype::f32:
      return "fp32";
    case Dtype::bf16:
      return "bf16";
    case Dtype::f16:
      return "f16";
    default:
      return "";
  }
}

namespace {

bool is_integer(Dtype dtype) {
  switch (dtype) {
    case Dtype::u8:
    case Dtype::i8:
    case Dtype::u16:
    case Dtype::i16:
    case Dtype::u32:
    case Dtype::i32:
    case Dtype::u64:
    case Dtype::i64:
      return true;
    default:
      return false;
  }
}

/// A golden in the safetensors format, read step by step.
class Reader {
 public:
  /// `memory` keeps the bytes alive; null: the caller does.
  Reader(const SafetensorsFile& file, std::shared_ptr<const void> memory, Index vocab_size)
      : file_(file),
        memory_(std::move(memory)),
        name_(file.path().string()),
        vocab_size_(vocab_size) {}

  Recording read(const std::string& dtype) {
    Recording golden;
    golden.path = file_.path();
    read_tokens();
    find_columns(golden);
    read_logits(golden, dtype);
    make_sequences(golden);
    if (const auto text = file_.metadata().find("text"); text != file_.metadata().end() && B_ == 1)
      golden.texts = {text->second};
    std::vector<StoredTensor> traced;
    for (const StoredTensor& tensor : file_.tensors())
      if (tensor.name != "tokens" && tensor.name != "attention_mask" && tensor.name != "logits" &&
          !tensor.name.starts_with("logits.") && tensor.dtype != Dtype::boolean)
        traced.push_back(tensor);
    std::sort(traced.begin(), traced.end(),
              [](const StoredTensor& a, const StoredTensor& b) { return a.name < b.name; });
    for (StoredTensor& tensor : traced) golden.trace.put({std::move(tensor), memory_});
    return golden;
  }

 private:
  struct Column {
    std::string dtype;
    const StoredTensor* tensor;
  };

  [[noreturn]] void fail(const StoredTensor& tensor, const std::string& found) const {
    throw Error(fmt::format("{}: tensor {} {}", name_, tensor.name, found));
  }

  /// Integers of any width, exactly: long double has 64 bits or more of precision.
  std::vector<Index> integers(const StoredTensor& tensor) const {
    std::vector<long double> wide(static_cast<std::size_t>(tensor.size()));
    decode(tensor.dtype, tensor.data, tensor.size(), wide.data());
    std::vector<Index> values(wide.size());
    for (std::size_t i = 0; i < wide.size(); ++i) {
      if (wide[i] >= 0x1p63L) fail(tensor, "holds a number beyond 2^63, expected token ids");
      values[i] = static_cast<Index>(wide[i]);
    }
    return values;
  }

  void read_tokens() {
    const StoredTensor& tensor = file_.at("tokens");
    if (!is_integer(tensor.dtype))
      fail(tensor, fmt::format("is stored as {}, expected integers", name_of(tensor.dtype)));
    const auto& shape = tensor.shape;
    if (shape.empty() || shape.size() > 2)
      fail(tensor, "has shape " + shape_text(shape) + ", expected (B, S) or (S)");
    S_ = shape.back();
    B_ = shape.size() == 2 ? shape[0] : 1;
    if (B_ == 0 || S_ == 0)
      fail(tensor, "has shape " + shape_text(shape) + ", expected at least one token a sequence");
    tokens_ = integers(tensor);
  }

  /// What `--dtype` may name, the most precise first.
  void find_columns(Recording& golden) {
    for (const char* dtype : {"fp64", "fp32", "bf16"})
      if (const StoredTensor* tensor = file_.find("logits." + std::string(dtype)))
        columns_.push_back({dtype, tensor});
    const StoredTensor* plain = file_.find("logits");
    if (plain == nullptr && columns_.empty()) plain = file_.find(names::lm_head);
    if (plain != nullptr) columns_.push_back({column_name(plain->dtype), plain});
    for (const Column& column : columns_) golden.columns.push_back(column.dtype);
  }

  void read_logits(Recording& golden, const std::string& dtype) {
    if (columns_.empty() && dtype.empty()) return;
    const auto chosen = std::find_if(columns_.begin(), columns_.end(), [&](const Column& c) {
      return dtype.empty() || c.dtype == dtype;
    });
    require(chosen != columns_.end(),
            name_ + " has no logits in " + dtype + "; columns present: " + joined(golden.columns));
    const StoredTensor& tensor = *chosen->tensor;
    check_storage(tensor, chosen->dtype);
    const Index B = check_shape(tensor), V = tensor.shape.back();
    if (vocab_size_ == 0) vocab_size_ = V;
    golden.dtype = chosen->dtype;
    const Index stride = S_ * V * bits_of(tensor.dtype) / 8;
    for (Index b = 0; b < B; ++b) {
      golden.logits.emplace_back(Shape<2>{S_, V});
      decode(tensor.dtype, tensor.data + b * stride, S_ * V, golden.logits.back().data());
    }
  }

  /// A column may be stored wider than it is named (bf16 in F32), never narrower.
  void check_storage(const StoredTensor& tensor, const std::string& dtype) const {
    const std::string stored = column_name(tensor.dtype);
    const bool wide_enough = !stored.empty() && (stored == dtype || stored == "fp64" ||
                                                 (stored == "fp32" && dtype != "fp64"));
    if (!wide_enough)
      fail(tensor,
           fmt::format("is stored as {}, {}", name_of(tensor.dtype),
                       dtype.empty() ? "expected F64, F32, BF16 or F16"
                                     : fmt::format("which does not hold {} numbers", dtype)));
  }

  /// The number of sequences that the tensor has logits of.
  Index check_shape(const StoredTensor& tensor) const {
    const auto& shape = tensor.shape;
    const std::size_t rank = shape.size();
    const std::string mismatch =
        fmt::format("has shape {}, expected ({}, {}, V) as for tokens", shape_text(shape), B_, S_);
    if (rank < 2 || rank > 3) fail(tensor, mismatch);
    const Index B = rank == 3 ? shape[0] : 1;
    // A trace is of the first sequence, whatever else there is in tokens.
    const bool is_trace = tensor.name == names::lm_head;
    if (shape[rank - 2] != S_ || (B != B_ && !(is_trace && B == 1))) fail(tensor, mismatch);
    if (shape.back() == 0)
      fail(tensor, "has shape " + shape_text(shape) + ", expected at least one logit a token");
    if (vocab_size_ != 0 && shape.back() != vocab_size_)
      fail(tensor, fmt::format("has {} logits a token, expected {} (vocab_size); it is a golden of "
                               "another model",
                               shape.back(), vocab_size_));
    return B;
  }

  void make_sequences(Recording& golden) const {
    const StoredTensor* mask = file_.find("attention_mask");
    std::vector<Index> bits(tokens_.size(), 1);
    if (mask != nullptr) {
      if (!is_integer(mask->dtype) && mask->dtype != Dtype::boolean)
        fail(*mask, fmt::format("is stored as {}, expected integers", name_of(mask->dtype)));
      if (mask->shape != file_.at("tokens").shape)
        fail(*mask, "has shape " + shape_text(mask->shape) + ", expected that of tokens, " +
                        shape_text(file_.at("tokens").shape));
      bits = integers(*mask);
    }
    for (Index b = 0; b < B_; ++b) {
      const auto begin = b * S_, end = begin + S_;
      const std::string what = fmt::format("{}: sequence {}", name_, b);
      std::vector<Token> tokens(tokens_.begin() + begin, tokens_.begin() + end);
      check_tokens(tokens, vocab_size_, what);
      golden.sequences.push_back(
          masked(std::move(tokens), {bits.begin() + begin, bits.begin() + end}, what));
    }
  }

  const SafetensorsFile& file_;
  std::shared_ptr<const void> memory_;
  std::string name_;
  Index vocab_size_;
  Index B_ = 0, S_ = 0;
  std::vector<Token> tokens_;
  std::vector<Column> columns_;
};

/// `memory` keeps the bytes alive; null: the caller does.
Recording parse(std::span<const std::byte> bytes, std::shared_ptr<const void> memory,
                const std::filesystem::path& path, const std::string& dtype, Index vocab_size) {
  require(!bytes.empty(),
          path.string() + " is empty, expected a safetensors file or JSON lines with logits");
  if (is_json(bytes))
    return parse_jsonl({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path, dtype,
                       vocab_size);
  const SafetensorsFile file = SafetensorsFile::parse(bytes, path);
  return Reader(file, std::move(memory), vocab_size).read(dtype);
}

}  // namespace

bool is_json(std::span<const std::byte> bytes) {
  if (bytes.empty() || (bytes[0] != std::byte{'{'} && bytes[0] != std::byte{'['})) return false;
  return bytes.size() < 8 || bytes[7] != std::byte{0};
}

Recording read_recording(const std::filesystem::path& path, const std::string& dtype,
                         Index vocab_size) {
  const auto memory = MappedFile::open(path);
  return parse(memory->bytes(), memory, path, dtype, vocab_size);
}

Recording parse_recording(std::span<const std::byte> bytes, const std::filesystem::path& path,
                          const std::string& dtype, Index vocab_size) {
  return parse(bytes, nullptr, path, dtype, vocab_size);
}

}  // namespace dsa
