// core/file.hpp — files: mapped for reading, written under a temporary name and renamed.
#pragma once

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace dsa {

/// A file mapped read-only for as long as somebody holds the pointer.
class MappedFile {
 public:
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path&);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }

  /// Gives back the memory of the pages read so far: the next read fetches them again. At any time,
  /// whoever else is reading.
  void release() const;

  const std::filesystem::path& path() const { return path_; }

 private:
  MappedFile() = default;
  std::span<const std::byte> bytes_;
  std::filesystem::path path_;
};

/// The whole file as text. Error: "cannot read FILE: reason".
std::string read_text(const std::filesystem::path&);

/// Writes to FILE.partial, and renames it to FILE in commit(). Destroyed without commit(), it
/// leaves nothing behind. Every failed write (a full disk) is an Error naming the file. A link is
/// followed; a device or a pipe (/dev/null, /dev/stdout) is written to as it is.
class OutputFile {
 public:
  explicit OutputFile(std::filesystem::path target);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(const void* data, std::size_t size);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void commit();

 private:
  void discard();

  std::filesystem::path target_, partial_;  // partial_ is empty once discarded
  std::ofstream out_;
  bool committed_ = false;
};

void write_text(const std::filesystem::path&, std::string_view);

}  // namespace dsa
