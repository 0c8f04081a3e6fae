// optimized/train/pipeline/tensorboard.hpp — scalars as TensorBoard reads them.
//
// A file is a sequence of TFRecords: length (uint64), masked CRC-32C of these eight bytes, the
// bytes, masked CRC-32C of the bytes. The bytes are an Event in protobuf's wire format: field 1
// wall_time (double), 2 step (int64), 3 file_version (the first record), 5 summary, which holds in
// field 1 a Value: 1 tag, 2 simple_value (float). Sources: tensorflow/core/lib/io/record_writer.h,
// tensorflow/core/util/event.proto, tensorflow/core/framework/summary.proto.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "core/tensor.hpp"

namespace dsa::train {

/// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78), and TFRecord's mask of it.
std::uint32_t crc32c(std::string_view bytes);
std::uint32_t masked_crc32c(std::string_view bytes);

std::string tf_record(std::string_view bytes);
std::string version_event(double wall_time);
std::string scalar_event(double wall_time, Index step, std::string_view tag, float value);

class TensorBoard {
 public:
  /// DIR/events.out.tfevents.SECONDS.NAME, begun anew.
  TensorBoard(const std::filesystem::path& directory, double wall_time, const std::string& name);
  void add(double wall_time, Index step, std::string_view tag, double value);
  void flush();

 private:
  std::filesystem::path path_;
  std::ofstream out_;
};

}  // namespace dsa::train
