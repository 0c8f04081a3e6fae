#include "experiments/sweep/plan.hpp"

#include <algorithm>
#include <charconv>
#include <set>

#include "core/check.hpp"
#include "core/file.hpp"
#include "core/json.hpp"
#include "core/keys.hpp"
#include "core/outputs.hpp"
#include "core/sha256.hpp"
#include "experiments/sweep/lock.hpp"

namespace dsa::sweep {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t id_digits = 12;  // 48 bits: no two of a million points are likely to agree
constexpr std::size_t most_points = 100'000;

const Axis* axis_of(const Sweep& sweep, const std::string& name) {
  for (const Axis& axis : sweep.axes)
    if (axis.name == name) return &axis;
  return nullptr;
}

void check_value(const Sweep& sweep, const std::string& who, const std::string& name,
                 const std::string& value) {
  const Axis* axis = axis_of(sweep, name);
  require(axis != nullptr, who + " is about the axis " + in_quotes(name) +
                               ", which the sweep does not have; add it");
  require(
      value.empty() || std::count(axis->values.begin(), axis->values.end(), value) == 1,
      who + " is about " + name + "=" + value + ", which is no point of the sweep; add the value");
}

void check_names(const Sweep& sweep) {
  for (const Claim& claim : sweep.claims) {
    const std::string who = "the claim " + in_quotes(claim.says);
    for (const std::string& value : {claim.from, claim.to})
      if (!claim.axis.empty()) check_value(sweep, who, claim.axis, value);
    for (const auto& [name, value] : claim.where) check_value(sweep, who, name, value);
    check_value(sweep, who, sweep.pair, "");
  }
  for (const Figure& figure : sweep.figures)
    for (const std::string& name : {figure.x, figure.series})
      if (!name.empty()) check_value(sweep, "the figure " + in_quotes(figure.title), name, "");
}

std::string id_of(const Plan& plan, const Settings& keys) {
  const Json content = {{"program", plan.program}, {"config", plan.config_sha256}, {"keys", keys}};
  const std::string text = content.dump();
  return sha256(std::as_bytes(std::span(text))).substr(0, id_digits);
}

/// The point with these values; keys that two of them set are a mistake in the sweep.
Point point_of(const Plan& plan, const Settings& values) {
  Point point{"", values, plan.sweep.fixed};
  Settings setter;
  for (const auto& [axis, value] : values)
    for (const auto& [key, set] : settings_of(axis, value)) {
      const auto [by, is_new] = setter.try_emplace(key, axis);
      require(is_new,
              "the axes " + by->second + " and " + axis + " both set " + key + "; give one");
      point.keys[key] = set;
    }
  point.id = id_of(plan, point.keys);
  return point;
}

void check_axes(const Sweep& sweep) {
  require(!sweep.axes.empty(), "the sweep has no axis; give one, as in topk=16,32,64");
  std::set<std::string> names;
  double points = 1;
  for (const Axis& axis : sweep.axes) {
    require(names.insert(axis.name).second,
            "the axis " + axis.name + " is given twice; give it once");
    points *= static_cast<double>(axis.values.size());
  }
  require(points <= most_points, "the sweep has more than " + std::to_string(most_points) +
                                     " points; give fewer values, or several sweeps");
}

/// The first part of the plan that differs, for a sentence.
std::string difference(const Json& there, const Json& ours) {
  for (const char* key : {"program", "config_sha256"})
    if (there.value(key, Json()) != ours.at(key)) return key;
  const Json sweep = there.value("sweep", Json::object());
  for (const auto& [key, value] : ours.at("sweep").items())
    if (!sweep.is_object() || sweep.value(key, Json()) != value) return key;
  return "sweep";
}

/// "2/8": part and parts, from 1.
std::pair<Index, Index> part_of(const std::string& only) {
  Index part = 0, parts = 0;
  const char* const end = only.data() + only.size();
  const auto [slash, wrong] = std::from_chars(only.data(), end, part);
  if (wrong == std::errc{} && slash != end && *slash == '/') std::from_chars(slash + 1, end, parts);
  require(part >= 1 && part <= parts,
          "--only is " + in_quotes(only) + ", expected I/N with I from 1 to N, or a point's id");
  return {part, parts};
}

}  // namespace

Plan make_plan(const Sweep& sweep, const std::string& program) {
  check_axes(sweep);
  check_names(sweep);
  Plan plan{sweep, program, sha256_of_file(sweep.config), {}};
  std::vector<Settings> values(1);
  for (const Axis& axis : sweep.axes) {
    std::vector<Settings> longer;
    for (const Settings& begun : values)
      for (const std::string& value : axis.values) {
        longer.push_back(begun);
        longer.back()[axis.name] = value;
      }
    values = std::move(longer);
  }
  std::set<std::string> ids;
  for (const Settings& each : values) {
    plan.points.push_back(point_of(plan, each));
    require(ids.insert(plan.points.back().id).second,
            "two points of the sweep are the same run: " + name_of(plan.points.back()) +
                "; take one of the values out");
  }
  return plan;
}

Json to_json(const Plan& plan) {
  Json points = Json::array();
  for (const Point& point : plan.points)
    points.push_back({{"id", point.id}, {"axes", point.axes}, {"keys", point.keys}});
  return {{"format", "dsa-sweep plan 1"},
          {"program", plan.program},
          {"config_sha256", plan.config_sha256},
          {"sweep", to_json(plan.sweep)},
          {"points", points}};
}

Plan read_plan(const fs::path& directory) {
  const fs::path file = directory / "plan.json";
  require(fs::exists(file), directory.string() +
                                " has no plan.json; expected a directory that "
                                "dsa-sweep has run in");
  const Json json = read_json(file);
  const std::string what = "plan.json of " + directory.string();
  const Keys keys(json, what);
  require(keys.has("format") && json.at("format") == "dsa-sweep plan 1",
          what + " has another format, expected \"dsa-sweep plan 1\"; run the sweep again");
  try {
    Plan plan{
        parse_sweep(json.at("sweep"), what), json.at("program"), json.at("config_sha256"), {}};
    for (const Json& point : json.at("points"))
      plan.points.push_back({point.at("id"), point.at("axes"), point.at("keys")});
    return plan;
  } catch (const Json::exception& error) {
    throw Error(what + " was changed by hand: " + error.what() + "; run the sweep again elsewhere");
  }
}

void freeze(const Plan& plan, const fs::path& directory) {
  const fs::path file = directory / "plan.json";
  const Json ours = to_json(plan);
  std::error_code reason;
  fs::create_directories(directory, reason);
  require(!reason, "cannot create " + directory.string() + ": " + reason.message());
  const Lock lock(directory / "plan.lock");
  if (!fs::exists(file)) return write_text(file, json_text(ours));
  const Json there = read_json(file);
  require(there == ours, directory.string() + " holds another sweep: its plan.json differs in \"" +
                             difference(there, ours) + "\"; give another --out");
}

std::string name_of(const Point& point) {
  std::string name;
  for (const auto& [axis, value] : point.axes)
    name += (name.empty() ? "" : " ") + axis + "=" + value;
  return name;
}

std::vector<Point> chosen(const Plan& plan, const std::string& only) {
  if (only.empty()) return plan.points;
  std::vector<Point> found;
  if (only.find('/') == std::string::npos) {
    for (const Point& point : plan.points)
      if (point.id.starts_with(only)) found.push_back(point);
    require(found.size() == 1, "--only " + in_quotes(only) + " is the beginning of " +
                                   std::to_string(found.size()) +
                                   " ids of the plan, expected one; --dry-run lists them");
    return found;
  }
  const auto [part, parts] = part_of(only);
  for (std::size_t i = static_cast<std::size_t>(part - 1); i < plan.points.size();
       i += static_cast<std::size_t>(parts))
    found.push_back(plan.points[i]);
  return found;
}

}  // namespace dsa::sweep
