#include "core/safetensors.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "core/json.hpp"

namespace dsa {
namespace {

constexpr std::uint64_t header_min = 2, header_max = 100'000'000;

/// Bytes of shape x dtype; Errors (overflow, a negative extent, half a byte) begin with `what`.
Index bytes_of(const std::string& what, Dtype dtype, const std::vector<Index>& shape) {
  Index bits = 1;
  bool fits = true;
  for (Index extent : shape) {
    require(extent >= 0,
            what + " has shape " + shape_text(shape) + ", expected no negative extent");
    fits = fits && !__builtin_mul_overflow(bits, extent, &bits);
  }
  fits = fits && !__builtin_mul_overflow(bits, bits_of(dtype), &bits);
  require(fits, what + " has shape " + shape_text(shape) + ", whose size does not fit in 64 bits");
  require(bits % 8 == 0, what + " takes " + std::to_string(bits) + " bits (" +
                             std::string(name_of(dtype)) + ", shape " + shape_text(shape) +
                             "), expected whole bytes");
  return bits / 8;
}

/// A non-negative JSON integer that fits in an Index.
bool is_count(const Json& value) {
  return value.is_number_unsigned() &&
         value.get<std::uint64_t>() <= std::uint64_t{std::numeric_limits<Index>::max()};
}

std::string shortened(const Json& value) {
  constexpr std::size_t longest = 200;
  const std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  return text.size() <= longest ? text : text.substr(0, longest) + "...";
}

/// One entry of the header, before it is known to lie within the file.
struct Entry {
  StoredTensor tensor;
  Index begin = 0, end = 0;
};

Dtype parse_dtype(const std::string& what, const Json& value) {
  if (value.is_string())
    if (const auto known = dtype_named(value.get_ref<const std::string&>())) return *known;
  throw Error(what + " has dtype " + shortened(value) +
              ", which the safetensors format does not know");
}

std::vector<Index> parse_shape(const std::string& what, const Json& value) {
  require(value.is_array() && std::all_of(value.begin(), value.end(), is_count),
          what + " has shape " + shortened(value) + ", expected a list of non-negative integers");
  return value.get<std::vector<Index>>();
}

Entry parse_entry(const std::string& what, const std::string& name, const Json& value) {
  require(value.is_object(), what + " is described by " + shortened(value) +
                                 ", expected an object with dtype, shape and data_offsets");
  for (const char* key : {"dtype", "shape", "data_offsets"})
    require(value.contains(key), what + " has no " + key);
  for (const auto& item : value.items())
    require(item.key() == "dtype" || item.key() == "shape" || item.key() == "data_offsets",
            what + " has an unknown key " + in_quotes(item.key()) +
                ", expected dtype, shape and data_offsets only");

  Entry entry;
  entry.tensor.name = name;
  entry.tensor.dtype = parse_dtype(what, value["dtype"]);
  entry.tensor.shape = parse_shape(what, value["shape"]);

  const Json& offsets = value["data_offsets"];
  require(offsets.is_array() && offsets.size() == 2 && is_count(offsets[0]) && is_count(offsets[1]),
          what + " has data_offsets " + shortened(offsets) + ", expected two integers");
  entry.begin = offsets[0].get<Index>();
  entry.end = offsets[1].get<Index>();
  require(entry.begin <= entry.end, what + " begins at byte " + std::to_string(entry.begin) +
                                        " and ends before it, at byte " +
                                        std::to_string(entry.end));
  const Index bytes = bytes_of(what, entry.tensor.dtype, entry.tensor.shape);
  require(bytes == entry.end - entry.begin,
          what + " has " + std::to_string(entry.end - entry.begin) + " bytes, expected " +
              std::to_string(bytes) + " for " + std::string(name_of(entry.tensor.dtype)) +
              " of shape " + shape_text(entry.tensor.shape));
  return entry;
}

std::map<std::string, std::string> parse_metadata(const std::string& file, const Json& value) {
  require(value.is_object(),
          file + ": __metadata__ is " + shortened(value) + ", expected an object of strings");
  std::map<std::string, std::string> metadata;
  for (const auto& item : value.items()) {
    require(item.value().is_string(), file + ": __metadata__ has " + in_quotes(item.key()) + ": " +
                                          shortened(item.value()) + ", expected a string");
    metadata[item.key()] = item.value().get<std::string>();
  }
  return metadata;
}

/// The header's text: what lies between the size and the data.
std::string_view header_of(std::span<const std::byte> bytes, const std::string& file) {
  require(bytes.size() >= 8, file + " holds " + std::to_string(bytes.size()) +
                                 " bytes; a safetensors file begins with 8 for its header's size");
  std::uint64_t size = 0;
  for (std::size_t i = 0; i < 8; ++i) size |= std::to_integer<std::uint64_t>(bytes[i]) << (8 * i);
  const std::string found = file + " states a header of " + std::to_string(size) + " bytes";
  require(size >= header_min && size <= header_max,
          found + ", expected 2 to 100000000; it is not a safetensors file");
  require(size <= bytes.size() - 8, found + " but holds only " + std::to_string(bytes.size() - 8) +
                                        " after the first 8; it was cut short");
  const std::string_view header(reinterpret_cast<const char*>(bytes.data() + 8), size);
  require(header[0] == '{', file + " has a header that does not begin with '{'");
  return header;
}

/// Neither overlap nor hole, from the first byte of the data to its last.
void check_layout(const std::string& file, const std::vector<Entry>& entries, Index data_bytes) {
  Index at = 0;
  std::string before = "the beginning of the data";
  for (const Entry& entry : entries) {
    const std::string name = in_quotes(entry.tensor.name);
    require(entry.begin == at, file + ": tensor " + name + " begins at byte " +
                                   std::to_string(entry.begin) + ", expected " +
                                   std::to_string(at) + ", right after " + before +
                                   (entry.begin < at ? " (they overlap)" : " (there is a hole)"));
    at = entry.end;
    before = "tensor " + name;
  }
  require(at == data_bytes, file + " holds " + std::to_string(data_bytes) +
                                " bytes of data, expected " + std::to_string(at) + ", where " +
                                before + " ends" + (at > data_bytes ? "; it was cut short" : ""));
}

}  // namespace

std::string shape_text(const std::vector<Index>& shape) {
  std::string text = "(";
  for (std::size_t axis = 0; axis < shape.size(); ++axis)
    text += (axis ? ", " : "") + std::to_string(shape[axis]);
  return text + ")";
}

Index StoredTensor::size() const {
  Index n = 1;
  for (Index extent : shape) n *= extent;
  return n;
}

Index StoredTensor::bytes() const { return size() * bits_of(dtype) / 8; }

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  auto memory = MappedFile::open(path);
  SafetensorsFile file = parse(memory->bytes(), path);
  file.memory_ = std::move(memory);
  return file;
}

SafetensorsFile SafetensorsFile::parse(std::span<const std::byte> bytes,
                                       const std::filesystem::path& path) {
  const std::string name = path.string();
  const std::string_view text = header_of(bytes, name);
  const Json header = parse_json(text, name + ": header");
  const std::span<const std::byte> data = bytes.subspan(8 + text.size());

  SafetensorsFile file;
  file.path_ = path;
  std::vector<Entry> entries;
  for (const auto& item : header.items()) {
    if (item.key() == "__metadata__") {
      file.metadata_ = parse_metadata(name, item.value());
      continue;
    }
    require(!item.key().empty(), name + " has a tensor without a name");
    const std::string what = name + ": tensor " + in_quotes(item.key());
    entries.push_back(parse_entry(what, item.key(), item.value()));
  }
  std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  check_layout(name, entries, static_cast<Index>(data.size()));

  for (Entry& entry : entries) {
    entry.tensor.data = data.data() + entry.begin;
    file.by_name_[entry.tensor.name] = static_cast<Index>(file.tensors_.size());
    file.tensors_.push_back(std::move(entry.tensor));
  }
  return file;
}

const StoredTensor* SafetensorsFile::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[static_cast<std::size_t>(found->second)];
}

const StoredTensor& SafetensorsFile::at(std::string_view name) const {
  if (const StoredTensor* found = find(name)) return *found;
  constexpr std::size_t listed = 12;
  std::string names;
  for (std::size_t i = 0; i < std::min(listed, tensors_.size()); ++i)
    names += (i ? ", " : "") + tensors_[i].name;
  if (tensors_.size() > listed) names += ", ... (" + std::to_string(tensors_.size()) + " in all)";
  throw Error(path_.string() + " has no tensor " + std::string(name) +
              (names.empty() ? "; it has none at all" : "; it has " + names));
}

namespace {

/// The header of a file that holds `tensors` one after the other, padded to a multiple of 8.
std::string header_for(const std::string& file,
                       const std::vector<SafetensorsWriter::Declaration>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  Json header = Json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  Index at = 0;
  for (const auto& tensor : tensors) {
    const std::string what = file + ": tensor " + in_quotes(tensor.name);
    require(!tensor.name.empty() && tensor.name != "__metadata__",
            what + " needs another name: this one is reserved");
    require(!header.contains(tensor.name), what + " is declared twice");
    const Index begin = at, bytes = bytes_of(what, tensor.dtype, tensor.shape);
    require(!__builtin_add_overflow(at, bytes, &at), what + " makes the file too large");
    header[tensor.name] = {
        {"dtype", name_of(tensor.dtype)}, {"shape", tensor.shape}, {"data_offsets", {begin, at}}};
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const Json::exception&) {
    throw Error(file + ": a tensor's name or the metadata is not UTF-8");
  }
  text.append((8 - text.size() % 8) % 8, ' ');
  require(text.size() <= header_max, file + " would have a header of " +
                                         std::to_string(text.size()) +
                                         " bytes, more than 100000000; write several files");
  return text;
}

/// One number as an integer of type T, truncated; `what` begins the sentence if it does not fit.
template <class T>
void store_integer(const std::string& what, double value, std::byte* out) {
  // 2^digits is exact in double where the largest T is not.
  const double beyond = std::ldexp(1.0, std::numeric_limits<T>::digits);
  const double whole = std::trunc(value);
  if (!(whole >= (std::is_signed_v<T> ? -beyond : 0.0) && whole < beyond))
    throw Error(what + " cannot hold " + std::to_string(value));
  const T integer = static_cast<T>(whole);
  std::memcpy(out, &integer, sizeof integer);
}

void store_integers(const std::string& what, Dtype dtype, std::span<const double> values,
                    std::byte* out) {
  const Index stride = bits_of(dtype) / 8;
  for (const double value : values) {
    switch (dtype) {
      case Dtype::boolean:
        if (value != 0 && value != 1) throw Error(what + " cannot hold " + std::to_string(value));
        *out = static_cast<std::byte>(value);
        break;
      case Dtype::u8:
        store_integer<std::uint8_t>(what, value, out);
        break;
      case Dtype::i8:
        store_integer<std::int8_t>(what, value, out);
        break;
      case Dtype::u16:
        store_integer<std::uint16_t>(what, value, out);
        break;
      case Dtype::i16:
        store_integer<std::int16_t>(what, value, out);
        break;
      case Dtype::u32:
        store_integer<std::uint32_t>(what, value, out);
        break;
      case Dtype::i32:
        store_integer<std::int32_t>(what, value, out);
        break;
      case Dtype::u64:
        store_integer<std::uint64_t>(what, value, out);
        break;
      default:
        store_integer<std::int64_t>(what, value, out);
        break;
    }
    out += stride;
  }
}

bool is_float(Dtype dtype) {
  return dtype == Dtype::f64 || dtype == Dtype::f32 || dtype == Dtype::f16 ||
         dtype == Dtype::bf16 || dtype == Dtype::f8_e4m3;
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(std::filesystem::path file, std::vector<Declaration> tensors,
                                     std::map<std::string, std::string> metadata)
    : path_(std::move(file)), out_(path_), tensors_(std::move(tensors)) {
  const std::string header = header_for(path_.string(), tensors_, metadata);
  char size[8];
  for (int i = 0; i < 8; ++i) size[i] = static_cast<char>(header.size() >> (8 * i) & 0xFF);
  out_.write(size, sizeof size);
  out_.write(header);
}

/// The bytes that the current tensor takes in all.
Index SafetensorsWriter::expected() const {
  return bytes_of(tensors_[current_].name, tensors_[current_].dtype, tensors_[current_].shape);
}

void SafetensorsWriter::skip_complete() {
  while (current_ < tensors_.size() && written_ == expected()) {
    ++current_;
    written_ = 0;
  }
}

void SafetensorsWriter::append(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  skip_complete();
  require(current_ < tensors_.size(),
          path_.string() + " is complete, yet " + std::to_string(bytes.size()) + " bytes follow");
  const auto size = static_cast<Index>(bytes.size());
  require(size <= expected() - written_,
          path_.string() + ": tensor " + in_quotes(tensors_[current_].name) + " takes " +
              std::to_string(expected()) + " bytes, got " + std::to_string(written_ + size));
  out_.write(bytes.data(), bytes.size());
  written_ += size;
}

void SafetensorsWriter::append_values(std::span<const double> values) {
  if (values.empty()) return;
  skip_complete();
  require(current_ < tensors_.size(),
          path_.string() + " is complete, yet " + std::to_string(values.size()) + " values follow");
  const Dtype dtype = tensors_[current_].dtype;
  const std::string what = path_.string() + ": tensor " + in_quotes(tensors_[current_].name) +
                           " (" + std::string(name_of(dtype)) + ")";
  require(is_decodable(dtype), what +
                                   " takes bytes only; choose F64, F32, F16, BF16, F8_E4M3 or "
                                   "an integer dtype to write values");
  require(static_cast<Index>(values.size()) <= (expected() - written_) / (bits_of(dtype) / 8),
          what + " has room for " + std::to_string((expected() - written_) / (bits_of(dtype) / 8)) +
              " more values, got " + std::to_string(values.size()));

  constexpr std::size_t piece = 8192;
  std::vector<std::byte> encoded(std::min(piece, values.size()) *
                                 static_cast<std::size_t>(bits_of(dtype) / 8));
  while (!values.empty()) {
    const auto now = values.first(std::min(piece, values.size()));
    if (is_float(dtype))
      encode(dtype, now.data(), static_cast<Index>(now.size()), encoded.data());
    else
      store_integers(what, dtype, now, encoded.data());
    append(std::span(encoded).first(now.size() * static_cast<std::size_t>(bits_of(dtype) / 8)));
    values = values.subspan(now.size());
  }
}

void SafetensorsWriter::commit() {
  skip_complete();
  if (current_ < tensors_.size())
    throw Error(path_.string() + ": tensor " + in_quotes(tensors_[current_].name) + " was given " +
                std::to_string(written_) + " of its " + std::to_string(expected()) + " bytes");
  out_.commit();
}

}  // namespace dsa
