// The file protocol: tokens.safetensors in, a command, logits.safetensors out.
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstdlib>
#include <sstream>

#include "core/temporary.hpp"
#include "verify/runs/implementation.hpp"

namespace dsa::verify {
namespace {

namespace fs = std::filesystem;

std::string shell_word(const std::string& text) {
  std::string result = "'";
  for (const char c : text) result += c == '\'' ? "'\\''" : std::string(1, c);
  return result + "'";
}

/// Every `what` in the text becomes `by`; whether there was one.
bool replace(std::string& text, const std::string& what, const std::string& by) {
  bool found = false;
  for (std::size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += by.size()) {
    text.replace(at, what.size(), by);
    found = true;
  }
  return found;
}

std::string last_line(const std::string& file) {
  std::istringstream in(read_text(file));
  std::string last;
  for (std::string line; std::getline(in, line);)
    if (line.find_first_not_of(" \t\r") != std::string::npos) last = line;
  return last;
}

void write_tokens(const std::string& file, const std::vector<Sequence>& batch) {
  const auto B = static_cast<Index>(batch.size()), S = batch.front().size();
  SafetensorsWriter out(
      file, {{"tokens", Dtype::i64, {B, S}}, {"attention_mask", Dtype::i64, {B, S}}}, {});
  for (const Sequence& s : batch) out.append(std::as_bytes(std::span(s.tokens)));
  for (const Sequence& s : batch) {
    std::vector<Index> mask;
    for (const Index document : s.documents) mask.push_back(document < 0 ? 0 : 1);
    out.append(std::as_bytes(std::span(mask)));
  }
  out.commit();
}

/// While it waited for the command, std::system() took Ctrl-C for the command's alone.
[[noreturn]] void interrupt() {
  std::raise(SIGINT);
  for (;;) pause();  // until whoever handles the signal ends the program
}

SafetensorsFile opened(const std::string& file, const std::string& who) {
  require(fs::exists(file), who +
                                " ended without an error but wrote no file {out}; it must write "
                                "a safetensors file with logits (B, S, V) there");
  try {
    return SafetensorsFile::open(file);
  } catch (const Error& e) {
    throw Error(who + " wrote a file that cannot be read: " + e.what());
  }
}

Recording read_logits(const std::string& file, const std::vector<Sequence>& batch, Index V,
                      const std::string& who) {
  const SafetensorsFile stored = opened(file, who);
  const StoredTensor* logits = stored.find("logits");
  require(logits != nullptr, who + " wrote a file without a tensor \"logits\"");
  const auto B = static_cast<Index>(batch.size()), S = batch.front().size();
  require(logits->shape == std::vector<Index>{B, S, V},
          who + " wrote logits of shape " + shape_text(logits->shape) +
              ", expected (sequences, positions, vocab_size) = " + shape_text({B, S, V}));
  Recording output{.dtype = column_name(logits->dtype)};
  require(!output.dtype.empty(), who + " wrote logits that are not F64, F32, F16 or BF16");
  const Index bytes = logits->bytes() / B;
  for (Index b = 0; b < B; ++b) {
    Tensor<double, 2> x({S, V});
    decode(logits->dtype, logits->data + b * bytes, S * V, x.data());
    const std::vector<Index>& documents = batch[static_cast<std::size_t>(b)].documents;
    for (Index t = 0; t < S; ++t)
      for (Index v = 0; v < V; ++v)
        if (documents[static_cast<std::size_t>(t)] >= 0 && !std::isfinite(x(t, v)))
          throw Error(fmt::format("{} wrote a logit that is {}: sequence {}, position {}, token {}",
                                  who, std::isnan(x(t, v)) ? "NaN" : "infinite", b, t, v));
    output.logits.push_back(std::move(x));
  }
  return output;
}

Recording call(const std::string& command, const std::vector<Sequence>& batch,
               const std::vector<Index>& ends, Index vocab_size) {
  const TemporaryDirectory made;
  const fs::path& folder = made.path();
  const std::string in = folder / "tokens.safetensors", out = folder / "logits.safetensors",
                    errors = folder / "stderr", who = "the command \"" + command + "\"";
  write_tokens(in, batch);
  std::string line = command, chunks;
  for (const Index end : ends) chunks += (chunks.empty() ? "" : ",") + std::to_string(end);
  replace(line, "{chunks}", chunks);
  if (!replace(line, "{in}", shell_word(in))) line += " " + shell_word(in);
  if (!replace(line, "{out}", shell_word(out))) line += " " + shell_word(out);
  const int status =
      std::system(("/bin/sh -c " + shell_word(line) + " </dev/null >" +
                   shell_word((folder / "stdout").string()) + " 2>" + shell_word(errors))
                      .c_str());
  if (status != 0) {
    const int ended = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    if (ended == 128 + SIGINT) interrupt();
    const std::string last = last_line(errors);
    throw Error(
        fmt::format("{} ended with status {}{}", who, ended,
                    last.empty() ? ", and said nothing on stderr" : "; its last line: " + last));
  }
  return read_logits(out, batch, vocab_size, who);
}

}  // namespace

Implementation command_implementation(const std::string& command, Index vocab_size) {
  require(command.find_first_not_of(" \t\n") != std::string::npos,
          "--command is empty; give what turns tokens into logits (docs/invariants.md)");
  Implementation implementation;
  implementation.name = command;
  implementation.run = [=](const std::vector<Sequence>& batch) {
    return call(command, batch, {batch.front().size()}, vocab_size);
  };
  if (command.find("{chunks}") != std::string::npos)
    implementation.run_in_chunks = [=](const Sequence& sequence, const std::vector<Index>& ends) {
      return call(command, {sequence}, ends, vocab_size);
    };
  return implementation;
}

}  // namespace dsa::verify
