// core/json_fwd.hpp — Json by name: enough for a declaration, and a second less for every source.
#pragma once

#include <nlohmann/json_fwd.hpp>

namespace dsa {

using Json = nlohmann::json;

}  // namespace dsa
