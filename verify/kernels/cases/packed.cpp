#include "verify/kernels/cases/packed.hpp"

#include <algorithm>
#include <numeric>

namespace dsa::verify::kernels {

Index rows_of(const Lengths& lengths) {
  return std::accumulate(lengths.begin(), lengths.end(), Index{0});
}

std::string tag_of(const Lengths& lengths) {
  std::string tag = "docs";
  for (const Index n : lengths) tag += (tag == "docs" ? "" : ".") + std::to_string(n);
  return tag;
}

Array begin_of(const Lengths& lengths) {
  std::vector<double> begin;
  for (const Index n : lengths)
    begin.insert(begin.end(), static_cast<std::size_t>(n), static_cast<double>(begin.size()));
  return Array(Dtype::i32, {rows_of(lengths)}, begin);
}

Array draw_chosen(Draw& draw, const Lengths& lengths, Index K, bool holes) {
  const Array begin = begin_of(lengths);
  const Index T = rows_of(lengths);
  Array chosen(Dtype::i32, {T, K});
  const auto to = chosen.as<std::int32_t, 2>();
  std::fill(to.begin(), to.end(), -1);
  for (Index t = 0; t < T; ++t) {
    const Index first = begin.as<std::int32_t, 1>()(t), visible = t + 1 - first;
    if (holes && t % 3 == 1) continue;
    const Index most = std::min(K, visible), n = holes && most > 1 ? most - 1 : most;
    Index i = 0;
    for (const Index s : draw.subset(n, visible)) to(t, i++) = static_cast<std::int32_t>(first + s);
  }
  return chosen;
}

std::vector<std::vector<Index>> visible_keys_of_rows(const Case& c) {
  const auto begin = c.in.at("begin").as<std::int32_t, 1>();
  std::vector<std::vector<Index>> keys(static_cast<std::size_t>(begin.size()));
  for (Index t = 0; t < begin.size(); ++t)
    for (Index s = begin(t); s <= t; ++s) keys[static_cast<std::size_t>(t)].push_back(s);
  return keys;
}

std::vector<std::vector<Index>> keys_of_rows(const Case& c) {
  if (!c.in.contains("chosen")) return visible_keys_of_rows(c);
  const auto chosen = c.in.at("chosen").as<std::int32_t, 2>();
  std::vector<std::vector<Index>> keys(static_cast<std::size_t>(chosen.shape[0]));
  for (Index t = 0; t < chosen.shape[0]; ++t)
    for (const std::int32_t s : chosen[t])
      if (s >= 0) keys[static_cast<std::size_t>(t)].push_back(s);
  return keys;
}

Tensor<Index, 2> as_chosen(const std::vector<std::vector<Index>>& keys) {
  std::size_t K = 0;
  for (const auto& row : keys) K = std::max(K, row.size());
  Tensor<Index, 2> chosen({static_cast<Index>(keys.size()), static_cast<Index>(K)}, -1);
  for (std::size_t t = 0; t < keys.size(); ++t)
    std::copy(keys[t].begin(), keys[t].end(), chosen.view()[static_cast<Index>(t)].begin());
  return chosen;
}

double pairs_of(const std::vector<std::vector<Index>>& keys) {
  double pairs = 0;
  for (const auto& row : keys) pairs += static_cast<double>(row.size());
  return pairs;
}

double pairs_of(const Lengths& lengths, Index K) {
  double pairs = 0;
  for (const Index n : lengths)
    for (Index visible = 1; visible <= n; ++visible)
      pairs += static_cast<double>(K == 0 ? visible : std::min(visible, K));
  return pairs;
}

void choose_wrongly(Case& c, Index t, Index slot, std::int32_t key) {
  c.in.at("chosen").as<std::int32_t, 2>()(t, slot) = key;
  c.refusal = {std::to_string(key), std::to_string(t)};
}

}  // namespace dsa::verify::kernels
