#include "experiments/sweep/sweep_file.hpp"

#include <algorithm>

#include "core/check.hpp"
#include "core/json.hpp"
#include "core/keys.hpp"

namespace dsa::sweep {
namespace {

namespace fs = std::filesystem;

std::string sentence(const Keys& keys, const char* key, bool needed = false) {
  const Json* found = keys.find(key);
  if (found == nullptr && !needed) return "";
  if (found == nullptr || !found->is_string() || found->get<std::string>().empty())
    keys.fail_expected(key, "a text");
  return found->get<std::string>();
}

Settings settings(const Keys& keys, const char* key, const std::string& what) {
  Settings all;
  const Json* found = keys.find(key);
  if (found == nullptr) return all;
  if (!found->is_object()) keys.fail_expected(key, "a table of names and values");
  for (const auto& [name, value] : found->items())
    all[name] = text_of(value, what + ": " + key + "." + name);
  return all;
}

/// The elements of a list, or the one that stands there without it.
std::vector<std::string> values_of(const Json& value, const std::string& what) {
  if (!value.is_array()) return {text_of(value, what)};
  std::vector<std::string> all;
  for (const Json& each : value) all.push_back(text_of(each, what));
  return all;
}

void refuse_unused(const Keys& keys, const std::string& what) {
  const auto unused = keys.unused();
  require(unused.empty(), what + " has a key that no sweep knows: " +
                              (unused.empty() ? "" : in_quotes(unused.front())) +
                              "; docs/experiments.md lists them");
}

std::vector<Axis> axes_of(const Keys& keys, const std::string& what) {
  std::vector<Axis> axes;
  const Json* found = keys.find("axes");
  if (found == nullptr) return axes;
  if (!found->is_object()) keys.fail_expected("axes", "a table of axes and their values");
  for (const auto& [name, value] : found->items())
    axes.push_back(make_axis(name, values_of(value, what + ": axis " + name)));
  return axes;
}

Claim claim_of(const Keys& keys, const std::string& what) {
  Claim claim;
  claim.says = sentence(keys, "says", true);
  claim.metric = sentence(keys, "metric", true);
  claim.minus = sentence(keys, "minus");
  claim.axis = sentence(keys, "axis");
  for (auto [key, to] : {std::pair{"from", &claim.from}, std::pair{"to", &claim.to}})
    if (const Json* value = keys.find(key)) *to = text_of(*value, what + ": " + key);
  claim.where = settings(keys, "where", what);
  claim.ratio = keys.boolean_or("ratio", false);
  claim.growth = keys.boolean_or("growth", false);
  claim.gate = parse_gate(sentence(keys, "gate", true), what + ": the gate of a claim");
  const bool two = !claim.from.empty() && !claim.to.empty(),
             none = claim.from.empty() && claim.to.empty();
  require(
      claim.axis.empty() ? none && !claim.growth
      : claim.growth     ? none
                         : two,
      what + ": the claim " + in_quotes(claim.says) +
          " compares nothing; give axis with from and to, or axis with growth = true, or no axis");
  require(!(claim.ratio && claim.growth) && !(claim.growth && !claim.minus.empty()),
          what + ": the claim " + in_quotes(claim.says) +
              " is about growth; it takes neither ratio nor minus");
  refuse_unused(keys, what);
  return claim;
}

Figure figure_of(const Keys& keys, const std::string& what) {
  Figure figure;
  figure.title = sentence(keys, "title", true);
  figure.x = sentence(keys, "x", true);
  figure.series = sentence(keys, "series");
  figure.unit = sentence(keys, "unit");
  figure.log_x = keys.boolean_or("log_x", false);
  figure.log_y = keys.boolean_or("log_y", false);
  figure.together = keys.boolean_or("together", false);
  require(!figure.together || figure.series.empty(),
          what + ": the figure " + in_quotes(figure.title) +
              " has together and series; colours can tell one of them apart, give one");
  const Json* metrics = keys.find("metrics");
  if (metrics == nullptr || !metrics->is_array() || metrics->empty())
    keys.fail_expected("metrics", "a list of metrics");
  figure.metrics = values_of(*metrics, what);
  refuse_unused(keys, what);
  return figure;
}

template <class Each>
auto list_of(const Keys& keys, const char* key, const Each& each) {
  std::vector<decltype(each(keys))> all;
  const Json* found = keys.find(key);
  if (found == nullptr) return all;
  if (!found->is_array()) keys.fail_expected(key, "a list");
  for (std::size_t i = 0; i < found->size(); ++i) all.push_back(each(keys.element(key, i)));
  return all;
}

void put(Json& into, const char* key, const std::string& value) {
  if (!value.empty()) into[key] = value;
}

Json json_of(const Claim& claim) {
  Json out = {{"says", claim.says}, {"metric", claim.metric}, {"gate", text_of(claim.gate)}};
  put(out, "minus", claim.minus);
  put(out, "axis", claim.axis);
  put(out, "from", claim.from);
  put(out, "to", claim.to);
  if (!claim.where.empty()) out["where"] = claim.where;
  if (claim.ratio) out["ratio"] = true;
  if (claim.growth) out["growth"] = true;
  return out;
}

Json json_of(const Figure& figure) {
  Json out = {{"title", figure.title}, {"x", figure.x}, {"metrics", figure.metrics}};
  put(out, "series", figure.series);
  put(out, "unit", figure.unit);
  if (figure.log_x) out["log_x"] = true;
  if (figure.log_y) out["log_y"] = true;
  if (figure.together) out["together"] = true;
  return out;
}

}  // namespace

std::string text_of(const Json& value, const std::string& what) {
  if (value.is_string()) return value.get<std::string>();
  require(value.is_number() || value.is_boolean(),
          what + " is " + shown(value) + ", expected a number, a word or a truth value");
  return value.dump();
}

Sweep parse_sweep(const Json& json, const std::string& what) {
  const Keys keys(json, what);
  Sweep sweep;
  sweep.file = sentence(keys, "file");
  sweep.title = sentence(keys, "title");
  sweep.question = sentence(keys, "question");
  sweep.prediction = sentence(keys, "prediction");
  sweep.config = sentence(keys, "config");
  if (keys.has("pair")) sweep.pair = sentence(keys, "pair");
  sweep.axes = axes_of(keys, what);
  sweep.fixed = settings(keys, "fixed", what);
  sweep.claims = list_of(keys, "claims", [&](const Keys& each) { return claim_of(each, what); });
  sweep.figures = list_of(keys, "figures", [&](const Keys& each) { return figure_of(each, what); });
  refuse_unused(keys, what);
  return sweep;
}

Json to_json(const Sweep& sweep) {
  Json axes = Json::object(), claims = Json::array(), figures = Json::array();
  for (const Axis& axis : sweep.axes) axes[axis.name] = axis.values;
  for (const Claim& claim : sweep.claims) claims.push_back(json_of(claim));
  for (const Figure& figure : sweep.figures) figures.push_back(json_of(figure));
  Json out = {{"config", sweep.config}, {"pair", sweep.pair}, {"axes", axes}};
  put(out, "file", sweep.file);
  put(out, "title", sweep.title);
  put(out, "question", sweep.question);
  put(out, "prediction", sweep.prediction);
  if (!sweep.fixed.empty()) out["fixed"] = sweep.fixed;
  if (!claims.empty()) out["claims"] = claims;
  if (!figures.empty()) out["figures"] = figures;
  return out;
}

Sweep read_sweep(const fs::path& file) {
  const std::string what = file.filename().string();
  Sweep sweep = parse_sweep(file.extension() == ".json" ? read_json(file) : read_toml(file), what);
  require(!sweep.question.empty() && !sweep.prediction.empty() && !sweep.claims.empty() &&
              !sweep.figures.empty() && !sweep.axes.empty() && !sweep.config.empty() &&
              !sweep.title.empty(),
          what +
              " registers nothing; expected title, question, prediction, config, [axes], "
              "[[claims]] and [[figures]]");
  sweep.file = file.string();
  sweep.config = (file.parent_path() / sweep.config).lexically_normal().string();
  return sweep;
}

}  // namespace dsa::sweep
