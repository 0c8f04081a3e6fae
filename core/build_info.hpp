// core/build_info.hpp — what was built, from what, how: for --version and for every receipt.
#pragma once

namespace dsa {

struct BuildInfo {
  const char* version;
  const char* commit;  // "9ab12c0", or "9ab12c0 + uncommitted changes"
  const char* compiler;
  const char* flags;
};

const BuildInfo& build_info();

}  // namespace dsa
