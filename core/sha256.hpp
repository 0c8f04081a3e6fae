// core/sha256.hpp — SHA-256 by libcrypto, as lower-case hexadecimal.
#pragma once

#include <filesystem>
#include <span>
#include <string>

namespace dsa {

std::string sha256(std::span<const std::byte>);
std::string sha256_of_file(const std::filesystem::path&);

}  // namespace dsa
