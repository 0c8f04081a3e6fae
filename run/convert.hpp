// run/convert.hpp — a checkpoint in another format, streamed and read back.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "cli/progress.hpp"
#include "core/checkpoint.hpp"

namespace dsa::run {

struct Conversion {
  std::filesystem::path in, out;
  Dtype dtype = Dtype::bf16;           // F32, BF16 or F8_E4M3
  std::optional<bool> packed_experts;  // nothing: as they are in `in`
  bool keep_mtp = true;
  Index shard_bytes = 5'000'000'000;
  cli::Progress progress = {};
};

/// Writes `out` and compares every value read back with the rounding that was meant:
///   F32, BF16  the nearest number of the format, ties to even;
///   F8_E4M3    round(x / scale) * scale, one scale a 128 x 128 block: its largest magnitude / 448
///              in F32, rounded up to a power of two where scale_fmt is "ue8m0". Weights that are
///              FP8 already keep their codes and scales.
/// Returns one line for the user. Errors leave nothing behind.
std::string convert(const Conversion&);

}  // namespace dsa::run
