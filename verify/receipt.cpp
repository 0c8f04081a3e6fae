#include "verify/receipt.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>
#include <string>

#include "core/build_info.hpp"
#include "core/file.hpp"
#include "core/sha256.hpp"
#include "reference/ops/linear.hpp"

namespace dsa::verify {
namespace {

namespace fs = std::filesystem;

std::string field_of(const char* file, const std::string& key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);)
    if (line.starts_with(key)) {
      const auto colon = line.find(':');
      const auto value = line.find_first_not_of(" \t", colon + 1);
      return value == std::string::npos ? "" : line.substr(value);
    }
  return "";
}

std::string checkpoint_hash(const fs::path& directory) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(directory))
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  std::string all = read_text(directory / "config.json");
  for (const fs::path& file : files) {
    const auto mapped = MappedFile::open(file);
    std::uint64_t header = 0;
    std::memcpy(&header, mapped->bytes().data(), sizeof header);
    all += sha256(mapped->bytes().first(std::min<std::size_t>(mapped->bytes().size(), header + 8)));
  }
  return sha256(std::as_bytes(std::span(all)));
}

}  // namespace

Receipt make_receipt() {
  Receipt receipt;
  receipt.version = build_info().version;
  receipt.commit = build_info().commit;
  receipt.compiler = build_info().compiler;
  receipt.flags = build_info().flags;
  receipt.device = field_of("/proc/cpuinfo", "model name");
  receipt.kernel = reference::linear_kernel();
  return receipt;
}

Receipt make_receipt(const fs::path& checkpoint, const fs::path& golden,
                     const std::optional<fs::path>& candidate) {
  Receipt receipt = make_receipt();
  receipt.checkpoint_sha256 = checkpoint_hash(checkpoint);
  receipt.golden_sha256 = sha256_of_file(golden);
  if (candidate) receipt.candidate_sha256 = sha256_of_file(*candidate);
  return receipt;
}

MemoryWatch::MemoryWatch()
    : thread_([this] {
        for (; !stop_; std::this_thread::sleep_for(std::chrono::milliseconds(100))) look();
      }) {}

MemoryWatch::~MemoryWatch() {
  stop_ = true;
  thread_.join();
}

void MemoryWatch::look() {
  const std::string kilobytes = field_of("/proc/self/status", "RssAnon");
  if (!kilobytes.empty()) peak_ = std::max(peak_.load(), std::stod(kilobytes) / 1024);
}

}  // namespace dsa::verify
