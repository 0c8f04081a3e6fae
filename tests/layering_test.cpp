// The architecture as a test: who may include whom, as data.
//
//   core <- cli                    what all programs do alike
//   core <- reference              reference and optimized never meet:
//   core <- optimized              an oracle that shares code with its subject proves nothing
//   core, reference, optimized <- verify <- experiments, tests
#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/catch.hpp"
#include "tests/skip.hpp"
#include "tests/sources.hpp"

using namespace dsa::test;
using Strings = std::vector<std::string>;

namespace {

/// A room and the rooms it may include besides itself. A path belongs to the room with the longest
/// prefix of its name; naming a room names the rooms inside it.
const std::map<std::string, Strings> rooms = {
    {"core/", {}},
    {"cli/", {"core/"}},
    {"text/", {"core/"}},
    {"text/generation.", {"core/", "text/", "optimized/engine/"}},
    {"reference/dual.", {"core/"}},
    {"reference/ops/", {"core/", "reference/dual."}},
    {"reference/model/", {"core/", "reference/dual.", "reference/ops/"}},
    {"reference/precision/", {"core/", "reference/dual.", "reference/ops/", "reference/model/"}},
    {"optimized/shared/", {"core/"}},
    {"optimized/engine/", {"core/", "optimized/shared/"}},
    {"optimized/cpu/kernels/", {"core/", "optimized/shared/", "optimized/cpu/ops/tier."}},
    {"optimized/cpu/ops/", {"core/", "optimized/shared/", "optimized/cpu/kernels/"}},
    {"optimized/cpu/model/",
     {"core/", "optimized/shared/", "optimized/engine/", "optimized/cpu/ops/"}},
    {"optimized/cuda/host/", {"core/", "optimized/cuda/device/"}},
    {"optimized/cuda/device/", {"core/", "optimized/cuda/host/"}},
    {"optimized/cuda/ops/",
     {"core/", "optimized/shared/", "optimized/cuda/device/", "optimized/cuda/host/"}},
    {"optimized/cuda/model/",
     {"core/", "optimized/shared/", "optimized/engine/", "optimized/cuda/device/",
      "optimized/cuda/ops/"}},
    {"optimized/cuda/absent/", {"optimized/cuda/"}},
    {"optimized/backends.", {"core/", "optimized/"}},
    {"optimized/engine/arguments.", {"core/", "cli/", "optimized/engine/", "optimized/backends."}},
    {"optimized/ranks/", {"core/"}},
    {"optimized/train/",
     {"core/", "cli/", "text/", "optimized/shared/", "optimized/engine/", "optimized/cpu/",
      "optimized/ranks/"}},
    {"run/", {"core/", "cli/", "optimized/", "text/"}},
    {"experiments/", {"core/", "cli/", "text/", "reference/", "optimized/", "verify/"}},
    {"data/", {"core/", "cli/"}},
    {"python/bindings/", {"core/", "reference/ops/", "verify/kernels/", "verify/measure/"}},
    {"fuzz/", {"core/", "text/"}},
    {"tests/",
     {"core/", "cli/", "text/", "reference/", "optimized/", "verify/", "experiments/", "run/"}},
};

/// What every room of verify/ may include besides the floors below it.
const std::map<std::string, Strings> below_verify = {
    {"verify/", {"core/", "cli/", "reference/", "optimized/engine/", "optimized/backends."}},
    {"verify/commands/",
     {"core/", "cli/", "text/", "reference/", "optimized/engine/", "optimized/backends."}},
    {"verify/measure/", {"core/"}},
    {"verify/report/", {"core/"}},
    {"verify/kernels/",
     {"core/", "reference/", "optimized/shared/", "optimized/cpu/ops/", "optimized/cpu/kernels/",
      "optimized/cuda/device/", "optimized/cuda/ops/"}},
};

/// The rooms of verify/, floor by floor from the lowest. A room includes itself and lower floors;
/// two rooms on one floor do not include each other.
const std::vector<Strings> floors = {
    {"verify/measure/check.", "verify/built_in_names."},
    {"verify/verdict."},
    {"verify/receipt."},
    {"verify/report/"},
    {"verify/measure/"},
    {"verify/runs/"},
    {"verify/names/", "verify/defects/", "verify/kernels/"},
    {"verify/limits/"},
    {"verify/judge/"},
    {"verify/localise/", "verify/invariants/", "verify/gradients/"},
    {"verify/training/"},
    {"verify/diagnose/"},
    {"verify/commands/"},
    {"verify/main."},
};

/// Headers that are a part of their room, and who else reads them.
const std::map<std::string, Strings> inner_headers = {
    {"reference/model/block.hpp", {"reference/"}},
    {"optimized/cpu/model/pass.hpp", {"optimized/cpu/model/"}},
    {"optimized/cuda/model/pass.cuh", {"optimized/cuda/model/"}},
    {"verify/invariants/parts.hpp", {"verify/invariants/", "tests/"}},
    {"verify/defects/alter.hpp", {"verify/defects/", "verify/diagnose/", "experiments/", "tests/"}},
    {"verify/defects/indexer_parts.hpp", {"verify/defects/"}},
};

/// The longest of `prefixes` that `path` begins with.
template <class Prefixes>
std::optional<std::string> longest_prefix(const std::string& path, const Prefixes& prefixes) {
  std::optional<std::string> best;
  for (const std::string& prefix : prefixes)
    if (path.starts_with(prefix) && (!best || prefix.size() > best->size())) best = prefix;
  return best;
}

template <class Map>
Strings keys(const Map& map) {
  Strings all;
  for (const auto& [key, value] : map) all.push_back(key);
  return all;
}

bool begins_with_one(const std::string& path, const Strings& prefixes) {
  return longest_prefix(path, prefixes).has_value();
}

std::optional<std::size_t> floor_of(const std::string& path) {
  for (std::size_t i = 0; i < floors.size(); ++i)
    if (begins_with_one(path, floors[i])) return i;
  return {};
}

/// May a file of verify/ include `target`?
bool verify_may(const std::string& path, const std::string& target) {
  const auto floor = floor_of(path);
  if (!floor) return false;
  if (target.starts_with("verify/")) {
    const auto to = floor_of(target);
    return to &&
           (*to < *floor ||
            (*to == *floor && begins_with_one(target, {*longest_prefix(path, floors[*floor])})));
  }
  const auto row = longest_prefix(path, keys(below_verify));
  return begins_with_one(target, below_verify.at(*row));
}

/// May the file `path` include the file `target` of this project?
bool may_include(const std::string& path, const std::string& target) {
  const auto inner = inner_headers.find(target);
  if (inner != inner_headers.end() && !begins_with_one(path, inner->second)) return false;
  if (path.starts_with("verify/")) return verify_may(path, target);
  const auto room = longest_prefix(path, keys(rooms));
  if (!room) return false;
  // A row for one part of a room speaks for that part alone.
  Strings allowed = rooms.at(*room);
  allowed.push_back(*room);
  return begins_with_one(target, allowed);
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

bool is_ours(const std::string& target) {
  const std::string folder = target.substr(0, target.find('/') + 1);
  if (folder == "verify/") return true;
  for (const auto& [room, allowed] : rooms)
    if (room.starts_with(folder) && !folder.empty()) return true;
  return false;
}

/// What is wrong with the includes of one source.
Strings offences(const std::string& path, const std::string& text) {
  Strings found;
  for (const std::string& line : lines_of(text)) {
    const std::string quoted = included(line);
    if (quoted.empty()) continue;
    const std::string target = quoted.substr(1);
    const bool from_elsewhere = target.starts_with("/") || target.starts_with(".");
    if (from_elsewhere || ((is_ours(target) || quoted[0] == '"') && !may_include(path, target)))
      found.push_back("includes " + target);
  }
  return found;
}

/// Flags under which a NaN, an infinity or the order of a sum is no longer what was written.
bool breaks_arithmetic(const std::string& text) {
  for (const char* flag : {"-ffast-math", "-Ofast", "-funsafe-math", "-ffinite-math",
                           "-fassociative-math", "/fp:fast"})
    if (text.find(flag) != std::string::npos) return true;
  return false;
}

/// The files below `room` with an include of a header whose name holds `library`.
Strings users_of(const std::string& library, const std::string& room) {
  Strings users;
  for (const Source& file : cpp_sources()) {
    const Strings lines = lines_of(file.text);
    if (file.path.starts_with(room) &&
        std::any_of(lines.begin(), lines.end(), [&](const std::string& line) {
          return included(line).find(library) != std::string::npos;
        }))
      users.push_back(file.path);
  }
  return users;
}

}  // namespace

TEST_CASE("includes follow the layers", "[layering]") {
  const std::vector<Source> files = cpp_sources();
  CHECK(files.size() > 100);
  for (const Source& file : files)
    for (const std::string& offence : offences(file.path, file.text))
      FAIL_CHECK(file.path << " " << offence);
}

TEST_CASE("every row of the layers has files, or says that it has none", "[layering]") {
  const std::vector<Source> files = cpp_sources();
  Strings prefixes = keys(rooms);
  for (const Strings& floor : floors) prefixes.insert(prefixes.end(), floor.begin(), floor.end());
  for (const std::string& prefix : prefixes) {
    if (prefix.starts_with("verify/buil")) continue;  // made by a build
    const bool any = std::any_of(files.begin(), files.end(),
                                 [&](const Source& s) { return s.path.starts_with(prefix); });
    if (!any) skip("no file begins with " + prefix);
  }
  for (const auto& [path, readers] : inner_headers) {
    INFO(path);
    CHECK(std::any_of(files.begin(), files.end(), [&](const Source& s) { return s.path == path; }));
  }
}

TEST_CASE("no file holds two ideas", "[layering]") {
  for (const Source& file : sources({".hpp", ".cpp", ".cu", ".cuh", ".py", ".sh"})) {
    INFO(file.path << " has " << lines_of(file.text).size() << " lines");
    CHECK(lines_of(file.text).size() <= 400);
  }
}

TEST_CASE("the layering test sees what it is there for", "[layering]") {
  const auto refused = [](const std::string& path, const std::string& line) {
    return offences(path, line + "\n").size() == 1;
  };
  CHECK(offences("core/x.cpp", "#include \"core/a.hpp\"\n#include <vector>\n").empty());
  CHECK(offences("core/x.cpp", "// #include \"verify/judge/a.hpp\"\n").empty());
  CHECK(refused("core/x.cpp", "#include \"reference/ops/a.hpp\""));
  CHECK(refused("reference/ops/x.cpp", "  #  include \"optimized/shared/a.hpp\""));
  CHECK(refused("reference/ops/x.cpp", "#include <verify/judge/a.hpp>"));
  CHECK(refused("optimized/cpu/ops/x.cpp", "#include \"reference/ops/dot.hpp\""));
  CHECK(offences("verify/judge/x.cpp", "#include \"reference/ops/dot.hpp\"\n").empty());
  CHECK(refused("verify/judge/x.cpp", "#include \"tests/models.hpp\""));
  CHECK(refused("verify/judge/x.cpp", "#include \"judge.hpp\""));
  CHECK(refused("verify/judge/x.cpp", "#include \"/opt/a.hpp\""));
  CHECK(refused("verify/judge/x.cpp", "#include \"../core/a.hpp\""));
  CHECK(refused("new_room/x.cpp", "#include \"core/a.hpp\""));
  CHECK(breaks_arithmetic("add_compile_options(-O2 -ffast-math)"));
  CHECK_FALSE(breaks_arithmetic("add_compile_options(-fno-fast-math)"));
}

TEST_CASE("the rooms inside a layer are held", "[layering]") {
  CHECK_FALSE(may_include("optimized/cuda/model/x.cpp", "optimized/cpu/ops/linear.hpp"));
  CHECK_FALSE(may_include("optimized/cpu/model/x.cpp", "optimized/cuda/model/engine.hpp"));
  CHECK(may_include("optimized/backends.cpp", "optimized/cuda/model/engine.hpp"));
  CHECK_FALSE(may_include("optimized/shared/x.cpp", "optimized/engine/engine.hpp"));
  CHECK_FALSE(may_include("optimized/engine/engine.cpp", "optimized/backends.hpp"));
  CHECK(may_include("optimized/engine/arguments.cpp", "optimized/backends.hpp"));
  CHECK_FALSE(may_include("text/x.cpp", "optimized/engine/engine.hpp"));
  CHECK_FALSE(may_include("run/x.cpp", "verify/receipt.hpp"));
  CHECK_FALSE(may_include("reference/ops/x.cpp", "reference/model/forward.hpp"));
  CHECK_FALSE(may_include("verify/measure/x.cpp", "verify/judge/judge.hpp"));
  CHECK_FALSE(may_include("verify/report/x.cpp", "verify/judge/judge.hpp"));
  CHECK_FALSE(may_include("verify/names/x.cpp", "verify/localise/localise.hpp"));
  CHECK_FALSE(may_include("verify/localise/x.cpp", "verify/invariants/invariants.hpp"));
  CHECK_FALSE(may_include("verify/judge/x.cpp", "optimized/cpu/ops/linear.hpp"));
  CHECK_FALSE(may_include("verify/new_room/x.cpp", "core/tensor.hpp"));
  CHECK(may_include("verify/kernels/backends/x.cpp", "optimized/cpu/ops/linear.hpp"));
  CHECK(may_include("verify/commands/x.cpp", "verify/diagnose/diagnose.hpp"));
  CHECK_FALSE(may_include("verify/diagnose/x.cpp", "reference/model/block.hpp"));
}

TEST_CASE("of the reference, only the matrix product uses a library", "[layering]") {
  CHECK(users_of("Eigen", "reference/") == Strings{"reference/ops/gemm.cpp"});
}

TEST_CASE("one file alone includes the heavy header of HTTP", "[layering]") {
  CHECK(users_of("httplib", "") == Strings{"run/serve/http.cpp"});
}

TEST_CASE("no fast code includes arithmetic of core's headers", "[layering]") {
  // Inline functions that two files compile with other flags are merged into either. The pipeline
  // of training is compiled with core's flags.
  for (const Source& file : cpp_sources())
    if (file.path.starts_with("optimized/") && !file.path.starts_with("optimized/train/data/") &&
        !file.path.starts_with("optimized/train/pipeline/"))
      for (const std::string& line : lines_of(file.text)) {
        INFO(file.path);
        CHECK(included(line) != "\"core/rounding.hpp");
        CHECK(included(line) != "\"core/random.hpp");
      }
}

TEST_CASE("no build file relaxes floating-point arithmetic", "[layering]") {
  const std::vector<Source> files =
      sources({"CMakeLists.txt", "CMakePresets.json", "Makefile", ".cmake"});
  CHECK(files.size() >= 4);
  for (const Source& file : files) {
    INFO(file.path);
    CHECK_FALSE(breaks_arithmetic(file.text));
  }
}
