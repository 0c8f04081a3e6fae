// verify/measure/fit.hpp — which value of a constant leaves least.
#pragma once

#include <functional>

namespace dsa::verify {

/// Minimises `left` over [from, to], both positive, by the logarithm: a scan finds the valley, a
/// golden section its bottom. The roundest number that is as good is returned: 0.0003 rather than
/// 0.00030002. `whole`: integers only.
double fit(const std::function<double(double)>& left, double from, double to, bool whole);

}  // namespace dsa::verify
