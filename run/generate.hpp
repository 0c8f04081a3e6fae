// run/generate.hpp — dsa-run generate and dsa-run tokenize.
#pragma once

#include <filesystem>
#include <functional>
#include <iosfwd>
#include <memory>
#include <optional>
#include <string>

#include "text/chat.hpp"
#include "text/generation.hpp"

namespace dsa::run {

struct GenerateJob {
  std::filesystem::path checkpoint;
  std::optional<text::ChatFormat> chat;  // nothing: told by the checkpoint
  std::string system;                    // message; empty: none
  bool think = false, interactive = false;
  std::string prompt;  // unless interactive
  text::Sampling sampling;
  Index max_tokens = 256;
};

/// Loads the model once everything else is known to be right.
using LoadModel = std::function<std::unique_ptr<Session>()>;

/// Writes the model's text to stdout as it comes and statistics to stderr; interactive: one answer
/// a line of `in`. An answer ends at an eos_token_id of generation_config.json or config.json.
/// Returns the exit status: 0, or 130 after Ctrl-C. Error: stdout cannot be written to (a closed
/// pipe), and every bad input.
int generate(const GenerateJob&, const LoadModel&, std::istream& in);

/// The ids of a text as a JSON list, as `dsa-run logits --tokens` reads them.
std::string tokenize(const std::filesystem::path& checkpoint, const std::string& text);

/// The text of a JSON list of ids.
std::string detokenize(const std::filesystem::path& checkpoint, const std::string& ids);

}  // namespace dsa::run
