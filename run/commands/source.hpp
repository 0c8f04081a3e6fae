// run/commands/source.hpp — where a text comes from: --prompt, --prompt-file or stdin.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace dsa::run {

struct Source {
  std::string text, file;

  /// `what`: what the text is. Must live as long as the app.
  void describe(CLI::App&, const std::string& what);

  /// The text. Reads stdin to its end where neither flag was given.
  std::string read() const;

 private:
  const CLI::App* app_ = nullptr;
};

}  // namespace dsa::run
