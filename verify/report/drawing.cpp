#include "verify/report/drawing.hpp"

#include <fmt/format.h>

#include "verify/report/text.hpp"

namespace dsa::verify {

std::string opened(double width, double height, const std::string& label) {
  return fmt::format("<svg viewBox=\"0 0 {:.0f} {:.0f}\" role=\"img\" aria-label=\"{}\">\n", width,
                     height, escaped(label));
}

std::string text(double x, double y, const std::string& kind, const std::string& shown) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" class=\"{}\">{}</text>\n", x, y, kind, shown);
}

std::string line(double x1, double y1, double x2, double y2, const std::string& kind) {
  return fmt::format(
      "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" class=\"{}\"/>\n", x1, y1, x2,
      y2, kind);
}

std::string rect(double x, double y, double width, double height, const std::string& kind) {
  return fmt::format(
      "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{:.1f}\" class=\"{}\"/>\n", x, y,
      width, height, kind);
}

std::string mark(double x, double y, double r, const std::string& shape, const std::string& kind,
                 const std::string& title) {
  const std::string tip = "<title>" + escaped(title) + "</title>";
  if (shape == "dot")
    return fmt::format(
        "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{:.1f}\" class=\"{}\">{}</circle>\n", x, y, r,
        kind, tip);
  const std::string path =
      shape == "diamond"
          ? fmt::format("M{:.1f} {:.1f}l{r:.1f} {r:.1f}l-{r:.1f} {r:.1f}l-{r:.1f} -{r:.1f}z", x,
                        y - 1.3 * r, fmt::arg("r", 1.3 * r))
          : fmt::format("M{:.1f} {:.1f}l{d:.1f} {d:.1f}m0 -{d:.1f}l-{d:.1f} {d:.1f}", x - r, y - r,
                        fmt::arg("d", 2 * r));
  return fmt::format("<path d=\"{}\" class=\"{}{}\">{}</path>\n", path, kind,
                     shape == "cross" ? " cross" : "", tip);
}

}  // namespace dsa::verify
