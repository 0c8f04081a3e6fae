#include "experiments/sweep/tables.hpp"

#include <fmt/format.h>

#include <set>

namespace dsa::sweep {
namespace {

const std::vector<std::string> costs = {"wall_s", "cpu_s", "peak_mib"};

/// RFC 4180.
std::string field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

/// Dots in a name mean nesting to Vega-Lite, unless they are escaped.
std::string vega_field(const std::string& name) {
  std::string escaped;
  for (const char c : name) escaped += c == '.' ? std::string("\\.") : std::string(1, c);
  return escaped;
}

bool is_numeric(const Sweep& sweep, const std::string& name) {
  for (const Axis& axis : sweep.axes)
    for (const std::string& value : axis.values)
      if (axis.name == name && value.find_first_not_of("0123456789.eE+-") != std::string::npos)
        return false;
  return true;
}

Json vega_figure(const Sweep& sweep, const Figure& figure, const std::string& metric) {
  const auto scale = [](bool log) {
    return Json{{"type", log ? "log" : "linear"}, {"zero", false}};
  };
  Json x = {{"field", vega_field(figure.x)},
            {"type", is_numeric(sweep, figure.x) ? "quantitative" : "nominal"},
            {"title", figure.x}};
  if (x["type"] == "quantitative") x["scale"] = scale(figure.log_x);
  Json encoding = {{"x", x},
                   {"y",
                    {{"field", vega_field(metric)},
                     {"type", "quantitative"},
                     {"title", metric},
                     {"scale", scale(figure.log_y)}}}};
  if (!figure.series.empty())
    encoding["color"] = {{"field", vega_field(figure.series)}, {"type", "nominal"}};
  Json mean = encoding;
  mean["y"]["aggregate"] = "mean";
  return {{"title", figure.title},
          {"layer",
           {{{"mark", {{"type", "point"}, {"opacity", 0.5}}}, {"encoding", encoding}},
            {{"mark", "line"}, {"encoding", mean}},
            {{"mark", {{"type", "errorbar"}, {"extent", "ci"}}}, {"encoding", encoding}}}}};
}

}  // namespace

std::string csv_of(const Plan& plan, const std::vector<Row>& rows) {
  std::set<std::string> metrics;
  for (const Row& row : rows)
    for (const auto& [name, value] : row.metrics) metrics.insert(name);
  std::string text = "id,status";
  for (const Axis& axis : plan.sweep.axes) text += "," + field(axis.name);
  for (const std::string& metric : metrics) text += "," + field(metric);
  for (const std::string& cost : costs) text += "," + cost;
  text += ",error\n";
  for (const Row& row : rows) {
    text += row.id + (row.done ? ",done" : ",failed");
    for (const Axis& axis : plan.sweep.axes) text += "," + field(row.axes.at(axis.name));
    for (const std::string& metric : metrics) {
      const auto value = row.metrics.find(metric);
      text += value == row.metrics.end() ? "," : fmt::format(",{}", value->second);
    }
    for (const std::string& cost : costs)
      text += "," + (row.receipt.contains(cost) ? row.receipt.at(cost).dump() : std::string());
    text += "," + field(row.error) + "\n";
  }
  return text;
}

Json vega_of(const Plan& plan) {
  Json figures = Json::array();
  for (const Figure& figure : plan.sweep.figures)
    for (const std::string& metric : figure.metrics)
      figures.push_back(vega_figure(plan.sweep, figure, metric));
  return {{"$schema", "https://vega.github.io/schema/vega-lite/v5.json"},
          {"data", {{"url", "results.csv"}}},
          {"transform", {{{"filter", "datum.status == 'done'"}}}},
          {"vconcat", figures}};
}

}  // namespace dsa::sweep
