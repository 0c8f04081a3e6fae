#include "tests/sources.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/paths.hpp"

namespace fs = std::filesystem;

namespace dsa::test {
namespace {

std::string read(const fs::path& path) {
  std::ifstream in(path);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

bool made_by_a_build(const std::string& name) {
  return name.starts_with(".") || name.starts_with("build") || name == "out";
}

}  // namespace

std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::vector<Source> sources(const std::vector<std::string_view>& endings) {
  const fs::path root = source_dir();
  std::vector<Source> found;
  const auto take = [&](const fs::path& path) {
    const std::string name = path.filename().string();
    if (std::any_of(endings.begin(), endings.end(), [&](auto end) { return name.ends_with(end); }))
      found.push_back({path.lexically_relative(root).generic_string(), read(path)});
  };
  for (const auto& entry : fs::directory_iterator(root)) {
    if (made_by_a_build(entry.path().filename().string())) continue;
    if (entry.is_regular_file()) take(entry.path());
    if (!entry.is_directory()) continue;
    for (const auto& below : fs::recursive_directory_iterator(entry.path()))
      if (below.is_regular_file()) take(below.path());
  }
  std::sort(found.begin(), found.end(), [](auto& a, auto& b) { return a.path < b.path; });
  return found;
}

std::vector<Source> cpp_sources() { return sources({".hpp", ".cpp", ".cu", ".cuh"}); }

}  // namespace dsa::test
