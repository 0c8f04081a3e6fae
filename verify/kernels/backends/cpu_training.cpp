// The CPU backend's ops of training. Those that add to their outputs find there what the case has
// under the same name among its inputs.
#include <algorithm>
#include <memory>

#include "optimized/cpu/ops/cross_entropy.hpp"
#include "optimized/cpu/ops/embed.hpp"
#include "optimized/cpu/ops/expert_rows.hpp"
#include "optimized/cpu/ops/heads_attention.hpp"
#include "optimized/cpu/ops/index_kl.hpp"
#include "optimized/cpu/ops/index_scores.hpp"
#include "optimized/cpu/ops/norms_backward.hpp"
#include "optimized/cpu/ops/rope.hpp"
#include "optimized/cpu/ops/router_backward.hpp"
#include "optimized/cpu/ops/swiglu.hpp"
#include "optimized/cpu/ops/trained_linear.hpp"
#include "verify/kernels/backends/cpu_entries.hpp"
#include "verify/kernels/cases/indexer_kl.hpp"

namespace dsa::verify::kernels {
namespace {

using cpu::Cpu;

/// Memory of the op, whose first pieces begin as NaN.
std::shared_ptr<cpu::TrainMemory> poisoned_memory() {
  constexpr Index shared = 1 << 17, of_thread = 1 << 14;
  const auto memory = std::make_shared<cpu::TrainMemory>();
  std::fill_n(memory->shared(shared), shared, std::byte{0xff});
  const cpu::Scratch scratch = memory->threads(of_thread);
  std::fill_n(scratch.data, dsa::threads() * scratch.bytes_per_thread, std::byte{0xff});
  return memory;
}

template <int Rank>
View<const float, Rank> in(const Case& c, const char* name) {
  return c.in.at(name).as<float, Rank>();
}
template <int Rank>
View<const std::int32_t, Rank> ids_in(const Case& c, const char* name) {
  return c.in.at(name).as<std::int32_t, Rank>();
}
/// No data where the case has no such input.
template <int Rank>
View<const float, Rank> in_if(const Case& c, const char* name) {
  return c.in.contains(name) ? in<Rank>(c, name) : View<const float, Rank>{};
}
template <int Rank>
View<float, Rank> to(Arrays& out, const char* name) {
  return out.at(name).as<float, Rank>();
}
template <int Rank>
void copy(View<float, Rank> y, View<const float, Rank> x) {
  std::copy(x.begin(), x.end(), y.begin());
}

Launch embed_backward(Cpu on, const Case& c, Arrays& out) {
  return {[=, y = to<2>(out, "d_table"), before = in<2>(c, "d_table"), d_x = in<2>(c, "d_x"),
           tokens = ids_in<1>(c, "tokens")] {
            copy(y, before);
            cpu::embed_backward(on, y, tokens, d_x);
          },
          {}};
}

Launch norm_backward(Cpu on, const Case& c, Arrays& out, bool layernorm) {
  const cpu::NormIn norm{
      .x = in<2>(c, "x"), .g = in<1>(c, "g"), .d_y = in<2>(c, "d_y"), .eps = c.scalar("eps")};
  const auto d_b = layernorm ? to<1>(out, "d_b") : View<float, 1>{};
  return {[=, d_x = to<2>(out, "d_x"), d_g = to<1>(out, "d_g"), x_before = in<2>(c, "d_x"),
           g_before = in<1>(c, "d_g"), b_before = in_if<1>(c, "d_b"), add = c.flag("add"),
           memory = poisoned_memory()] {
            if (add) copy(d_x, x_before);
            copy(d_g, g_before);
            if (layernorm) {
              copy(d_b, b_before);
              cpu::layernorm_backward(on, d_x, d_g, d_b, norm, add, *memory);
            } else {
              cpu::rmsnorm_backward(on, d_x, d_g, norm, add, *memory);
            }
          },
          {}};
}
Launch rmsnorm_backward(Cpu on, const Case& c, Arrays& out) {
  return norm_backward(on, c, out, false);
}
Launch layernorm_backward(Cpu on, const Case& c, Arrays& out) {
  return norm_backward(on, c, out, true);
}

Launch rope_backward(Cpu on, const Case& c, Arrays& out) {
  const RopeLayout layout = c.flag("interleaved") ? RopeLayout::interleaved : RopeLayout::half;
  return {[=, y = to<3>(out, "d_x"), d_y = in<3>(c, "d_y"), cos = in<2>(c, "cos"),
           sin = in<2>(c, "sin"), first = c.integer("first")] {
            copy(y, d_y);  // the op turns in place
            cpu::rope_backward(on, y, cos, sin, first, layout);
          },
          {}};
}

/// The matrices of a case, either way up, and its rows as floats.
struct LinearProblem {
  std::vector<cpu::Matrix> w, w_by_input;
  Tensor<float, 2> x, d_y;

  LinearProblem(Cpu on, const Case& c) : x(numbers(c.in.at("x"))), d_y(numbers(c.in.at("d_y"))) {
    const Array& all = c.in.at("w");
    const Index E = all.shape()[0], F = all.shape()[1], C = all.shape()[2];
    const std::vector<double> values = all.values();
    for (Index e = 0; e < E; ++e) {
      Tensor<float, 2> by_output({F, C}), by_input({C, F});
      for (Index f = 0; f < F; ++f)
        for (Index i = 0; i < C; ++i)
          by_output(f, i) = by_input(i, f) =
              static_cast<float>(values[static_cast<std::size_t>((e * F + f) * C + i)]);
      w.emplace_back(on, by_output, all.dtype());
      w_by_input.emplace_back(on, by_input, all.dtype());
    }
  }

 private:
  static Tensor<float, 2> numbers(const Array& x) {
    Tensor<float, 2> y({x.shape()[0], x.shape()[1]});
    decode(x.dtype(), x.bytes().data(), x.size(), y.data());
    return y;
  }
};

Launch linear_backward(Cpu on, const Case& c, Arrays& out) {
  const auto problem = std::make_shared<const LinearProblem>(on, c);
  const auto begin = ids_in<1>(c, "begin");
  const auto d_w = to<3>(out, "d_w");
  const auto d_b = to<2>(out, "d_b");
  std::vector<cpu::LinearRows> rows;
  for (std::size_t i = 0; i < problem->w.size(); ++i) {
    const auto e = static_cast<Index>(i);
    rows.push_back({.begin = begin(e),
                    .end = begin(e + 1),
                    .w = &problem->w[i],
                    .w_by_input = &problem->w_by_input[i],
                    .bias = {},
                    .d_weight = d_w[e],
                    .d_bias = d_b[e]});
  }
  return {[=, d_x = to<2>(out, "d_x"), x_before = in<2>(c, "d_x"), w_before = in<3>(c, "d_w"),
           b_before = in<2>(c, "d_b"), add = c.flag("add"), memory = poisoned_memory()] {
            if (add) copy(d_x, x_before);
            copy(d_w, w_before);
            copy(d_b, b_before);
            cpu::linear_rows_backward_input(on, d_x, problem->d_y.view(), rows, add, *memory);
            cpu::linear_rows_backward_weight(on, problem->x, problem->d_y.view(), rows, *memory);
          },
          {}};
}

Launch swiglu_backward(Cpu on, const Case& c, Arrays& out) {
  return {[=, y = to<2>(out, "d_gate_up"), gate_up = in<2>(c, "gate_up"), d_h = in<2>(c, "d_h")] {
            cpu::swiglu_backward(on, y, gate_up, d_h);
          },
          {}};
}

Launch router_scores_backward(Cpu on, const Case& c, Arrays& out) {
  const auto scoring = c.flag("scoring") ? Router::Scoring::softmax : Router::Scoring::sigmoid;
  return {[=, d_z = to<2>(out, "d_z"), d_s = in<2>(c, "d_s"), s = in<2>(c, "s")] {
            copy(d_z, d_s);  // in place
            cpu::router_scores_backward(on, d_z, s, scoring);
          },
          {}};
}

Launch router_weights_backward(Cpu on, const Case& c, Arrays& out) {
  Config config;
  config.num_experts_per_tok = c.in.at("experts").shape()[1];
  config.routed_scaling_factor = c.scalar("routed_scaling_factor");
  config.router.norm_topk_prob = c.flag("norm_topk_prob");
  return {[=, d_s = to<2>(out, "d_s"), s = in<2>(c, "s"), experts = ids_in<2>(c, "experts"),
           d_weights = in<2>(c, "d_weights")] {
            cpu::router_weights_backward(on, d_s, s, experts, d_weights, config);
          },
          {}};
}

Launch balance_backward(Cpu on, const Case& c, Arrays& out) {
  const cpu::BalanceIn balance{in<2>(c, "s"), ids_in<2>(c, "experts"), ids_in<1>(c, "begin")};
  return {[=, d_s = to<2>(out, "d_s"), loss = to<1>(out, "loss"), before = in<2>(c, "d_s"),
           factor = c.scalar("factor"), memory = poisoned_memory()] {
            copy(d_s, before);
            loss(0) = static_cast<float>(cpu::balance_loss(on, d_s, balance, factor, *memory));
          },
          {}};
}

/// Pairs sorted by expert, as the ops take them.
struct Sorted {
  Tensor<std::int32_t, 1> pair;
  Tensor<std::int32_t, 2> row;
  std::vector<Index> begin;

  Sorted(View<const std::int32_t, 2> experts, Index E)
      : pair({experts.size()}), row(experts.shape), begin(static_cast<std::size_t>(E + 1)) {
    cpu::sort_by_expert(rows(), experts);
  }
  cpu::ExpertRows rows() { return {pair, row, begin}; }
};

Launch mixing(Cpu on, const Case& c, Arrays& out) {
  return {[=, y = to<2>(out, "y"), before = in<2>(c, "y"), x = in<2>(c, "x"),
           weights = in_if<2>(c, "weights"), experts = ids_in<2>(c, "experts"),
           E = c.integer("experts")] {
            Sorted sorted(experts, E);
            copy(y, before);
            cpu::add_rows(on, y, x, weights, sorted.rows());
          },
          {}};
}

Launch mixing_backward(Cpu on, const Case& c, Arrays& out) {
  return {[=, d_weights = to<2>(out, "d_weights"), h = to<2>(out, "h"), d_h = to<2>(out, "d_h"),
           h_before = in<2>(c, "h"), d_h_before = in<2>(c, "d_h"), weights = in<2>(c, "weights"),
           experts = ids_in<2>(c, "experts"), E = c.integer("experts")] {
            Sorted sorted(experts, E);
            copy(h, h_before);  // both in place
            copy(d_h, d_h_before);
            cpu::mixing_backward(on, d_weights, h, d_h, weights, sorted.rows());
          },
          {}};
}

Launch cross_entropy_backward(Cpu on, const Case& c, Arrays& out) {
  const auto all = std::make_shared<Tensor<double, 1>>(Shape<1>{c.in.at("z").shape()[0]});
  return {[=, d_z = to<2>(out, "d_z"), loss = to<1>(out, "loss"), z = in<2>(c, "z"),
           targets = ids_in<1>(c, "targets"), factor = in<1>(c, "factor")] {
            copy(d_z, z);  // in place
            cpu::cross_entropy(on, *all, d_z, targets, factor);
            std::copy(all->begin(), all->end(), loss.begin());
          },
          {}};
}

cpu::HeadsIn heads_in(const Case& c) {
  return {.q = in<3>(c, "q"),
          .k = in<3>(c, "k"),
          .v = in<3>(c, "v"),
          .begin = ids_in<1>(c, "begin"),
          .scale = c.scalar("scale")};
}

Launch heads_attention(Cpu on, const Case& c, Arrays& out) {
  const cpu::HeadsOut y{to<3>(out, "out"), to<2>(out, "lse")};
  return {[=, &c, heads = heads_in(c), memory = poisoned_memory()] {
            if (c.in.contains("chosen"))
              cpu::heads_attention(on, y, heads, ids_in<2>(c, "chosen"), *memory);
            else
              cpu::heads_attention(on, y, heads, *memory);
          },
          {}};
}

Launch heads_attention_backward(Cpu on, const Case& c, Arrays& out) {
  const cpu::HeadsGradient d{to<3>(out, "d_q"), to<3>(out, "d_k"), to<3>(out, "d_v")};
  const cpu::HeadsResult y{in<3>(c, "d_out"), in<3>(c, "out"), in<2>(c, "lse")};
  return {[=, &c, heads = heads_in(c), memory = poisoned_memory()] {
            if (c.in.contains("chosen"))
              cpu::heads_attention_backward(on, d, heads, y, ids_in<2>(c, "chosen"), *memory);
            else
              cpu::heads_attention_backward(on, d, heads, y, *memory);
          },
          {}};
}

cpu::IndexIn index_in(const Case& c) {
  return {.q = in<3>(c, "q"),
          .k = in<2>(c, "k"),
          .w = in_if<2>(c, "w"),
          .begin = ids_in<1>(c, "begin"),
          .dot_scale = c.scalar("dot_scale"),
          .weight_scale = c.scalar("weight_scale"),
          .relu = c.flag("relu")};
}

cpu::IndexGradient index_gradient(Arrays& out) {
  const bool has_weights = out.contains("d_w");
  return {to<3>(out, "d_q"), to<2>(out, "d_k"), has_weights ? to<2>(out, "d_w") : View<float, 2>{}};
}

Launch indexer_scores_backward(Cpu on, const Case& c, Arrays& out) {
  return {[=, d = index_gradient(out), index = index_in(c), d_scores = in<2>(c, "d_scores"),
           chosen = ids_in<2>(c, "chosen"), memory = poisoned_memory()] {
            cpu::index_scores_backward(on, d, index, d_scores, chosen, *memory);
          },
          {}};
}

Launch indexer_kl_backward(Cpu on, const Case& c, Arrays& out) {
  const cpu::KlIn kl{.index = index_in(c),
                     .teacher = {in<3>(c, "attention_q"), in<3>(c, "attention_k"),
                                 in<2>(c, "attention_lse"), c.scalar("scale")},
                     .chosen = ids_in<2>(c, "chosen"),
                     .weight = in<1>(c, "weight"),
                     .semantics = kl_semantics(c)};
  const auto all = std::make_shared<Tensor<double, 1>>(kl.weight.shape);
  return {[=, d = index_gradient(out), loss = to<1>(out, "loss"), memory = poisoned_memory()] {
            cpu::index_kl(on, {*all, d}, kl, *memory);
            std::copy(all->begin(), all->end(), loss.begin());
          },
          {}};
}

}  // namespace

std::vector<CpuEntry> cpu_training_entries() {
  const std::vector<std::string> fp32 = {"fp32"};
  return {{"embed_backward", fp32, embed_backward},
          {"rmsnorm_backward", fp32, rmsnorm_backward},
          {"layernorm_backward", fp32, layernorm_backward},
          {"rope_backward", fp32, rope_backward},
          {"linear_backward", {"fp32", "bf16"}, linear_backward},
          {"swiglu_backward", fp32, swiglu_backward},
          {"router_scores_backward", fp32, router_scores_backward},
          {"router_weights_backward", fp32, router_weights_backward},
          {"balance_backward", fp32, balance_backward},
          {"mixing", fp32, mixing},
          {"mixing_backward", fp32, mixing_backward},
          {"cross_entropy_backward", fp32, cross_entropy_backward},
          {"heads_attention", fp32, heads_attention},
          {"heads_attention_backward", fp32, heads_attention_backward},
          {"indexer_scores_backward", fp32, indexer_scores_backward},
          {"indexer_kl_backward", fp32, indexer_kl_backward}};
}

}  // namespace dsa::verify::kernels
