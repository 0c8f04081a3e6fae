// tests/sources.hpp — the project's own sources, read as text.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace dsa::test {

struct Source {
  std::string path;  // from the root, with slashes
  std::string text;
};

std::vector<std::string> lines_of(const std::string& text);

/// The files whose names end in one of `endings`, in the order of their paths. What a build makes
/// (build*, out) and hidden directories are left out.
std::vector<Source> sources(const std::vector<std::string_view>& endings);

/// C++ and CUDA.
std::vector<Source> cpp_sources();

}  // namespace dsa::test
