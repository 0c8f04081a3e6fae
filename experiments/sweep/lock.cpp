#include "experiments/sweep/lock.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "core/check.hpp"

namespace dsa::sweep {

Lock::Lock(const std::filesystem::path& file, const std::string& taken)
    : number_(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666)) {
  require(number_ >= 0,
          "cannot write " + file.string() + ": " + std::generic_category().message(errno));
  int result = 0;
  do result = ::flock(number_, LOCK_EX | (taken.empty() ? 0 : LOCK_NB));
  while (result != 0 && errno == EINTR);
  if (result == 0) return;
  const int reason = errno;
  ::close(number_);
  throw Error(reason == EWOULDBLOCK ? taken
                                    : "cannot lock " + file.string() + ": " +
                                          std::generic_category().message(reason));
}

Lock::~Lock() { ::close(number_); }

}  // namespace dsa::sweep
