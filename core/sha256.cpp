#include "core/sha256.hpp"

#include <openssl/evp.h>

#include <array>

#include "core/check.hpp"
#include "core/file.hpp"

namespace dsa {

std::string sha256(std::span<const std::byte> bytes) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  const int done =
      EVP_Digest(bytes.data(), bytes.size(), digest.data(), &size, EVP_sha256(), nullptr);
  require(done == 1 && size == 32, "libcrypto offers no SHA-256; install a complete OpenSSL");

  constexpr std::string_view digits = "0123456789abcdef";
  std::string text;
  for (unsigned int i = 0; i < size; ++i) {
    text += digits[digest[i] >> 4];
    text += digits[digest[i] & 15];
  }
  return text;
}

std::string sha256_of_file(const std::filesystem::path& path) {
  return sha256(MappedFile::open(path)->bytes());
}

}  // namespace dsa
