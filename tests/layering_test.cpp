// The architecture as a test. Who may include whom:
//
//   core <- cli                    what all programs do alike
//   core <- reference              reference and optimized never meet:
//   core, cli <- optimized         an oracle that shares code with its subject proves nothing
//   core, reference, optimized <- verify <- tests, experiments
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "tests/catch.hpp"
#include "tests/paths.hpp"

namespace fs = std::filesystem;
using Strings = std::vector<std::string>;

namespace {

const std::map<std::string, std::set<std::string>> may_include = {
    {"core", {"core"}},
    {"cli", {"core", "cli"}},
    {"reference", {"core", "reference"}},
    {"optimized", {"core", "cli", "optimized"}},
    {"verify", {"core", "cli", "reference", "optimized", "verify"}},
};

Strings lines_of(const std::string& text) {
  std::istringstream in(text);
  Strings lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

/// The file an #include line names, in quotes or brackets; empty for other lines.
std::string included(const std::string& line) {
  const auto at = line.find_first_not_of(" \t");
  if (at == std::string::npos || line[at] != '#') return "";
  const auto word = line.find_first_not_of(" \t", at + 1);
  if (word == std::string::npos || line.compare(word, 7, "include") != 0) return "";
  const auto open = line.find_first_of("\"<", word);
  const auto close = line.find_first_of("\">", open + 1);
  return open == std::string::npos ? "" : line.substr(open, close - open);
}

/// What is wrong with one source file of `layer`.
Strings offences(const std::string& layer, const std::string& text) {
  const Strings lines = lines_of(text);
  Strings found;
  if (lines.size() > 420) found.push_back("has " + std::to_string(lines.size()) + " lines");
  for (const std::string& line : lines) {
    const std::string target = included(line);
    if (target.empty()) continue;
    const std::string folder = target.substr(1, target.find('/') - 1);
    const bool ours = may_include.contains(folder) || folder == "tests" || folder == "fuzz" ||
                      folder == "experiments" || folder == "data";
    const bool allowed = may_include.at(layer).contains(folder);
    if (target[1] == '/' || target.starts_with("\".") || (ours && !allowed) ||
        (target[0] == '"' && !allowed))
      found.push_back("includes " + target.substr(1));
  }
  return found;
}

bool is_source(const fs::path& path) {
  return std::set<std::string>{".hpp", ".cpp", ".cu", ".cuh"}.contains(path.extension().string());
}

std::string read(const fs::path& path) {
  std::ifstream in(path);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

/// Flags under which a NaN, an infinity or the order of a sum is no longer what was written.
bool breaks_arithmetic(const std::string& text) {
  for (const char* flag : {"-ffast-math", "-Ofast", "-funsafe-math", "-ffinite-math",
                           "-fassociative-math", "/fp:fast"})
    if (text.find(flag) != std::string::npos) return true;
  return false;
}

}  // namespace

TEST_CASE("includes follow the layers, and no file holds two ideas", "[layering]") {
  for (const auto& [layer, allowed] : may_include) {
    int files = 0;
    for (const auto& entry : fs::recursive_directory_iterator(fs::path(source_dir()) / layer)) {
      if (!entry.is_regular_file() || !is_source(entry.path())) continue;
      ++files;
      for (const std::string& offence : offences(layer, read(entry.path()))) {
        INFO(entry.path().string() << " " << offence);
        CHECK(offence.empty());
      }
    }
    INFO(layer);
    CHECK(files > 0);
  }
}

TEST_CASE("the layering test sees what it is there for", "[layering]") {
  CHECK(offences("core", "#include \"core/a.hpp\"\n#include <vector>\n").empty());
  CHECK(offences("core", "// #include \"verify/a.hpp\"\n").empty());
  CHECK(offences("core", "#include \"reference/a.hpp\"\n").size() == 1);
  CHECK(offences("reference", "  #  include \"optimized/a.hpp\"\n").size() == 1);
  CHECK(offences("reference", "#include <verify/a.hpp>\n").size() == 1);
  CHECK(offences("optimized", "#include \"reference/ops/dot.hpp\"\n").size() == 1);
  CHECK(offences("verify", "#include \"reference/ops/dot.hpp\"\n").empty());
  CHECK(offences("verify", "#include \"tests/models.hpp\"\n").size() == 1);
  CHECK(offences("verify", "#include \"judge.hpp\"\n").size() == 1);
  CHECK(offences("verify", "#include \"/opt/a.hpp\"\n").size() == 1);
  CHECK(offences("verify", "#include \"../core/a.hpp\"\n").size() == 1);
  CHECK(offences("core", std::string(420, '\n')).empty());
  CHECK(offences("core", std::string(421, '\n')).size() == 1);
  CHECK(breaks_arithmetic("add_compile_options(-O2 -ffast-math)"));
  CHECK_FALSE(breaks_arithmetic("add_compile_options(-fno-fast-math)"));
}

TEST_CASE("of the reference, only the matrix product uses a library", "[layering]") {
  for (const auto& entry : fs::directory_iterator(fs::path(source_dir()) / "reference"))
    for (const std::string& line : lines_of(read(entry.path())))
      if (included(line).find("Eigen") != std::string::npos) {
        INFO(entry.path().string());
        CHECK(entry.path().filename() == "gemm.cpp");
      }
}

TEST_CASE("no build file relaxes floating-point arithmetic", "[layering]") {
  const fs::path root = source_dir();
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(root)) {
    const std::string name = entry.path().filename().string();
    if (entry.is_regular_file()) files.push_back(entry.path());
    if (!entry.is_directory() || name.starts_with("build") || name.starts_with(".")) continue;
    for (const auto& below : fs::recursive_directory_iterator(entry.path()))
      if (below.is_regular_file()) files.push_back(below.path());
  }
  int seen = 0;
  for (const fs::path& file : files) {
    const std::string name = file.filename().string();
    if (name != "CMakeLists.txt" && name != "CMakePresets.json" && name != "Makefile" &&
        file.extension() != ".cmake")
      continue;
    ++seen;
    INFO(file.string());
    CHECK_FALSE(breaks_arithmetic(read(file)));
  }
  CHECK(seen >= 4);
}
