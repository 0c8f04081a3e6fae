#include "verify/defects/alter.hpp"

#include <fmt/format.h>

namespace dsa::verify {

void around_attention(Variant& altered, std::function<void(Name, AttentionTold&)> f) {
  around(altered.ops.mla_expanded, anywhere(),
         [f](const auto& inner, Name name, Out3 out, In3 q_nope, In3 q_rope, In3 kv, In k_rope,
             Keys chosen, double scale) {
           AttentionTold told{copy_of(chosen), scale};
           f(name, told);
           inner(name, out, q_nope, q_rope, kv, k_rope, told.chosen, told.scale);
         });
  around(altered.ops.mla_absorbed, anywhere(),
         [f](const auto& inner, Name name, Out3 out, In3 q_nope, In3 q_rope, In c_kv, In k_rope,
             const Linear& kv_b, Keys chosen, double scale) {
           AttentionTold told{copy_of(chosen), scale};
           f(name, told);
           inner(name, out, q_nope, q_rope, c_kv, k_rope, kv_b, told.chosen, told.scale);
         });
}

std::function<void(Variant&)> unread(std::function<void(Variant&)> apply) {
  return [apply = std::move(apply)](Variant& altered) {
    const auto right_scores = altered.ops.indexer_scores;
    const auto right_topk = altered.ops.topk_select;
    apply(altered);
    const Memory<std::pair<std::string, Tensor<double, 2>>> seen;
    around(altered.ops.indexer_scores, anywhere(),
           [right_scores, seen](const auto& inner, Name name, Out scores, auto&&... rest) {
             Tensor<double, 2> right(scores.shape);
             right_scores(name, right, rest...);
             seen.put({sibling(name, names::indexer), std::move(right)});
             inner(name, scores, rest...);
           });
    around_attention(altered, [right_topk, seen](Name, AttentionTold& told) {
      if (!seen.has()) return;
      const auto& [selection, right] = seen.get();
      right_topk(selection, told.chosen, right);
    });
  };
}

std::string constant(const std::string& what, double value) {
  return fmt::format("{}={:g}", what, value);
}

std::string repository(const std::string& name) { return "https://github.com/" + name; }

std::string issue(const std::string& name, int number) {
  return repository(name) + "/issues/" + std::to_string(number);
}

DefectVariant config_variant(std::string name, std::function<void(Config&)> change) {
  return {std::move(name),
          [change = std::move(change)](Variant& altered) { change(altered.model.config); }};
}

std::function<std::pair<double, double>(const Config&)> between(double from, double to) {
  return [from, to](const Config&) { return std::pair{from, to}; };
}

double mscale(const Config& config, double x) {
  const double factor = config.rope.factor;
  return factor > 1 ? 0.1 * x * std::log(factor) + 1 : 1;
}

bool any_model(const Config&) { return true; }
bool has_indexer(const Config& c) { return c.indexer.has_value(); }
bool has_router(const Config& c) {
  return std::find(c.is_moe.begin(), c.is_moe.end(), true) != c.is_moe.end();
}
bool has_groups(const Config& c) {
  return has_router(c) && c.router.groups != Router::Groups::none && c.topk_group < c.n_group;
}
bool has_softmax_mscale(const Config& c) {
  return c.rope.yarn && c.rope.mscale_all_dim != 0 && c.rope.factor > 1;
}
bool has_power_of_two_index_head(const Config& c) {
  return c.indexer && (c.indexer->head_dim & (c.indexer->head_dim - 1)) == 0;
}

}  // namespace dsa::verify
