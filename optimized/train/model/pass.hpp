// optimized/train/model/pass.hpp — what all blocks of a pass share, and the modules that occur in
// several of them.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "optimized/cpu/ops/trained_linear.hpp"
#include "optimized/train/context.hpp"
#include "optimized/train/model/buffers.hpp"
#include "optimized/train/model/slots.hpp"

namespace dsa::train {

struct Pass {
  cpu::Cpu cpu;
  const Config& config;
  const Objective& objective;
  cpu::TrainMemory& memory;
  Context& context;                   // Q of the T rows are this rank's
  View<const std::int32_t, 1> begin;  // (T)
  View<const float, 2> cos, sin;      // (Q, P/2)
  View<const float, 1> kl_weight;     // (Q)
  bool for_recall = false;            // dense attention, and a look at every indexer

  Index rows() const { return kl_weight.shape[0]; }
  bool sparse() const {
    return config.indexer && objective.attention == Recipe::Attention::sparse && !for_recall;
  }
  bool has_kl() const { return config.indexer && objective.kl != 0; }
  /// The indexer's loss ends at the indexer.
  bool kl_ends() const { return objective.semantics.detach == KlSemantics::Detach::inputs; }
  /// Something reads the selection: attention, or a side of the indexer's loss.
  bool needs_selection() const;
};

/// y = W x + b; `add`: added to y.
void linear(const Pass&, cpu::Strided<float> y, View<const float, 2> x, const Linear&,
            bool add = false);
/// Adds what W and b learn, where they are trained; d_x = W^T d_y, or added to d_x. No data in d_x:
/// not wanted.
void linear_backward(const Pass&, View<float, 2> d_x, View<const float, 2> x, const Linear&,
                     cpu::Strided<const float> d_y, bool add = false);

void rmsnorm(const Pass&, View<float, 2> y, View<const float, 2> x, const Slot& gain, double eps);
void rmsnorm_backward(const Pass&, View<float, 2> d_x, View<const float, 2> x, const Slot& gain,
                      double eps, View<const float, 2> d_y, bool add = false);

/// Heads side by side, (T, heads * width).
template <class T>
View<T, 2> flat(View<T, 3> x) {
  return {x.data, {x.shape[0], x.shape[1] * x.shape[2]}};
}

/// Columns [from, from + n) of x into columns [to, to + n) of y.
void copy_columns(View<float, 2> y, Index to, View<const float, 2> x, Index from, Index n);
/// y += x
void add(View<float, 2> y, View<const float, 2> x);
void copy(View<float, 2> y, View<const float, 2> x);
void fill_zero(View<float, 2> y);
/// What a run gives to the keys, added to what later runs give; the last run's is in place. `d`: of
/// all rows.
void join_run(View<float, 2> d, View<const float, 2> of_run, const Run&, bool is_last);

/// Feed-forward networks of one width, each with its rows.
///
///   y = down( silu(gate x) * up x )
struct Networks {
  std::span<const Mlp> of;
  std::span<const Index> begin;  // rows of network e: [begin[e], begin[e+1])

  Index rows() const { return begin.back(); }
  Index width() const { return of.front().down_proj.weight.value.shape[1]; }
};

/// One network for all rows.
struct OneNetwork {
  Index begin[2];
  std::span<const Mlp> of;
  OneNetwork(const Mlp& network, Index rows) : begin{0, rows}, of(&network, 1) {}
  operator Networks() const { return {of, begin}; }
};

/// y (rows, C) is written, or added to.
void feed_forward(const Pass&, const Activations&, View<float, 2> y, View<const float, 2> x,
                  const Networks&, bool add);

/// Called between down_proj's way back and the gradient of its weights, with `hidden` (rows, F) and
/// its gradient: where a mixture weighs both.
using Mixing = std::function<void(View<float, 2> hidden, View<float, 2> d_hidden)>;

/// Makes gate, up and hidden again. d_x is written, or added to.
void feed_forward_backward(const Pass&, const Activations&, View<float, 2> d_x,
                           View<const float, 2> x, const Networks&, View<const float, 2> d_y,
                           bool add, const Mixing& = {});

}  // namespace dsa::train
