// optimized/cuda/host/global_memory.hpp — the memory of the emulated device.
//
// Buffers lie between guard zones, and begin as NaN in every format.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dsa::cuda::host {

/// 256-byte aligned, as cudaMalloc's.
void* allocate(std::size_t bytes);
void release(void*);

/// Bytes of all current buffers, without their guard zones.
std::int64_t allocated_bytes();

/// For the running thread: an Error unless [p, p + bytes) lies within one buffer.
void check_global(const void* p, std::size_t bytes);

/// The same of one access, whose address has to be a multiple of its size.
void check_wide(const void* p, std::size_t bytes);

/// Error if a guard zone was written to.
void check_guards(const char* kernel);

}  // namespace dsa::cuda::host
