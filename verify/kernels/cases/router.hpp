// verify/kernels/cases/router.hpp — the parts of a Config that a case of the router gives.
#pragma once

#include "core/config.hpp"
#include "verify/kernels/op.hpp"

namespace dsa::verify::kernels {

Config router_config(const Case&);

}  // namespace dsa::verify::kernels
