// verify/report/drawing.hpp — the strokes that every picture of a report is made of: SVG elements,
// coloured by classes of the style sheet.
#pragma once

#include <string>

namespace dsa::verify {

/// The begin of a picture of this size in its own units; "</svg>" ends it.
std::string opened(double width, double height, const std::string& label);

/// `shown` is markup.
std::string text(double x, double y, const std::string& kind, const std::string& shown);
std::string line(double x1, double y1, double x2, double y2, const std::string& kind);
std::string rect(double x, double y, double width, double height, const std::string& kind);

/// A mark with a tooltip: `shape` is "dot", "diamond" or "cross".
std::string mark(double x, double y, double r, const std::string& shape, const std::string& kind,
                 const std::string& title);

}  // namespace dsa::verify
