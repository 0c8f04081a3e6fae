#include "core/recording_jsonl.hpp"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <limits>

namespace dsa {

std::vector<Token> token_ids(const Json& ids, const std::string& what) {
  require(ids.is_array() && !ids.empty(), what + " has no token ids in tokens, expected a list");
  std::vector<Token> tokens;
  for (const Json& id : ids) {
    const bool too_large =
        id.is_number_unsigned() &&
        id.get<std::uint64_t>() > std::uint64_t{std::numeric_limits<Token>::max()};
    if (!id.is_number_integer() || too_large)
      throw Error(what + " has " + in_quotes(id.dump(-1, ' ', true)) +
                  " among its tokens, expected integers");
    tokens.push_back(id.get<Token>());
  }
  return tokens;
}

namespace {

std::vector<Token> parse_tokens(const Json& record, const std::string& what) {
  require(record.contains("tokens"), what + " has no tokens, expected a list of token ids");
  return token_ids(record["tokens"], what);
}

/// The rows are S; `width` is 0 until the first row of the file has been seen.
Tensor<double, 2> parse_logits(const Json& record, Index S, Index& width, const std::string& what) {
  require(record.contains("logits"), what + " has no logits, expected one row of numbers a token");
  const Json& rows = record["logits"];
  require(rows.is_array(), what + " has no list in logits, expected one row of numbers a token");
  require(static_cast<Index>(rows.size()) == S,
          fmt::format("{} has {} rows of logits for {} tokens, expected one each", what,
                      rows.size(), S));
  if (width == 0) width = rows[0].is_array() ? static_cast<Index>(rows[0].size()) : 0;
  for (Index s = 0; s < S; ++s) {
    const Json& row = rows[static_cast<std::size_t>(s)];
    const bool is_row = row.is_array() && !row.empty();
    if (!is_row || static_cast<Index>(row.size()) != width)
      throw Error(
          fmt::format("{}, row {} of logits has {} numbers, expected {}", what, s,
                      is_row ? std::to_string(row.size()) : "no",
                      width > 0 ? std::to_string(width) : "one for each entry of the vocabulary"));
  }

  Tensor<double, 2> logits({S, width});
  double* out = logits.data();
  for (Index s = 0; s < S; ++s)
    for (const Json& value : rows[static_cast<std::size_t>(s)]) {
      if (!value.is_number())
        throw Error(fmt::format("{}, row {} of logits holds {}, expected numbers only", what, s,
                                in_quotes(value.dump(-1, ' ', true))));
      // fp32 numbers may be written in the few digits that tell them apart: 0.1 means 0.1f.
      *out++ = round_to(Dtype::f32, value.get<double>());
    }
  return logits;
}

class JsonlReader {
 public:
  JsonlReader(const std::filesystem::path& path, Index vocab_size) : vocab_size_(vocab_size) {
    golden_.path = path;
    golden_.dtype = "fp32";
    golden_.columns = {"fp32"};
  }

  void read_line(std::string_view line, const std::string& what) {
    const Json parsed = parse_json(line, what);
    if (!parsed.is_array()) return read_record(parsed, what);
    require(!parsed.empty(), what + " is an empty list, expected a record");
    for (std::size_t i = 0; i < parsed.size(); ++i)
      read_record(parsed[i], parsed.size() == 1 ? what : fmt::format("{}, record {}", what, i + 1));
  }

  Recording take() { return std::move(golden_); }
  bool empty() const { return golden_.sequences.empty(); }

 private:
  void read_record(const Json& record, const std::string& what) {
    require(record.is_object(), what +
                                    " is no object, expected {\"prompt\", \"tokens\", "
                                    "\"logits\"}");
    const auto prompt = record.find("prompt");
    require(prompt == record.end() || prompt->is_string(),
            what + " has a prompt that is no string");
    std::vector<Token> tokens = parse_tokens(record, what);
    golden_.logits.push_back(parse_logits(record, static_cast<Index>(tokens.size()), width_, what));
    require(vocab_size_ == 0 || width_ == vocab_size_,
            fmt::format("{} has {} logits a token, expected {} (vocab_size); it is a golden of "
                        "another model",
                        what, width_, vocab_size_));
    check_tokens(tokens, width_, what);
    golden_.prompts.push_back(prompt == record.end() ? "" : prompt->get<std::string>());
    const auto formatted = record.find("formatted_prompt");
    const bool is_formatted = formatted != record.end() && formatted->is_string();
    golden_.texts.push_back(is_formatted ? formatted->get<std::string>() : golden_.prompts.back());
    golden_.sequences.push_back(plain_sequence(std::move(tokens)));
  }

  Recording golden_;
  Index vocab_size_;
  Index width_ = 0;  // V, as the first row has it
};

bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t\r\n") == std::string_view::npos;
}

}  // namespace

Recording parse_jsonl(std::string_view text, const std::filesystem::path& path,
                      const std::string& dtype, Index vocab_size) {
  require(dtype.empty() || dtype == "fp32",
          path.string() + " has no logits in " + dtype + "; columns present: fp32");
  JsonlReader reader(path, vocab_size);
  for (Index number = 1; !text.empty(); ++number) {
    const std::string_view line = text.substr(0, text.find('\n'));
    if (!is_blank(line)) reader.read_line(line, fmt::format("{}, line {}", path.string(), number));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
  }
  require(!reader.empty(), path.string() + " holds blank lines only, expected records");
  return reader.take();
}

namespace {

/// The shortest decimal that reads back as the same float; "1.0", not "1", so that -0.0 survives.
void append_number(std::string& text, float value) {
  char digits[64];
  const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  const std::string_view shortest(digits, static_cast<std::size_t>(end - digits));
  text += shortest;
  if (shortest.find_first_of(".e") == std::string_view::npos) text += ".0";
}

void append_row(std::string& text, View<const double, 1> row, const std::string& what) {
  text += '[';
  for (Index v = 0; v < row.shape[0]; ++v) {
    const auto value = static_cast<float>(row(v));
    if (!std::isfinite(value))
      throw Error(
          fmt::format("{} holds {}, which JSON cannot express in fp32; write safetensors "
                      "instead",
                      what, row(v)));
    if (v > 0) text += ',';
    append_number(text, value);
  }
  text += ']';
}

/// The positions that are not padding; one document only, since a line has no way to tell two.
std::vector<Index> real_positions(const Sequence& sequence, const std::string& what) {
  std::vector<Index> real;
  for (Index s = 0; s < sequence.size(); ++s) {
    const Index document = sequence.documents[static_cast<std::size_t>(s)];
    require(document <= 0, what + " packs several documents, expected one; write safetensors");
    if (document == 0) real.push_back(s);
  }
  return real;
}

}  // namespace

void write_jsonl(const std::filesystem::path& path, const Recording& golden) {
  require(!golden.sequences.empty() && golden.logits.size() == golden.sequences.size(),
          fmt::format("cannot write {}: {} logits for {} sequences, expected one each",
                      path.string(), golden.logits.size(), golden.sequences.size()));
  OutputFile file(path);
  for (std::size_t i = 0; i < golden.sequences.size(); ++i) {
    const Sequence& sequence = golden.sequences[i];
    const std::string what = fmt::format("cannot write {}: sequence {}", path.string(), i);
    const auto real = real_positions(sequence, what);
    require(golden.logits[i].shape()[0] == sequence.size(),
            fmt::format("{} has {} rows of logits for {} tokens, expected one each", what,
                        golden.logits[i].shape()[0], sequence.size()));
    Json tokens = Json::array();
    for (const Index s : real) tokens.push_back(sequence.tokens[static_cast<std::size_t>(s)]);
    const Json prompt = i < golden.prompts.size() ? golden.prompts[i] : "";
    std::string text =
        "{\"prompt\": " + prompt.dump(-1, ' ', true, Json::error_handler_t::replace) +
        ", \"tokens\": " + tokens.dump() + ", \"logits\": ";
    char separator = '[';
    for (const Index s : real) {
      text += separator;
      separator = ',';
      append_row(text, golden.logits[i].view()[s], what);
      file.write(text);
      text.clear();
    }
    file.write("]}\n");
  }
  file.commit();
}

}  // namespace dsa
