#include "core/file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "core/check.hpp"
#include "core/temporary.hpp"

namespace dsa {
namespace {

[[noreturn]] void fail(const std::string& deed, const std::filesystem::path& path, int reason) {
  throw Error("cannot " + deed + " " + path.string() + ": " +
              (reason == 0 ? "unknown reason" : std::generic_category().message(reason)));
}

/// A file descriptor, closed when it goes out of scope.
class Descriptor {
 public:
  explicit Descriptor(const std::filesystem::path& path)
      : number_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (number_ < 0) fail("read", path, errno);
  }
  ~Descriptor() { ::close(number_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int number() const { return number_; }

 private:
  int number_;
};

}  // namespace

std::shared_ptr<const MappedFile> MappedFile::open(const std::filesystem::path& path) {
  const Descriptor file(path);
  struct stat status {};
  if (::fstat(file.number(), &status) != 0) fail("read", path, errno);
  if (S_ISDIR(status.st_mode)) fail("read", path, EISDIR);
  require(S_ISREG(status.st_mode),
          "cannot map " + path.string() + ": it is not a regular file; copy it to one first");

  std::shared_ptr<MappedFile> mapped(new MappedFile);
  mapped->path_ = path;
  const auto size = static_cast<std::size_t>(status.st_size);
  if (size == 0) return mapped;  // mmap refuses empty files
  void* memory = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.number(), 0);
  if (memory == MAP_FAILED) fail("map", path, errno);
  mapped->bytes_ = {static_cast<const std::byte*>(memory), size};
  return mapped;
}

void MappedFile::release() const {
  // Nobody can write to a read-only mapping: no page has anything to lose. A refusal costs memory
  // only.
  if (!bytes_.empty())
    ::madvise(const_cast<std::byte*>(bytes_.data()), bytes_.size(), MADV_DONTNEED);
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

std::string read_text(const std::filesystem::path& path) {
  const Descriptor file(path);
  std::string text;
  char piece[1 << 16];
  for (;;) {
    const ssize_t n = ::read(file.number(), piece, sizeof piece);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("read", path, errno);
    if (n == 0) return text;
    text.append(piece, static_cast<std::size_t>(n));
  }
}

OutputFile::OutputFile(std::filesystem::path target) : target_(std::move(target)) {
  std::error_code ignored;
  const auto status = std::filesystem::status(target_, ignored);
  const bool in_place = std::filesystem::exists(status) &&
                        !std::filesystem::is_regular_file(status) &&
                        !std::filesystem::is_directory(status);
  if (std::filesystem::is_symlink(target_, ignored))
    target_ = std::filesystem::weakly_canonical(target_, ignored);
  const auto open = [this](const std::filesystem::path& path) {
    errno = 0;
    out_.open(path, std::ios::binary | std::ios::trunc);
    if (!out_) fail("write", target_, errno);
    return path;
  };
  if (in_place)
    open(target_);
  else
    partial_ = make_temporary([&] { return open(target_.string() + ".partial"); });
}

OutputFile::~OutputFile() {
  if (!committed_) discard();
}

void OutputFile::discard() {
  if (!out_.is_open() && partial_.empty()) return;
  out_.close();
  if (!partial_.empty()) remove_temporary(partial_);
  partial_.clear();
}

void OutputFile::write(const void* data, std::size_t size) {
  errno = 0;
  out_.write(static_cast<const char*>(data), static_cast<std::streamsize>(size));
  if (out_) return;
  const int reason = errno;
  discard();
  fail("write", target_, reason);
}

void OutputFile::commit() {
  // Buffered bytes meet the disk here: a full disk may show in flush or close only.
  errno = 0;
  out_.flush();
  if (out_) out_.close();
  if (!out_) {
    const int reason = errno;
    discard();
    fail("write", target_, reason);
  }
  std::error_code reason;
  if (!partial_.empty()) rename_temporary(partial_, target_, reason);
  if (reason) {
    discard();
    fail("write", target_, reason.value());
  }
  committed_ = true;
}

void write_text(const std::filesystem::path& path, std::string_view text) {
  OutputFile file(path);
  file.write(text);
  file.commit();
}

}  // namespace dsa
