#include "experiments/sweep/report/chart.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "experiments/sweep/report/scale.hpp"
#include "verify/report/drawing.hpp"
#include "verify/report/text.hpp"

namespace dsa::sweep {
namespace {

using namespace dsa::verify;  // the strokes

constexpr double width = 520, height = 330;  // units: about pixels of a phone
constexpr double left = 74, right = 506, top = 14, bottom = 272;
constexpr double inset = 24;        // of the first and last value of x from the frame
constexpr double side_by_side = 9;  // between the series of one value of x

struct Dot {
  double value = 0;
  const Row* row = nullptr;
};

/// series -> value of x -> runs
using Dots = std::map<std::string, std::map<std::string, std::vector<Dot>>>;

Dots dots_of(const Figure& figure, const std::vector<std::string>& metrics,
             const std::vector<Row>& rows) {
  Dots dots;
  for (const std::string& metric : metrics)
    for (const Row& row : rows) {
      const auto value = value_of(row, metric);
      if (!row.done || !value || (figure.log_y && *value <= 0)) continue;
      const std::string series = figure.together         ? metric
                                 : figure.series.empty() ? ""
                                                         : row.axes.at(figure.series);
      dots[series][row.axes.at(figure.x)].push_back({*value, &row});
    }
  return dots;
}

/// Runs that share a value of the pairing axis are one: their mean.
Estimate estimate_of(const std::vector<Dot>& dots, const std::string& pair) {
  std::map<std::string, std::vector<double>> groups;
  for (const Dot& dot : dots) {
    const auto at = dot.row->axes.find(pair);
    groups[at == dot.row->axes.end() ? dot.row->id : at->second].push_back(dot.value);
  }
  std::vector<double> means;
  for (const auto& [value, numbers] : groups) {
    double mean = 0;
    for (const double number : numbers) mean += number / static_cast<double>(numbers.size());
    means.push_back(mean);
  }
  return estimate(means);
}

const Axis& axis_named(const Sweep& sweep, const std::string& name) {
  return *std::find_if(sweep.axes.begin(), sweep.axes.end(),
                       [&](const Axis& axis) { return axis.name == name; });
}

/// Where the values of x stand: numbers by their size, words side by side.
class Columns {
 public:
  Columns(const Axis& axis, bool log) : values_(axis.values) {
    std::vector<double> numbers;
    for (const std::string& value : values_) {
      double number = 0;
      const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
      if (error == std::errc{} && end == value.data() + value.size())
        numbers.push_back(log ? std::log(number) : number);
    }
    if (numbers.size() != values_.size() || (log && !std::isfinite(numbers.front()))) {
      numbers.clear();
      for (std::size_t i = 0; i < values_.size(); ++i) numbers.push_back(static_cast<double>(i));
    }
    const auto [least, most] = std::minmax_element(numbers.begin(), numbers.end());
    for (std::size_t i = 0; i < numbers.size(); ++i)
      places_[values_[i]] = *least == *most ? (left + right) / 2
                                            : left + inset +
                                                  (numbers[i] - *least) / (*most - *least) *
                                                      (right - left - 2 * inset);
  }

  double at(const std::string& value) const { return places_.at(value); }

  std::string drawn(const std::string& title) const {
    std::string out = line(left, bottom, right, bottom, "axis");
    double last = -100;
    for (const auto& [x, value] : in_order()) {
      out += line(x, bottom, x, bottom + 5, "axis");
      if (x - last < 7.0 * static_cast<double>(value.size()) + 14) continue;
      out += text(x, bottom + 22, "tick mid", escaped(value));
      last = x;
    }
    return out + text((left + right) / 2, bottom + 48, "title mid", escaped(title));
  }

 private:
  std::vector<std::pair<double, std::string>> in_order() const {
    std::vector<std::pair<double, std::string>> all;
    for (const auto& [value, x] : places_) all.emplace_back(x, value);
    std::sort(all.begin(), all.end());
    return all;
  }

  std::vector<std::string> values_;
  std::map<std::string, double> places_;
};

std::string y_axis(const Scale& y) {
  std::string out;
  for (const double tick : y.ticks()) {
    out += line(left, y.at(tick), right, y.at(tick), "grid");
    out += text(left - 8, y.at(tick) + 5, "tick end", fmt::format("{:.4g}", tick));
  }
  return out;
}

/// One series: its runs, then means and intervals above them.
std::string drawn_series(const Sweep& sweep, const std::map<std::string, std::vector<Dot>>& runs,
                         const std::string& kind, double shift, const Columns& x, const Scale& y,
                         bool log_y) {
  std::string dots, means, path;
  std::vector<std::pair<double, double>> curve;
  for (const auto& [value, points] : runs) {
    const double at = x.at(value) + shift;
    for (const Dot& dot : points)
      dots += mark(at, y.at(dot.value), 4.5, "dot", kind + " run",
                   name_of(Point{dot.row->id, dot.row->axes, {}}) + ": " + number(dot.value) +
                       " (" + dot.row->id + ")");
    const Estimate e = estimate_of(points, sweep.pair);
    curve.emplace_back(at, y.at(e.mean));
    // An interval of one run is everything; one that reaches 0 leaves a log axis.
    if (e.n > 1 && !(log_y && e.low <= 0))
      means += line(at, std::clamp(y.at(e.low), top, bottom), at,
                    std::clamp(y.at(e.high), top, bottom), kind + " mean");
    means += line(at - 6, y.at(e.mean), at + 6, y.at(e.mean), kind + " mean");
  }
  std::sort(curve.begin(), curve.end());
  for (const auto& [at, level] : curve)
    path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", at, level);
  return "<path d=\"" + path + "\" class=\"" + kind + " mean\"/>\n" + means + dots;
}

std::vector<double> shown_values(const Sweep& sweep, const Dots& dots, bool log_y) {
  std::vector<double> values;
  for (const auto& [name, runs] : dots)
    for (const auto& [value, points] : runs) {
      const Estimate e = estimate_of(points, sweep.pair);
      double least = e.mean, most = e.mean;
      for (const Dot& dot : points)
        values.push_back(dot.value), least = std::min(least, dot.value),
                                     most = std::max(most, dot.value);
      // The interval of two runs may be a hundred times their distance: it is cut at the frame.
      const double reach = 2 * (most - least);
      for (const double end : {e.low, e.high})
        if (end > (log_y ? 0 : e.mean - reach) && end < e.mean + reach) values.push_back(end);
    }
  return values;
}

}  // namespace

std::vector<std::string> series_of(const Sweep& sweep, const Figure& figure) {
  if (figure.together) return figure.metrics;
  return figure.series.empty() ? std::vector<std::string>{""}
                               : axis_named(sweep, figure.series).values;
}

std::string chart(const Sweep& sweep, const Figure& figure, const std::vector<std::string>& metrics,
                  const std::vector<Row>& rows) {
  const Dots dots = dots_of(figure, metrics, rows);
  if (dots.empty()) return "";
  const Columns x(axis_named(sweep, figure.x), figure.log_x);
  const Scale y(shown_values(sweep, dots, figure.log_y), figure.log_y, bottom, top);
  std::string out = opened(width, height, figure.title + " against " + figure.x) + y_axis(y) +
                    x.drawn(figure.x + (figure.log_x ? " (log)" : ""));
  const std::vector<std::string> names = series_of(sweep, figure);
  const double middle = static_cast<double>(names.size() - 1) / 2;
  for (std::size_t i = 0; i < names.size(); ++i)
    if (const auto runs = dots.find(names[i]); runs != dots.end())
      out += drawn_series(sweep, runs->second, fmt::format("series{}", i % 6),
                          (static_cast<double>(i) - middle) * side_by_side, x, y, figure.log_y);
  return out + "</svg>\n";
}

}  // namespace dsa::sweep
