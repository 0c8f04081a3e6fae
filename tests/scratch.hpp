// tests/scratch.hpp — a folder for one test, removed when it ends.
#pragma once

#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <string>

#include "core/check.hpp"

namespace dsa::test {

class Scratch {
 public:
  Scratch() {
    std::string name = (std::filesystem::temp_directory_path() / "dsa-test-XXXXXX").string();
    require(mkdtemp(name.data()) != nullptr, "cannot create " + name);
    path_ = name;
  }
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

  /// Files and links anywhere below, folders not counted.
  long files() const {
    return std::count_if(std::filesystem::recursive_directory_iterator(path_), {},
                         [](const auto& entry) { return !entry.is_directory(); });
  }

  /// The next OutputFile for `target` meets a full disk.
  void full_disk_at(const std::filesystem::path& target) const {
    std::filesystem::create_symlink("/dev/full", target.string() + ".partial");
  }

 private:
  std::filesystem::path path_;
};

}  // namespace dsa::test
