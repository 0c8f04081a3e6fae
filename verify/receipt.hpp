// verify/receipt.hpp — what produced a number.
#pragma once

#include <atomic>
#include <filesystem>
#include <optional>
#include <thread>

#include "verify/verdict.hpp"

namespace dsa::verify {

/// Version, commit, compiler, processor.
Receipt make_receipt();

/// And hashes of the inputs. The checkpoint's hash is that of
/// config.json and of every weight file's header: the weights of a large model are not read twice.
Receipt make_receipt(const std::filesystem::path& checkpoint, const std::filesystem::path& golden,
                     const std::optional<std::filesystem::path>& candidate);

/// Watches the anonymous resident memory of this process (what the page cache does not explain),
/// ten times a second from construction on.
class MemoryWatch {
 public:
  MemoryWatch();
  ~MemoryWatch();
  MemoryWatch(const MemoryWatch&) = delete;
  MemoryWatch& operator=(const MemoryWatch&) = delete;
  double peak_mib() const { return peak_; }

 private:
  void look();
  std::atomic<double> peak_ = 0;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

}  // namespace dsa::verify
