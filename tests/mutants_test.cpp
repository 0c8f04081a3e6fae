// `make mutants` takes hours; that its list still fits the sources is seen at once.
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "tests/catch.hpp"
#include "tests/sources.hpp"

using namespace dsa::test;

namespace {

std::vector<std::string> split(const std::string& line) {
  std::vector<std::string> parts(1);
  for (const char c : line) {
    if (c == '\t')
      parts.emplace_back();
    else
      parts.back() += c;
  }
  return parts;
}

std::size_t occurrences(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size()))
    ++n;
  return n;
}

}  // namespace

TEST_CASE("every mutant changes one place of its file", "[mutants]") {
  std::map<std::string, std::string> files;
  for (const Source& file : cpp_sources()) files[file.path] = file.text;
  const std::vector<Source> lists = sources({"mutants.txt"});
  REQUIRE(lists.size() == 1);
  int mutants = 0;
  for (const std::string& line : lines_of(lists[0].text)) {
    if (line.empty() || line[0] == '#') continue;
    ++mutants;
    const std::vector<std::string> columns = split(line);
    INFO(line);
    REQUIRE(columns.size() == 4);
    CHECK(columns[1] != columns[2]);
    CHECK_FALSE(columns[3].empty());
    REQUIRE(files.contains(columns[0]));
    CHECK(occurrences(files[columns[0]], columns[1]) == 1);
  }
  CHECK(mutants >= 50);
}
