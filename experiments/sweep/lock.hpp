// experiments/sweep/lock.hpp — one file that one process holds at a time; the system lets it go
// when the process ends, however it ends.
#pragma once

#include <filesystem>
#include <string>

namespace dsa::sweep {

class Lock {
 public:
  /// Waits for it.
  explicit Lock(const std::filesystem::path& file) : Lock(file, "") {}
  /// Does not wait: where somebody else holds it, an Error with this sentence.
  Lock(const std::filesystem::path& file, const std::string& taken);
  ~Lock();
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

 private:
  int number_;
};

}  // namespace dsa::sweep
