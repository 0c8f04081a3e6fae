#include "verify/report/svg.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/trace_names.hpp"
#include "verify/report/drawing.hpp"
#include "verify/report/text.hpp"

namespace dsa::verify {
namespace {

constexpr double page = 1000;  // width of every picture in its own units: about pixels
constexpr double left = 76, right = 986;
constexpr double band = 30;  // height of the strips for values that a log axis cannot hold
constexpr std::size_t most_dots = 1200;  // more than a screen is wide

// --- axes ---

/// Decades from the bottom up, with a strip below for zero and one above for NaN and infinity.
struct LogAxis {
  double top = 0, bottom = 0;  // of the picture's plane, strips included
  int low = 0, high = 1;       // decades
  bool zero = false, tiny = false, beyond = false;

  LogAxis(const std::vector<double>& values, int most_decades, double top_, double bottom_)
      : top(top_), bottom(bottom_) {
    double smallest = std::numeric_limits<double>::infinity(), largest = 0;
    for (const double v : values) {
      if (!std::isfinite(v)) beyond = true;
      if (v == 0) zero = true;
      if (!std::isfinite(v) || v <= 0) continue;
      smallest = std::min(smallest, v);
      largest = std::max(largest, v);
    }
    if (largest == 0) smallest = largest = 1;
    high = static_cast<int>(std::floor(std::log10(largest))) + 1;
    low = static_cast<int>(std::floor(std::log10(smallest)));
    if (low < high - most_decades) {
      low = high - most_decades;
      zero = tiny = true;  // the strip then also holds what is too small to matter
    }
  }

  double floor() const { return zero ? bottom - band : bottom; }
  double ceiling() const { return beyond ? top + band : top; }
  double at(double v) const {
    if (!std::isfinite(v)) return top + band / 2 - 5;
    const double decade = v > 0 ? std::log10(v) : -std::numeric_limits<double>::infinity();
    if (decade < low) return bottom - band / 2 + 5;
    return floor() - (decade - low) / (high - low) * (floor() - ceiling());
  }

  std::string drawn() const {
    std::string out;
    const int step = std::max(1, (high - low + 5) / 6);
    for (int d = low; d <= high; d += step) {
      const double y = at(std::pow(10, d) * 1.0000001);  // the power may round to below its decade
      const std::string exponent = (d < 0 ? "\xE2\x88\x92" : "") + std::to_string(std::abs(d));
      out += line(left, y, right, y, "grid");
      out += text(left - 8, y + 4, "tick end",
                  d == 0   ? "1"
                  : d == 1 ? "10"
                           : "10<tspan class=\"sup\" dy=\"-5\">" + exponent + "</tspan>");
    }
    if (zero) {
      out += line(left, bottom, right, bottom, "grid");
      out += text(left - 8, bottom - band / 2 + 9, "tick end", tiny ? "\xE2\x89\x88 0" : "0");
    }
    if (beyond) out += text(left - 8, top + band / 2 - 1, "tick end", "\xE2\x88\x9E, NaN");
    return out;
  }
};

/// Where the rows of a golden lie: sequence after sequence.
struct RowAxis {
  double n = 1;
  std::vector<Place> rows;

  double left_of(std::size_t i) const { return left + (right - left) * static_cast<double>(i) / n; }
  double middle_of(std::size_t i) const { return (left_of(i) + left_of(i + 1)) / 2; }

  static Index nice_step(double rows_per_tick) {
    for (Index decade = 1;; decade *= 10)
      for (const Index step : {decade, 2 * decade, 5 * decade})
        if (static_cast<double>(step) >= rows_per_tick) return step;
  }

  /// Position ticks and, of several sequences, their borders and numbers.
  std::string drawn(double top, double bottom) const {
    std::string out;
    const Index step = nice_step(n / 12);
    const bool several = !rows.empty() && rows.front().sequence != rows.back().sequence;
    double last_tick = -100, begin = left;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const double x = middle_of(i);
      if (rows[i].position % step == 0 && x - last_tick > 34) {
        out += line(x, bottom, x, bottom + 4, "axis");
        out += text(x, bottom + 17, "tick mid", std::to_string(rows[i].position));
        last_tick = x;
      }
      const bool last = i + 1 == rows.size() || rows[i + 1].sequence != rows[i].sequence;
      if (!several || !last) continue;
      const double end = left_of(i + 1);
      if (i + 1 < rows.size()) out += line(end, top, end, bottom + 22, "border");
      const std::string number = std::to_string(rows[i].sequence);
      if (end - begin > 76)
        out += text((begin + end) / 2, bottom + 34, "tick mid strong", "sequence " + number);
      else if (end - begin > 20)
        out += text((begin + end) / 2, bottom + 34, "tick mid strong", number);
      begin = end;
    }
    return out + line(left, bottom, right, bottom, "axis") +
           text((left + right) / 2, bottom + (several ? 53 : 38), "title mid",
                several ? "position in its sequence" : "position");
  }
};

// --- KL ---

double ratio_of(const RowResult& row) {
  return row.kl == 0 ? 0 : row.kl / row.kl_limit;  // NaN: no number, and not within the limit
}

/// Of each group of neighbouring rows, the one to draw: the nearest to its limit, or above it.
std::vector<std::size_t> drawn_rows(const std::vector<RowResult>& rows) {
  const std::size_t group = (rows.size() + most_dots - 1) / most_dots;
  std::vector<std::size_t> drawn;
  for (std::size_t first = 0; first < rows.size(); first += group) {
    std::size_t best = first;
    const std::size_t end = std::min(first + group, rows.size());
    for (std::size_t i = first; i < end; ++i) {
      const bool better = !(ratio_of(rows[i]) <= ratio_of(rows[best]));
      if (!rows[best].decided() ? better || rows[i].decided() : better && rows[i].decided())
        best = i;
    }
    drawn.push_back(best);
  }
  return drawn;
}

std::string kl_dots(const LogitsResult& logits, const std::vector<std::size_t>& drawn,
                    const LogAxis& y, const RowAxis& x) {
  std::string out;
  const double r = drawn.size() > 600 ? 1.8 : drawn.size() > 200 ? 2.4 : 3.2;
  for (const std::size_t i : drawn) {
    const RowResult& row = logits.rows[i];
    const bool over = row.decided() && !(row.kl <= row.kl_limit);
    out += mark(x.middle_of(i), y.at(row.kl), r, std::isfinite(row.kl) ? "dot" : "cross",
                !row.decided() ? "open"
                : over         ? "bad"
                               : "good",
                fmt::format("sequence {}, position {}: KL {}, limit {}{}", row.at.sequence,
                            row.at.position, number(row.kl), number(row.kl_limit),
                            row.undecided   ? ", undecided: " + row.decision
                            : row.explained ? ", explained: KL " + number(row.kl_explained) +
                                                  " with decisions replayed"
                                            : ""));
  }
  return out;
}

/// A step for each judged row; rows that are undecided have no limit of their own.
std::string kl_limit(const LogitsResult& logits, const std::vector<std::size_t>& drawn,
                     const LogAxis& y, const RowAxis& x) {
  std::string path;
  for (const std::size_t i : drawn) {
    const RowResult& row = logits.rows[i];
    if (!row.decided() || !std::isfinite(row.kl_limit)) continue;
    const double h = y.at(row.kl_limit);
    path += path.empty() ? fmt::format("M{:.1f} {:.1f}", left, h)
                         : fmt::format("H{:.1f}V{:.1f}", x.left_of(i), h);
  }
  if (path.empty()) return "";
  path += fmt::format("H{:.1f}", right);
  return fmt::format(
      "<path d=\"{0}V{1:.1f}H{2:.1f}z\" class=\"above\"/>\n"
      "<path d=\"{0}\" class=\"limit\"/>\n",
      path, y.ceiling(), left);
}

// --- errors ---

/// What the log axis shows of a tensor: one that fails for another reason than its error goes to
/// the strip above.
double height_of(const TensorResult& t) {
  const bool shown = t.ok() || t.worst > 1;
  return shown ? t.worst : std::numeric_limits<double>::infinity();
}

/// Shaded stripes with the layer's number below.
std::string layer_stripes(const std::vector<TensorResult>& tensors, double top, double bottom) {
  std::string out;
  const double width = (right - left) / static_cast<double>(tensors.size());
  double last_label = -100;
  bool shaded = false;
  for (std::size_t first = 0; first < tensors.size();) {
    const Index layer = layer_of(tensors[first].name);
    std::size_t end = first + 1;
    while (end < tensors.size() && layer_of(tensors[end].name) == layer) ++end;
    const double x = left + width * static_cast<double>(first);
    const double w = width * static_cast<double>(end - first);
    if (layer >= 0) {
      shaded = !shaded;
      if (shaded) out += rect(x, top, w, bottom - top, "stripe");
      if (const double middle = x + w / 2; middle - last_label > 24) {
        out += text(middle, bottom + 17, "tick mid", std::to_string(layer));
        last_label = middle;
      }
    }
    first = end;
  }
  return out;
}

/// The name stands above the plane, where no point can lie below it.
std::string departure_label(double x, double top, double bottom, const std::string& name) {
  const bool leftwards = x > (left + right) / 2;
  return line(x, top - 16, x, bottom, "departure") + text(leftwards ? x - 7 : x + 7, top - 7,
                                                          leftwards ? "flag end" : "flag",
                                                          "first departure: " + escaped(name));
}

// --- selections ---

/// Five steps, from full agreement to less than half.
int step_of(double agreement) {
  if (agreement == 1) return 0;
  if (agreement >= 0.99) return 1;
  if (agreement >= 0.9) return 2;
  return agreement >= 0.5 ? 3 : 4;  // NaN is the last
}

/// One layer: neighbouring rows of the same step are one rectangle.
std::string selection_row(const std::vector<double>& agreement, const RowAxis& x, double y,
                          double height) {
  std::string out;
  for (std::size_t first = 0; first < agreement.size();) {
    const int step = step_of(agreement[first]);
    std::size_t end = first + 1;
    while (end < agreement.size() && step_of(agreement[end]) == step) ++end;
    out += rect(x.left_of(first), y, x.left_of(end) - x.left_of(first), height,
                fmt::format("heat{}", step));
    first = end;
  }
  return out;
}

RowAxis rows_of(const std::optional<LogitsResult>& logits, std::size_t n) {
  RowAxis axis{static_cast<double>(n), {}};
  if (logits && logits->rows.size() == n) {
    for (const RowResult& row : logits->rows) axis.rows.push_back(row.at);
  } else {
    for (std::size_t i = 0; i < n; ++i) axis.rows.push_back({0, static_cast<Index>(i), -1});
  }
  return axis;
}

}  // namespace

std::string kl_chart(const LogitsResult& logits) {
  if (logits.rows.empty()) return "";
  constexpr double height = 362, top = 12, bottom = 302;
  const std::vector<std::size_t> drawn = drawn_rows(logits.rows);
  std::vector<double> values;
  for (const std::size_t i : drawn) {
    values.push_back(logits.rows[i].kl);
    const double limit = logits.rows[i].kl_limit;
    if (logits.rows[i].decided() && std::isfinite(limit)) values.push_back(limit);
  }
  const LogAxis y(values, 24, top, bottom);
  const RowAxis x = rows_of(logits, logits.rows.size());
  return opened(page, height, "KL divergence of every row on a logarithmic axis, with its limit") +
         y.drawn() + kl_limit(logits, drawn, y, x) + x.drawn(top, bottom) +
         kl_dots(logits, drawn, y, x) + "</svg>\n";
}

std::string error_chart(const Judgement& j) {
  if (j.tensors.empty()) return "";
  const double top = j.first_departure ? 28 : 12, bottom = top + 272;
  std::vector<double> values = {1};
  for (const TensorResult& t : j.tensors) values.push_back(height_of(t));
  const LogAxis y(values, 12, top, bottom);
  std::string out = layer_stripes(j.tensors, top, bottom) + y.drawn() +
                    line(left, y.at(1), right, y.at(1), "limit") +
                    line(left, bottom, right, bottom, "axis");
  const double width = (right - left) / static_cast<double>(j.tensors.size());
  const double r = width > 7 ? 3.4 : width > 3 ? 2.4 : 1.7;
  bool labelled = false;
  for (std::size_t i = 0; i < j.tensors.size(); ++i) {
    const TensorResult& t = j.tensors[i];
    const double x = left + width * (static_cast<double>(i) + 0.5), value = height_of(t);
    if (!labelled && j.first_departure == t.name) {
      out += departure_label(x, top, bottom, t.name);
      labelled = true;
    }
    const bool decision = t.kind != TensorResult::Kind::tensor;
    const std::string found = t.ok() ? number(t.worst) + " of the error allowed" : complaint(t);
    out += mark(x, y.at(value), r,
                !std::isfinite(value) ? "cross"
                : decision            ? "diamond"
                                      : "dot",
                t.ok() ? "good" : "bad", t.name + ": " + found);
  }
  out += text((left + right) / 2, bottom + 38, "title mid", "layer; tensors in order of execution");
  return opened(page, bottom + 48, "Largest error of each tensor in units of the error allowed") +
         out + "</svg>\n";
}

std::string selection_chart(const Judgement& j) {
  std::vector<const TensorResult*> layers;
  std::size_t n = 0;
  for (const TensorResult& t : j.tensors) {
    if (t.kind != TensorResult::Kind::selection || t.agreement_by_position.empty()) continue;
    layers.push_back(&t);
    n = std::max(n, t.agreement_by_position.size());
  }
  if (layers.empty()) return "";
  const double each = std::clamp(440.0 / static_cast<double>(layers.size()), 5.0, 20.0);
  constexpr double top = 8;
  const double bottom = top + each * static_cast<double>(layers.size());
  const RowAxis x = rows_of(j.logits, n);
  std::string out =
      opened(page, bottom + 60, "Agreement of the selected keys by layer and position");
  double last_label = -100;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const double y = top + each * static_cast<double>(i);
    const Index layer = layer_of(layers[i]->name);
    out += selection_row(layers[i]->agreement_by_position, x, y, each > 8 ? each - 2 : each);
    if (y - last_label < 14) continue;
    out += text(left - 8, y + each / 2 + 3, "tick end",
                layer < 0 ? "#" + std::to_string(i) : "layer " + std::to_string(layer));
    last_label = y;
  }
  return out + x.drawn(top, bottom) + "</svg>\n";
}

}  // namespace dsa::verify
