// core/safetensors.hpp — the safetensors format: mapped and checked on reading, streamed on
// writing.
//
// Layout: u64 little-endian header size; a JSON object {name: {dtype, shape, data_offsets}};
// the data. Source: github.com/huggingface/safetensors, README and safetensors/src/tensor.rs,
// whose rules are all enforced: header of 2 to 100,000,000 bytes that begins with '{'; no key
// twice; offsets in range, sorted, without overlap or hole, ending at the end of the file; size
// of the data = shape x dtype, computed without overflow; __metadata__ maps strings to strings.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.hpp"
#include "core/file.hpp"

namespace dsa {

/// One tensor as it lies in a file: borrowed bytes; the SafetensorsFile keeps them alive.
struct StoredTensor {
  std::string name;
  Dtype dtype = Dtype::f32;
  std::vector<Index> shape;
  const std::byte* data = nullptr;

  Index size() const;  // elements
  Index bytes() const;
};

/// "(2, 150, 227)", for messages.
std::string shape_text(const std::vector<Index>&);

class SafetensorsFile {
 public:
  /// Maps and checks the file. Every violation is one sentence: file, tensor, expected, found.
  static SafetensorsFile open(const std::filesystem::path&);

  /// The same checks on bytes in memory (`path` is for messages); nothing is owned.
  static SafetensorsFile parse(std::span<const std::byte>, const std::filesystem::path&);

  const std::vector<StoredTensor>& tensors() const { return tensors_; }  // in order of offset
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::filesystem::path& path() const { return path_; }

  const StoredTensor* find(std::string_view name) const;

  /// Error: "FILE has no tensor NAME; it has A, B, C, ...".
  const StoredTensor& at(std::string_view name) const;

  std::shared_ptr<const MappedFile> memory() const { return memory_; }

 private:
  std::filesystem::path path_;
  std::shared_ptr<const MappedFile> memory_;
  std::vector<StoredTensor> tensors_;
  std::map<std::string, Index, std::less<>> by_name_;
  std::map<std::string, std::string> metadata_;
};

/// What will be written: declare all tensors, then append their bytes in the same order.
class SafetensorsWriter {
 public:
  struct Declaration {
    std::string name;
    Dtype dtype;
    std::vector<Index> shape;
  };
  /// Writes the header (to FILE.partial). The data follows in the order of `tensors`.
  SafetensorsWriter(std::filesystem::path file, std::vector<Declaration> tensors,
                    std::map<std::string, std::string> metadata = {});

  /// The next bytes of the current tensor; a tensor may be appended in any number of pieces.
  void append(std::span<const std::byte> bytes);

  /// Encodes doubles to the current tensor's dtype (an integer dtype: truncated) and appends them.
  void append_values(std::span<const double> values);

  /// Checks that every byte declared was written, then renames the file into place.
  void commit();

 private:
  Index expected() const;
  void skip_complete();

  std::filesystem::path path_;
  OutputFile out_;
  std::vector<Declaration> tensors_;
  std::size_t current_ = 0;
  Index written_ = 0;  // bytes of the current tensor
};

}  // namespace dsa
