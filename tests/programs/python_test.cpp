#include "tests/catch.hpp"
#include "tests/programs/programs.hpp"
#include "tests/skip.hpp"

using namespace dsa::test;

TEST_CASE("the Python package passes its own tests", "[python][slow]") {
  if (std::system("cd / && python3 -c 'import dsa._core, pytest' 2>/dev/null") != 0)
    return skip("python3 has no package dsa with its compiled half; pip install '.[test]' first");
  const Scratch dir;
  const std::string said = (dir / "said").string();
  const std::string command = "cd " + source_dir() +
                              " && python3 -m pytest -q -p no:cacheprovider python/tests > " +
                              said + " 2>&1";
  const int status = std::system(command.c_str());
  INFO(dsa::read_text(said));
  CHECK(status == 0);
}
