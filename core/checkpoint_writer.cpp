#include "core/checkpoint_writer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <system_error>

#include "core/check.hpp"
#include "core/json.hpp"
#include "core/temporary.hpp"

namespace dsa {
namespace {

namespace fs = std::filesystem;

Index bytes_of(const CheckpointWriter::Declaration& tensor) {
  Index n = bits_of(tensor.dtype) / 8;
  for (Index extent : tensor.shape) n *= extent;
  return n;
}

}  // namespace

CheckpointWriter::CheckpointWriter(fs::path out, std::vector<Declaration> tensors,
                                   Index shard_bytes)
    : out_(std::move(out)), tensors_(std::move(tensors)) {
  if (!out_.has_filename()) out_ = out_.parent_path();  // "OUT/" is "OUT"
  const fs::path partial = out_.string() + ".partial";
  require(!fs::exists(out_), out_.string() + " exists already; choose another name or remove it");
  require(!fs::exists(partial), partial.string() +
                                    " exists: an earlier run was interrupted, or "
                                    "another is under way; remove it first");
  require(!tensors_.empty(), "there is no tensor to write to " + out_.string());

  Index in_shard = 0;
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    const Index bytes = bytes_of(tensors_[i]);
    if (first_.empty() || (in_shard > 0 && in_shard + bytes > shard_bytes)) {
      first_.push_back(i);
      in_shard = 0;
    }
    in_shard += bytes;
    total_bytes_ += bytes;
  }
  const fs::path parent = out_.has_parent_path() ? out_.parent_path() : fs::path(".");
  std::error_code reason;
  const auto space = fs::space(parent, reason);
  require(!reason, "cannot write " + out_.string() + ": " + reason.message());
  require(static_cast<std::uintmax_t>(total_bytes_) <= space.available,
          out_.string() + " needs " + bytes_text(total_bytes_) + " but the disk has " +
              bytes_text(static_cast<Index>(space.available)) + " free; make room first");
  partial_ = make_temporary([&] {
    fs::create_directory(partial, reason);
    require(!reason, "cannot write " + out_.string() + ": " + reason.message());
    return partial;
  });
}

CheckpointWriter::~CheckpointWriter() {
  writer_.reset();
  if (!committed_ && !partial_.empty()) remove_temporary(partial_);
}

std::string CheckpointWriter::shard_name(std::size_t shard) const {
  if (first_.size() == 1) return "model.safetensors";
  return fmt::format("model-{:05}-of-{:05}.safetensors", shard + 1, first_.size());
}

void CheckpointWriter::next_shard() {
  const auto at = [&](std::size_t shard) {
    return tensors_.begin() +
           static_cast<std::ptrdiff_t>(shard < first_.size() ? first_[shard] : tensors_.size());
  };
  const std::vector<Declaration> mine(at(shard_), at(shard_ + 1));
  writer_.emplace(partial_ / shard_name(shard_), mine,
                  std::map<std::string, std::string>{{"format", "pt"}});
  left_ = 0;
  for (const Declaration& tensor : mine) left_ += bytes_of(tensor);
  ++shard_;
}

void CheckpointWriter::append(std::span<const std::byte> bytes) {
  if (left_ == 0) {
    require(shard_ < first_.size(), out_.string() + " is complete, yet more bytes follow");
    next_shard();
  }
  writer_->append(bytes);
  left_ -= static_cast<Index>(bytes.size());
  if (left_ > 0) return;
  writer_->commit();
  writer_.reset();
}

void CheckpointWriter::finish_tensors() {
  require(shard_ == first_.size() && left_ == 0,
          out_.string() + " is incomplete: not every declared tensor was written");
  if (first_.size() == 1) return;
  Json index;
  index["metadata"]["total_size"] = total_bytes_;
  for (std::size_t shard = 0; shard < first_.size(); ++shard) {
    const std::size_t end = shard + 1 < first_.size() ? first_[shard + 1] : tensors_.size();
    for (std::size_t i = first_[shard]; i < end; ++i)
      index["weight_map"][tensors_[i].name] = shard_name(shard);
  }
  write_text(partial_ / "model.safetensors.index.json", index.dump(2) + "\n");
}

void CheckpointWriter::commit() {
  std::error_code reason;
  rename_temporary(partial_, out_, reason);
  require(!reason,
          "cannot rename " + partial_.string() + " to " + out_.string() + ": " + reason.message());
  committed_ = true;
}

bool is_fp8_in_releases(std::string_view parameter) {
  for (std::string_view linear :
       {".q_proj", ".q_a_proj", ".q_b_proj", ".kv_a_proj_with_mqa", ".kv_b_proj", ".o_proj",
        ".indexer.wq_b", ".indexer.wk", ".gate_proj", ".up_proj", ".down_proj"})
    if (parameter.ends_with(std::string(linear) + ".weight")) return true;
  return false;
}

Index parse_bytes(std::string_view text, const std::string& what) {
  constexpr std::pair<std::string_view, double> units[] = {
      {"", 1},      {"b", 1},        {"kb", 1e3},     {"mb", 1e6},     {"gb", 1e9},
      {"tb", 1e12}, {"kib", 0x1p10}, {"mib", 0x1p20}, {"gib", 0x1p30}, {"tib", 0x1p40}};
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string unit;
  for (char c : text.substr(static_cast<std::size_t>(end - text.data())))
    if (c != ' ') unit += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (const auto& [name, factor] : units)
    if (error == std::errc{} && unit == name && number * factor >= 1 && number * factor < 0x1p62)
      return static_cast<Index>(number * factor);
  throw Error(what + " is \"" + std::string(text) +
              "\", expected a size such as 5GB, 500MB or 4GiB");
}

std::string bytes_text(Index bytes) {
  constexpr const char* units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
  double x = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (x >= 999.5 && unit + 1 < std::size(units)) {
    x /= 1000;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.3g} {}", x, units[unit]);
}

}  // namespace dsa
