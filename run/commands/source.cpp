#include "run/commands/source.hpp"

#include <iostream>
#include <iterator>

#include "core/file.hpp"

namespace dsa::run {

void Source::describe(CLI::App& app, const std::string& what) {
  app_ = &app;
  auto* prompt =
      app.add_option("--prompt", text, what + ". Default: all of stdin")->type_name("TEXT");
  app.add_option("--prompt-file", file, "The same from a file")
      ->excludes(prompt)
      ->type_name("FILE");
}

std::string Source::read() const {
  if (app_->count("--prompt") > 0) return text;
  if (!file.empty()) return read_text(file);
  return {std::istreambuf_iterator<char>(std::cin), {}};
}

}  // namespace dsa::run
