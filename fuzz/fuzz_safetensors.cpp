// fuzz/fuzz_safetensors.cpp — any bytes are a safetensors file, a golden, or a dsa::Error.
#include <cstdint>

#include "core/recording.hpp"

namespace {

/// Reads every byte that a tensor claims to have, so that the sanitizers see them all.
std::byte sum_of(const dsa::StoredTensor& tensor) {
  std::byte sum{0};
  for (dsa::Index i = 0; i < tensor.bytes(); ++i) sum ^= tensor.data[i];
  return sum;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  try {
    const auto file = dsa::SafetensorsFile::parse(bytes, "input");
    volatile std::byte keep{0};
    for (const auto& tensor : file.tensors()) keep = sum_of(tensor);
    static_cast<void>(keep);
    const auto golden = dsa::parse_recording(bytes, "input", "", 0);
    for (const dsa::Trace::Entry& entry : golden.trace.entries()) entry.values();
  } catch (const dsa::Error&) {
  }
  return 0;
}
