// core/temporary.hpp — files and directories that exist until the work is done, and no longer.
//
// Whatever ends the work removes them: the destructor of their owner after an Error,
// remove_temporaries() after Ctrl-C.
#pragma once

#include <filesystem>
#include <functional>
#include <mutex>
#include <system_error>

namespace dsa {

/// `make` creates a file or a directory and returns its path; it makes no other temporary. Its
/// exceptions pass, and then nothing is remembered: a path that somebody else made stays. Returns
/// the absolute path, for the functions below.
std::filesystem::path make_temporary(const std::function<std::filesystem::path()>& make);

/// Gives it its name. Where that fails it stays temporary.
void rename_temporary(const std::filesystem::path&, const std::filesystem::path& target,
                      std::error_code& reason);

void remove_temporary(const std::filesystem::path&);

/// Removes every temporary path of this process. While the lock that it returns is held, no other
/// is made and none is renamed: hold it until the process ends.
[[nodiscard]] std::unique_lock<std::mutex> remove_temporaries();

/// A new empty directory where the system keeps such things; gone with its owner.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory() { remove_temporary(path_); }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace dsa
