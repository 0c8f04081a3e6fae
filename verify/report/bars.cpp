// Bars on a logarithmic axis, each with its name above it.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "verify/report/svg.hpp"
#include "verify/report/text.hpp"

namespace dsa::verify {
namespace {

constexpr double left = 26, right = 914, top = 10, each = 34, bar_height = 11;

/// Decades that hold every positive finite value, at most 36 of them.
struct Decades {
  int low = 0, high = 1;

  explicit Decades(const std::vector<Bar>& bars) {
    bool any = false;
    for (const Bar& bar : bars) {
      if (!std::isfinite(bar.value) || bar.value <= 0) continue;
      const int decade = static_cast<int>(std::floor(std::log10(bar.value)));
      low = any ? std::min(low, decade) : decade;
      high = any ? std::max(high, decade + 1) : decade + 1;
      any = true;
    }
    low = std::max(low - 1, high - 36);  // the smallest bar is seen, too
  }

  double at(double value) const {
    if (!std::isfinite(value)) return right;
    if (value <= 0) return left;
    const double share = (std::log10(value) - low) / (high - low);
    return left + std::clamp(share, 0.0, 1.0) * (right - left);
  }
};

std::string axis(const Decades& decades, double bottom, const std::string& unit) {
  std::string out;
  const int step = std::max(1, (decades.high - decades.low + 7) / 8);
  for (int d = decades.low; d <= decades.high; d += step) {
    const double x = left + (right - left) * (d - decades.low) / (decades.high - decades.low);
    out += fmt::format(
        "<line x1=\"{0:.1f}\" y1=\"{1:.1f}\" x2=\"{0:.1f}\" y2=\"{2:.1f}\" class=\"grid\"/>\n"
        "<text x=\"{0:.1f}\" y=\"{3:.1f}\" class=\"tick mid\">10<tspan class=\"sup\" "
        "dy=\"-5\">{4}</tspan></text>\n",
        x, top, bottom, bottom + 18,
        d < 0 ? "\xE2\x88\x92" + std::to_string(-d) : std::to_string(d));
  }
  return out + fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" class=\"title mid\">{}</text>\n",
                           (left + right) / 2, bottom + 40, escaped(unit));
}

}  // namespace

std::string bar_chart(const std::vector<Bar>& bars, const std::string& unit) {
  if (bars.empty()) return "";
  const Decades decades(bars);
  const double bottom = top + each * static_cast<double>(bars.size());
  std::string out =
      fmt::format("<svg viewBox=\"0 0 1000 {:.0f}\" role=\"img\" aria-label=\"{}\">\n", bottom + 50,
                  escaped(unit)) +
      axis(decades, bottom, unit);
  double y = top + 14;
  for (const Bar& bar : bars) {
    const double end = decades.at(bar.value);
    out += fmt::format(
        "<text x=\"{:.1f}\" y=\"{:.1f}\" class=\"strong\">{}</text>\n"
        "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" class=\"{}\"/>\n"
        "<text x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n",
        left, y, escaped(bar.name), left, y + 4, std::max(end - left, 1.0), bar_height, bar.kind,
        std::max(end, left + 1) + 6, y + 13.5, number(bar.value));
    y += each;
  }
  return out + "</svg>\n";
}

}  // namespace dsa::verify
