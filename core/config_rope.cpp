// The rotary embedding of a config.json.
#include <array>

#include "core/check.hpp"
#include "core/config_parts.hpp"

namespace dsa::config_parts {
namespace {

Rope rope_of(const Keys& keys, double outer_theta) {
  constexpr double huge = 1e15;
  // Old configs say "type", new ones "rope_type", some both.
  // Serving engines write "deepseek_yarn" into the configs they hand on.
  const auto type_under = [&](const char* key, const std::string& otherwise) {
    const auto word = keys.text_or(key, {"default", "yarn", "deepseek_yarn"}, otherwise);
    return word == "deepseek_yarn" ? std::string("yarn") : word;
  };
  const auto type = type_under("rope_type", "");
  const auto old_type = type_under("type", type);
  if (!type.empty() && type != old_type)
    keys.fail("rope_type", "is \"" + type + "\" but its \"type\" is \"" + old_type +
                               "\"; remove one of the two");
  Rope rope;
  rope.yarn = old_type == "yarn";
  rope.theta = keys.number_or("rope_theta", 1.001, huge, outer_theta);
  if (keys.number_or("partial_rotary_factor", 0, huge, 1) != 1)
    keys.fail_expected("partial_rotary_factor", "1: qk_rope_head_dim says what is rotated");
  if (!rope.yarn) {
    if (keys.number_or("factor", 0, huge, 1) != 1)
      keys.fail("factor", "is given without rope_type \"yarn\"; name the type or remove it");
    return rope;
  }
  rope.factor = keys.number("factor", 1e-6, 1e6);
  rope.original_max_position_embeddings =
      keys.number("original_max_position_embeddings", 1, static_cast<double>(most_context));
  rope.beta_fast = keys.number_or("beta_fast", 1e-6, 1e6, 32);
  rope.beta_slow = keys.number_or("beta_slow", 1e-6, 1e6, 1);
  if (!(rope.beta_fast >= rope.beta_slow))
    keys.fail_expected("beta_fast", "at least beta_slow, " + shown(Json(rope.beta_slow)));
  rope.mscale = keys.number_or("mscale", 0, 1e6, 0);
  rope.mscale_all_dim = keys.number_or("mscale_all_dim", 0, 1e6, 0);
  if (keys.has("attention_factor")) rope.attention_factor = keys.number("attention_factor", 0, 1e6);
  rope.truncate = keys.boolean_or("truncate", true);
  return rope;
}

bool same(const Rope& a, const Rope& b) {
  const auto numbers = [](const Rope& r) {
    return std::array{r.theta,         r.factor,    r.original_max_position_embeddings,
                      r.beta_fast,     r.beta_slow, r.mscale,
                      r.mscale_all_dim};
  };
  return numbers(a) == numbers(b) && a.yarn == b.yarn && a.truncate == b.truncate &&
         a.attention_factor == b.attention_factor;
}

/// Some families have one set of parameters for each type of attention; MLA has one in all.
void refuse_nested(const Keys& keys, const char* key) {
  const Json* value = keys.find(key);
  if (value == nullptr || !value->is_object()) return;
  for (const auto& [inner, parameters] : value->items())
    if (parameters.is_object())
      keys.fail(key, "holds a set of parameters " + in_quotes(inner) +
                         " of its own; expected one set, with rope_type and rope_theta at its top "
                         "level");
}

}  // namespace

Rope read_rope(const Keys& keys) {
  const double theta = keys.number_or("rope_theta", 1.001, 1e15, Rope{}.theta);
  refuse_nested(keys, "rope_parameters");
  refuse_nested(keys, "rope_scaling");
  const bool is_new = keys.has("rope_parameters"), is_old = keys.has("rope_scaling");
  Rope rope;
  rope.theta = theta;
  if (is_old) rope = rope_of(keys.object("rope_scaling"), theta);
  if (!is_new) return rope;
  const Rope newer = rope_of(keys.object("rope_parameters"), theta);
  if (is_old && !same(rope, newer))
    keys.fail("rope_scaling", "and \"rope_parameters\" contradict each other: " +
                                  shown(*keys.find("rope_scaling")) + " and " +
                                  shown(*keys.find("rope_parameters")) + "; remove one of them");
  if (keys.has("rope_theta") && newer.theta != theta)
    keys.fail("rope_theta", "is " + shown(*keys.find("rope_theta")) +
                                " but \"rope_parameters.rope_theta\" is " +
                                shown(Json(newer.theta)) + "; remove one of them");
  return newer;
}

}  // namespace dsa::config_parts
