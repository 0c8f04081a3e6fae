#include "core/outputs.hpp"

#include <unistd.h>

#include <cerrno>
#include <string>
#include <system_error>

#include "core/check.hpp"

namespace dsa {
namespace {

namespace fs = std::filesystem;

fs::path directory_of(const fs::path& file) {
  return file.has_parent_path() ? file.parent_path() : fs::path(".");
}

bool are_same(const fs::path& a, const fs::path& b) {
  std::error_code either_is_missing;
  return fs::equivalent(a, b, either_is_missing);
}

/// A checkpoint is read from such files of its directory, among others that nobody reads.
bool is_of_checkpoint(const fs::path& file) {
  const std::string name = file.filename().string();
  return name == "config.json" || name == "tokenizer.json" || name.ends_with(".safetensors") ||
         name.ends_with(".index.json");
}

void check_place(const fs::path& output) {
  const std::string what = "cannot write " + output.string() + ": ";
  require(!fs::is_directory(output), what + std::generic_category().message(EISDIR));
  std::error_code reason;
  const fs::path directory = directory_of(fs::weakly_canonical(output, reason));
  require(!reason, what + reason.message());
  require(!fs::exists(directory) || fs::is_directory(directory),
          what + std::generic_category().message(ENOTDIR));
  require(::access(directory.c_str(), W_OK | X_OK) == 0,
          what + std::generic_category().message(errno));
}

void check_not_read(const fs::path& output, const fs::path& input) {
  require(!are_same(output, input), output.string() +
                                        " is an input, which the output would replace; choose "
                                        "another name to write to");
  require(!(fs::exists(output) && is_of_checkpoint(output) && fs::is_directory(input) &&
            are_same(directory_of(output), input)),
          output.string() + " is a file of the checkpoint " + input.string() +
              ", which the output would replace; choose another name to write to");
}

}  // namespace

void check_outputs(const std::vector<fs::path>& outputs, const std::vector<fs::path>& inputs) {
  std::vector<fs::path> seen;
  for (const fs::path& output : outputs) {
    std::error_code ignored;
    if (output.empty() || fs::is_other(output, ignored)) continue;
    check_place(output);
    for (const fs::path& input : inputs)
      if (!input.empty()) check_not_read(output, input);
    const fs::path real = fs::weakly_canonical(output);
    for (const fs::path& other : seen)
      require(other != real,
              output.string() + " is named for two outputs; give each a name of its own");
    seen.push_back(real);
  }
}

std::string json_text(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace dsa
