// tests/programs/programs.hpp — the programs of the build directory, run as a user runs them.
#pragma once

#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "core/file.hpp"
#include "tests/catch.hpp"
#include "tests/paths.hpp"
#include "tests/scratch.hpp"

namespace dsa::test {

struct Outcome {
  int status = -1;
  std::string out, err;
};

/// Runs a program of the build directory with these arguments.
inline Outcome run(const std::string& arguments) {
  const Scratch scratch;
  const std::string out = (scratch / "out").string(), err = (scratch / "err").string();
  const std::string command = binary_dir() + "/" + arguments + " >" + out + " 2>" + err;
  const int status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_text(out), read_text(err)};
}

/// The program failed as bad input should: status 2, one line on stderr, which is returned.
inline std::string complaint(const std::string& arguments) {
  const Outcome result = run(arguments);
  CHECK(result.status == 2);
  CHECK(std::count(result.err.begin(), result.err.end(), '\n') == 1);
  CHECK(result.out.empty());
  return result.err;
}

}  // namespace dsa::test
