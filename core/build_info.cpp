#include "core/build_info.hpp"

#include "core/build_info_generated.hpp"

namespace dsa {

const BuildInfo& build_info() { return generated_build_info; }

}  // namespace dsa
