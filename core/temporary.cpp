#include "core/temporary.hpp"

#include <cerrno>
#include <cstdlib>
#include <set>
#include <string>

#include "core/check.hpp"

namespace dsa {
namespace {

namespace fs = std::filesystem;

/// What a signal that ends the program has to remove: nothing but a global tells it.
struct Registry {
  std::mutex mutex;
  std::multiset<fs::path> paths;  // absolute, for the working directory may change

  void forget(const fs::path& path) {
    if (const auto found = paths.find(path); found != paths.end()) paths.erase(found);
  }
};

Registry& registry() {
  static Registry all;
  return all;
}

}  // namespace

fs::path make_temporary(const std::function<fs::path()>& make) {
  const std::lock_guard lock(registry().mutex);
  return *registry().paths.insert(fs::absolute(make()));
}

void rename_temporary(const fs::path& path, const fs::path& target, std::error_code& reason) {
  const std::lock_guard lock(registry().mutex);
  fs::rename(path, target, reason);
  if (!reason) registry().forget(path);
}

void remove_temporary(const fs::path& path) {
  const std::lock_guard lock(registry().mutex);
  std::error_code ignored;
  fs::remove_all(path, ignored);
  registry().forget(path);
}

std::unique_lock<std::mutex> remove_temporaries() {
  std::unique_lock lock(registry().mutex);
  std::error_code ignored;
  for (const fs::path& path : registry().paths) fs::remove_all(path, ignored);
  registry().paths.clear();
  return lock;
}

TemporaryDirectory::TemporaryDirectory()
    : path_(make_temporary([] {
        std::string name = (fs::temp_directory_path() / "dsa-XXXXXX").string();
        require(mkdtemp(name.data()) != nullptr, "cannot create a temporary directory " + name +
                                                     ": " + std::generic_category().message(errno));
        return fs::path(name);
      })) {}

}  // namespace dsa
