// tests/docs_test.cpp — the pages name only what exists: paths, links, commands, flags, targets;
// and they keep the rule of plain English.
#include <cctype>
#include <filesystem>
#include <map>
#include <optional>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "core/file.hpp"
#include "tests/catch.hpp"
#include "tests/paths.hpp"
#include "tests/programs/programs.hpp"

namespace fs = std::filesystem;
using namespace dsa;
using Strings = std::vector<std::string>;

namespace {

const fs::path& root() {
  static const fs::path path = test::source_dir();
  return path;
}

struct Page {
  fs::path file;  // of the repository
  std::string text;
};

/// README.md, CONTRIBUTING.md, and every page of docs/ and data/.
const std::vector<Page>& pages() {
  static const std::vector<Page> all = [] {
    std::vector<Page> found;
    for (const char* name : {"README.md", "CONTRIBUTING.md", "data/README.md"})
      found.push_back({name, read_text(root() / name)});
    for (const auto& entry : fs::recursive_directory_iterator(root() / "docs"))
      if (entry.path().extension() == ".md")
        found.push_back({fs::relative(entry.path(), root()), read_text(entry.path())});
    return found;
  }();
  return all;
}

/// Every file of the repository that git could track, without builds and reports.
const std::vector<fs::path>& files() {
  static const std::vector<fs::path> all = [] {
    std::vector<fs::path> found;
    for (const auto& top : fs::directory_iterator(root())) {
      const std::string name = top.path().filename().string();
      if (name.starts_with("build") || name == "out" || name.starts_with(".")) continue;
      if (top.is_regular_file()) found.push_back(name);
      if (!top.is_directory()) continue;
      for (const auto& entry : fs::recursive_directory_iterator(top.path()))
        if (entry.is_regular_file()) found.push_back(fs::relative(entry.path(), root()));
    }
    return found;
  }();
  return all;
}

Strings all_matches(const std::string& text, const std::string& pattern, std::size_t group) {
  const std::regex wanted(pattern);
  Strings found;
  for (std::sregex_iterator it(text.begin(), text.end(), wanted), end; it != end; ++it)
    found.push_back((*it)[group].str());
  return found;
}

bool holds(const std::string& text, const std::string& pattern) {
  return std::regex_search(text, std::regex(pattern));
}

struct Markdown {
  Strings code;       // spans in backticks, and the lines of code blocks
  std::string prose;  // the rest, a span replaced by a letter
};

Markdown parsed(const std::string& text) {
  Markdown page;
  std::istringstream in(text);
  bool fenced = false;
  std::string continued;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("```")) {
      fenced = !fenced;
    } else if (!fenced && !line.starts_with("    ")) {
      page.prose += line + "\n";
    } else if (line.ends_with("\\")) {
      continued += line.substr(0, line.size() - 1);
    } else {
      page.code.push_back(continued + line);
      continued.clear();
    }
  }
  for (const std::string& code : all_matches(page.prose, "`([^`]+)`", 1)) page.code.push_back(code);
  page.prose = std::regex_replace(page.prose, std::regex("`[^`]+`"), "x");
  return page;
}

/// The words of a command line, without quotes, brackets and a comment at its end.
Strings words_of(std::string line) {
  if (const auto comment = line.find(" #"); comment != std::string::npos) line.resize(comment);
  for (char& c : line)
    if (std::string("'\"()[],;=`").find(c) != std::string::npos) c = ' ';
  std::istringstream in(line);
  Strings words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

// ---- paths ----

/// "a/{b,c}.hpp" is a/b.hpp and a/c.hpp.
Strings expanded(const std::string& path) {
  std::smatch brace;
  if (!std::regex_match(path, brace, std::regex("([^{]*)\\{([^}]*)\\}(.*)"))) return {path};
  Strings all;
  for (const std::string& part : all_matches(brace[2].str(), "[^, ]+", 0))
    for (const std::string& rest : expanded(brace[3].str()))
      all.push_back(brace[1].str() + part + rest);
  return all;
}

/// A path into a room of this repository; placeholders (NAME, <op>, *) are not looked for.
bool is_our_path(const std::string& word) {
  const auto slash = word.find('/');
  if (slash == std::string::npos || slash == 0) return false;
  if (!fs::is_directory(root() / word.substr(0, slash))) return false;
  return !holds(word, "(^|[/-])[A-Z]+(/|$|\\.)|[<>*]|\\.\\.\\.") && !word.starts_with("build");
}

bool exists_from(const fs::path& page, const std::string& path) {
  for (const char* extension : {"", ".hpp", ".cuh"})  // core/checkpoint: a header and its source
    for (const fs::path& base : {root(), root() / page.parent_path()})
      if (fs::exists(base / (path + extension))) return true;
  return false;
}

bool is_file_name(const std::string& word) {
  return holds(word, "^[A-Za-z0-9_-]+\\.(hpp|cpp|cu|cuh|md|py|sh)$");
}

// Another project, and a file of DeepSeek's.
const std::set<std::string> foreign_files = {"llama.cpp", "encoding_dsv32.py"};

bool is_known_file(const std::string& name) {
  if (foreign_files.contains(name)) return true;
  return std::any_of(files().begin(), files().end(),
                     [&](const fs::path& file) { return file.filename() == name; });
}

std::string without_full_stop(std::string word) {
  while (!word.empty() && std::string(".,:").find(word.back()) != std::string::npos)
    word.pop_back();
  return word;
}

Strings wrong_paths(const Page& page) {
  Strings wrong;
  for (const std::string& code : parsed(page.text).code) {
    const std::string line = std::regex_replace(code, std::regex("\\{([^}]*), +"), "{$1,");
    for (const std::string& each : all_matches(line, "[^\\s'\"()`;=\\[\\]]+", 0)) {
      const std::string word = without_full_stop(each);
      if (is_file_name(word) && !is_known_file(word)) wrong.push_back(word);
      if (!is_our_path(word)) continue;
      for (const std::string& path : expanded(word))
        if (!exists_from(page.file, path)) wrong.push_back(path);
    }
  }
  return wrong;
}

// ---- links ----

/// The anchors that headings of a page have, as forges make them.
std::set<std::string> anchors(const std::string& text) {
  std::set<std::string> found;
  for (const std::string& heading : all_matches(text, "(^|\n)#+ ([^\n]+)", 2)) {
    std::string anchor;
    for (const char c : heading) {
      const unsigned char letter = static_cast<unsigned char>(c);
      if (std::isalnum(letter) || c == '-' || c == '_')
        anchor += static_cast<char>(std::tolower(letter));
      if (c == ' ') anchor += '-';
    }
    found.insert(anchor);
  }
  return found;
}

Strings wrong_links(const Page& page) {
  Strings wrong;
  for (const std::string& link : all_matches(page.text, "\\]\\(([^)\\s]+)\\)", 1)) {
    if (link.starts_with("http")) continue;
    const auto hash = link.find('#');
    const fs::path target =
        hash == 0 ? root() / page.file : root() / page.file.parent_path() / link.substr(0, hash);
    if (!fs::exists(target))
      wrong.push_back(link);
    else if (hash != std::string::npos &&
             !anchors(read_text(target)).contains(link.substr(hash + 1)))
      wrong.push_back(link);
  }
  return wrong;
}

// ---- commands ----

const std::set<std::string> programs = {"dsa-verify", "dsa-run",   "dsa-train",
                                        "dsa-bench",  "dsa-sweep", "make_wide"};
const std::set<std::string> experiments = {"false_alarms", "visibility"};  // not built here

/// `--help` of a program or of one of its commands; empty where it fails.
const std::string& help(const std::string& command) {
  static std::map<std::string, std::string> known;
  const auto [at, is_new] = known.try_emplace(command);
  if (is_new) {
    const test::Outcome result = test::run(command + " --help");
    if (result.status == 0) at->second = result.out;
  }
  return at->second;
}

/// The text that names the flags of a script.
std::string source_of(const Page& page, const std::string& script) {
  if (experiments.contains(script))
    return read_text(root() / ("experiments/rates/" + script + ".cpp"));
  for (const fs::path& base : {root(), root() / page.file.parent_path()})
    if (fs::exists(base / script)) return read_text(base / script);
  return "";
}

/// The flag, not as a part of a longer one.
bool has_flag(const std::string& text, const std::string& flag) {
  const auto goes_on = [&](std::size_t at) {
    return at < text.size() && (std::isalnum(static_cast<unsigned char>(text[at])) ||
                                text[at] == '-' || text[at] == '_');
  };
  for (auto at = text.find(flag); at != std::string::npos; at = text.find(flag, at + 1))
    if ((at == 0 || !goes_on(at - 1)) && !goes_on(at + flag.size())) return true;
  return false;
}

std::optional<std::string> module_path(const std::string& name) {
  if (!name.starts_with("dsa.")) return std::nullopt;
  return "python/" + std::regex_replace(name, std::regex("\\."), "/") + ".py";
}

/// The commands and flags of a line of code that do not exist.
Strings wrong_in_line(const Page& page, const std::string& line) {
  Strings wrong;
  std::string owner, flags;  // who was called, and the text that has its flags
  const Strings words = words_of(line);
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    const std::string name = fs::path(word).filename().string();
    const std::string next = i + 1 < words.size() ? words[i + 1] : "";
    if (programs.contains(name)) {
      owner = name + (holds(next, "^[a-z]+$") && name != "make_wide" ? " " + next : "");
      flags = help(owner);
      if (flags.empty()) wrong.push_back(owner);
    } else if (experiments.contains(name) || name.ends_with(".py")) {
      owner = word;
      flags = source_of(page, experiments.contains(name) ? name : word);
    } else if (word == "-m" && module_path(next)) {
      owner = next;
      flags = source_of(page, *module_path(next));
      if (flags.empty()) wrong.push_back(owner);
    } else if (word == "|" || word == "&&" || word == ">" || word == "cmake" || word == "ctest") {
      owner.clear();
    } else if (!owner.empty() && !flags.empty() && holds(word, "^--?[A-Za-z][A-Za-z0-9_-]*$")) {
      if (!has_flag(flags + " --help -h", word)) wrong.push_back(owner + " " + word);
    }
  }
  return wrong;
}

/// Help texts of every command, and sources of every script: for flags that stand alone.
const std::string& every_flag() {
  static const std::string all = [] {
    std::string text = read_text(root() / "Makefile") + read_text(root() / "tests/CMakeLists.txt");
    for (const std::string& program : programs) {
      text += help(program);
      for (const std::string& command : all_matches(help(program), "\n  ([a-z]+) ", 1))
        text += help(program + " " + command);
    }
    for (const fs::path& file : files())
      if (file.extension() == ".py" || file.parent_path() == "experiments/rates")
        text += read_text(root() / file);
    return text;
  }();
  return all;
}

// Flags of nvcc's, llama.cpp's, SGLang's and ctest's own.
const std::set<std::string> foreign_flags = {"--logits-all",
                                             "--outtype",
                                             "--no-warmup",
                                             "--debug-tensor-dump-output-folder",
                                             "--disable-cuda-graph",
                                             "--disable-radix-cache",
                                             "--chunked-prefill-size",
                                             "--skip-server-warmup",
                                             "--help",
                                             "--version"};

Strings wrong_commands(const Page& page) {
  Strings wrong;
  const std::string makefile = read_text(root() / "Makefile");
  for (const std::string& line : parsed(page.text).code) {
    for (const std::string& each : wrong_in_line(page, line)) wrong.push_back(each);
    for (const std::string& target : all_matches(line, "(^|&&) *make ([a-z]+)", 2))
      if (!holds(makefile, "(^|\n)" + target + ":")) wrong.push_back("make " + target);
    if (!line.starts_with("--")) continue;
    const std::string flag = words_of(line).front();
    if (!foreign_flags.contains(flag) && !has_flag(every_flag(), flag)) wrong.push_back(flag);
  }
  return wrong;
}

// ---- plain English ----
/// Beginnings of sentences, list items, headings and cells that the house does not use.
Strings clumsy(const std::string& prose) {
  const std::string start = "(^|\n)[#>*|\\- 0-9.]*|[.?!] +|[.?!]\n|\\| *|\n\n";
  return all_matches(prose, "(" + start + ")\\**((What|Who|Of|Where)\\b[^\n]{0,40})", 3);
}

void check_none(const Page& page, const Strings& wrong) {
  for (const std::string& each : wrong) {
    INFO(page.file.string() << " names " << each);
    CHECK(each.empty());
  }
}

}  // namespace

TEST_CASE("the pages name only paths and links that exist", "[docs]") {
  CHECK(pages().size() >= 20);
  for (const Page& page : pages()) {
    check_none(page, wrong_paths(page));
    check_none(page, wrong_links(page));
  }
}

TEST_CASE("the pages name only commands, flags and targets that exist", "[docs]") {
  for (const Page& page : pages()) check_none(page, wrong_commands(page));
}

TEST_CASE("every command of every program stands in the pages", "[docs]") {
  std::string all;
  for (const Page& page : pages()) all += page.text;
  int commands = 0;
  for (const std::string program : {"dsa-verify", "dsa-run", "dsa-train", "dsa-bench", "dsa-sweep"})
    for (const std::string& command : all_matches(help(program), "\n  ([a-z]+) ", 1)) {
      if (help(program + " " + command).empty()) continue;
      ++commands;
      INFO(program << " " << command);
      CHECK(all.find(program + " " + command) != std::string::npos);
    }
  CHECK(commands >= 15);
}

TEST_CASE("docs/README.md leads to every page", "[docs]") {
  const std::string index = read_text(root() / "docs/README.md");
  for (const auto& entry : fs::directory_iterator(root() / "docs")) {
    const std::string name = entry.path().filename().string();
    if (entry.path().extension() != ".md" || name == "README.md") continue;
    INFO(name);
    CHECK(index.find("(" + name) != std::string::npos);
  }
}

TEST_CASE("no sentence of the pages begins with What, Who, Of or Where", "[docs]") {
  for (const Page& page : pages()) check_none(page, clumsy(parsed(page.text).prose));
}

TEST_CASE("the test of the pages sees what it is there for", "[docs]") {
  const Page page{"docs/none.md", "See `verify/nowhere.hpp`, `nowhere.cpp` and [this](none.md).\n"};
  CHECK(wrong_paths(page).size() == 2);
  CHECK(wrong_links(page).size() == 1);
  CHECK(
      wrong_links({"docs/none.md", "[a](report.md#no-such-heading) [b](report.md#json)"}).size() ==
      1);
  CHECK(wrong_paths({"docs/none.md", "`core/{config,nowhere}.hpp`, `verify/NAME/x.cpp`"}).size() ==
        1);
  const Strings wrong =
      wrong_commands({"docs/none.md",
                      "    build/bin/dsa-verify golden A B --no-such-flag --runs 2 # --comment\n"
                      "    dsa-run nothing\n    make nothing\n\n`--no-such-flag` and `--runs`"});
  CHECK(wrong == Strings{"dsa-verify golden --no-such-flag", "dsa-run nothing", "make nothing",
                         "--no-such-flag"});
  CHECK(clumsy("It is so. Where it is not, it fails.\n").size() == 1);
  CHECK(clumsy("| What it is | x |\n").size() == 1);
  CHECK(clumsy("# Who is this for?\n").size() == 1);
  CHECK(clumsy("It says what it is. Whatever it is, one of them is right.\n").empty());
}
