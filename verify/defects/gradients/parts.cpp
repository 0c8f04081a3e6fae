#include "verify/defects/gradients/parts.hpp"

#include <algorithm>
#include <cmath>

#include "reference/ops/dot.hpp"
#include "reference/ops/mla_keys.hpp"

namespace dsa::verify {

bool has_padding(const GradientVariant& v) {
  return std::any_of(v.sequences.begin(), v.sequences.end(), [](const Sequence& one) {
    return std::count(one.documents.begin(), one.documents.end(), -1) > 0;
  });
}

bool is_ragged(const GradientVariant& v) {
  const auto counted = [](const Sequence& one) {
    return one.size() - std::count(one.documents.begin(), one.documents.end(), -1);
  };
  return std::any_of(v.sequences.begin(), v.sequences.end(), [&](const Sequence& one) {
    return counted(one) != counted(v.sequences.front());
  });
}

bool is_dense_stage(const GradientVariant& v) {
  return v.model.config.indexer && v.model.config.indexer->topk != v.topk;
}

std::vector<std::pair<Index, Index>> spans_of(const GradientVariant& v) {
  std::vector<std::pair<Index, Index>> spans;
  Index first = 0;
  for (const Sequence& one : v.sequences) {
    spans.emplace_back(first, first + one.size());
    first += one.size();
  }
  return spans;
}

Tensor<Index, 2> all_visible(std::span<const Index> documents) {
  const auto T = static_cast<Index>(documents.size());
  const reference::Visibility visible{0, documents};
  Tensor<Index, 2> keys({T, T});
  std::fill(keys.begin(), keys.end(), -1);
  for (Index t = 0; t < T; ++t) {
    Index i = 0;
    for (Index s = 0; s <= t; ++s)
      if (visible.sees(t, s)) keys(t, i++) = s;
  }
  return keys;
}

namespace {

KlRow row_of(const reference::KlInputs<double>& in, Index t) {
  KlRow row{t, reference::keys_of(in.keys[t]), {}, {}, {}, {}, 0};
  for (Index s = 0; s < in.u.shape[1]; ++s) row.mass += in.u(t, s);
  for (const Index s : row.keys) {
    row.u.push_back(in.u(t, s));
    row.p.push_back(in.u(t, s) / row.mass);
    row.z.push_back(in.scale * in.scores(t, s));
  }
  row.q = row.z;
  reference::softmax(row.q.data(), static_cast<Index>(row.q.size()));
  return row;
}

}  // namespace

void replace_kl(GradientVariant& v, RowLoss f) {
  replace_kl_gradient(v, f);
  v.ops.index_kl = [value = std::move(f)](Name, const reference::KlInputs<double>& in,
                                          std::span<const double> weights, const KlSemantics&) {
    double loss = 0;
    for (Index t = 0; t < in.scores.shape[0]; ++t) {
      const KlRow row = row_of(in, t);
      std::vector<double> unused(row.keys.size());
      if (!row.keys.empty()) loss += weights[static_cast<std::size_t>(t)] * value(row, unused);
    }
    return loss;
  };
}

void replace_kl_gradient(GradientVariant& v, RowLoss f) {
  v.backward.index_kl = [gradient = std::move(f)](
                            Name, Out d_scores, const reference::KlInputs<double>& in,
                            std::span<const double> weights, const KlSemantics&) {
    for (Index t = 0; t < in.scores.shape[0]; ++t) {
      const KlRow row = row_of(in, t);
      std::vector<double> d_z(row.keys.size());
      if (!row.keys.empty()) gradient(row, d_z);
      for (std::size_t i = 0; i < d_z.size(); ++i)
        d_scores(t, row.keys[i]) += weights[static_cast<std::size_t>(t)] * in.scale * d_z[i];
    }
  };
}

std::vector<double> head_attention(const reference::MlaExpandedInputs<double>& in, Index t, Index n,
                                   const std::vector<Index>& keys) {
  const Index B = in.q_nope.shape[2], P = in.q_rope.shape[2];
  std::vector<double> p;
  for (const Index s : keys)
    p.push_back(in.scale * (reference::dot(in.q_nope[t][n].data, in.kv[s][n].data, B) +
                            reference::dot(in.q_rope[t][n].data, in.k_rope[s].data, P)));
  reference::softmax(p.data(), static_cast<Index>(p.size()));
  return p;
}

namespace {

std::vector<double> softmax_backward(const AttentionRow& row) {
  double delta = 0;
  for (std::size_t i = 0; i < row.p.size(); ++i) delta += row.p[i] * row.d_p[i];
  std::vector<double> d_z;
  for (std::size_t i = 0; i < row.p.size(); ++i) d_z.push_back(row.p[i] * (row.d_p[i] - delta));
  return d_z;
}

void clear(View<double, 1> row) { std::fill(row.begin(), row.end(), 0.0); }

}  // namespace

void attention_backward(const reference::MlaExpandedGradient<double>& d,
                        const reference::MlaExpandedInputs<double>& in, View<const double, 3> d_out,
                        const AttentionRules& rules) {
  using reference::add_scaled;
  const Index T = in.q_nope.shape[0], N = in.q_nope.shape[1], B = in.q_nope.shape[2],
              P = in.q_rope.shape[2], U = d_out.shape[2];
  for (Index t = 0; t < T; ++t)
    for (Index n = 0; n < N; ++n) {
      const std::vector<Index> keys = reference::keys_of(in.chosen[t]);
      const std::vector<double> p = head_attention(in, t, n, keys);
      std::vector<double> d_p, out(static_cast<std::size_t>(U));
      for (std::size_t i = 0; i < keys.size(); ++i) {
        const double* value = in.kv[keys[i]][n].data + B;
        d_p.push_back(reference::dot(d_out[t][n].data, value, U));
        add_scaled(out.data(), p[i], value, U);
      }
      const AttentionRow row{t, n, keys, p, d_p, d_out[t][n].data, out.data(), U};
      const std::vector<double> d_z = rules.d_z ? rules.d_z(row) : softmax_backward(row);
      for (std::size_t i = 0; i < keys.size(); ++i) {
        const Index s = keys[i];
        const double d_dot = in.scale * d_z[i];
        if (rules.overwrites_keys) {
          clear(d.d_kv[s][n]);
          if (n == 0) clear(d.d_k_rope[s]);
        }
        add_scaled(d.d_q_nope[t][n].data, d_dot, in.kv[s][n].data, B);
        add_scaled(d.d_q_rope[t][n].data, d_dot, in.k_rope[s].data, P);
        add_scaled(d.d_kv[s][n].data, d_dot, in.q_nope[t][n].data, B);
        add_scaled(d.d_kv[s][n].data + B, p[i], d_out[t][n].data, U);
        add_scaled(d.d_k_rope[s].data, d_dot, in.q_rope[t][n].data, P);
      }
    }
}

}  // namespace dsa::verify
