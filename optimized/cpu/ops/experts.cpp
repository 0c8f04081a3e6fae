// Why it is fast: all products of a kind, every expert's, are shared out among the threads at once,
// so that a single token's eight small experts keep all of them busy.
#include "optimized/cpu/ops/experts.hpp"

#include <algorithm>
#include <new>
#include <type_traits>

#include "core/threads.hpp"
#include "optimized/cpu/ops/products.hpp"
#include "optimized/cpu/ops/swiglu.hpp"
#include "optimized/shared/memory.hpp"
#include "optimized/shared/pieces.hpp"

namespace dsa::cpu {
namespace {

/// The memory of a pass over `rows` pairs of a token and an expert of its, sorted by expert.
template <class X>
struct Pass {
  std::int32_t *order, *token, *place;  // (rows): pair at a place, its token; place of a pair
  Product* products;                    // (rows), one for every expert in use
  float *gate_up, *out;                 // (rows, 2F), (rows, C)
  X* h;                                 // (rows, F)
  Scratch threads;
  Index bytes;  // of all of it

  Pass(Scratch scratch, Index rows, Index C, Index F) {
    Pieces pieces(scratch.data);
    order = pieces.take<std::int32_t>(rows);
    token = pieces.take<std::int32_t>(rows);
    place = pieces.take<std::int32_t>(rows);
    products = pieces.take<Product>(rows);
    gate_up = pieces.take<float>(rows * 2 * F);
    out = pieces.take<float>(rows * C);
    h = pieces.take<X>(rows * F);
    threads.bytes_per_thread = rounded_up(linear_scratch(std::max(C, F)), 64);
    threads.data = pieces.take_bytes(dsa::threads() * threads.bytes_per_thread);
    bytes = pieces.bytes();
  }
};

template <class X>
Product product(const X* x, Index x_stride, Index rows, const Matrix& w, float* y) {
  Product p;
  p.x = x;
  p.x_stride = x_stride;
  p.rows = rows;
  p.w = &w;
  p.y = y;
  p.y_stride = w.out();
  return p;
}

template <class X>
void expect_network(const FeedForward& e, Index C, Index F) {
  constexpr Dtype dtype = std::is_same_v<X, float> ? Dtype::f32 : Dtype::bf16;
  if (!(e.gate_up.dtype() == dtype && e.down.dtype() == dtype))
    throw Error("x is " + std::string(name_of(dtype)) + " and a matrix is not; expected the same");
  if (!(e.gate_up.in() == C && e.gate_up.out() == 2 * F && e.down.in() == F && e.down.out() == C))
    throw Error("gate_up and down have shapes " + to_string<2>({e.gate_up.out(), e.gate_up.in()}) +
                " and " + to_string<2>({e.down.out(), e.down.in()}) + ", expected " +
                to_string<2>({2 * F, C}) + " and " + to_string<2>({C, F}));
}

/// Null where there is none.
const float* bias_of(const Tensor<float, 1>& bias, const Matrix& w) {
  if (bias.size() == 0) return nullptr;
  expect_shape("bias", bias.view(), {w.out()});
  return bias.data();
}

/// Calls f(expert, begin, end) for every run of places with one expert.
template <class F>
void for_each_run(const std::int32_t* order, const std::int32_t* chosen, Index rows, F f) {
  for (Index begin = 0, end = 0; begin < rows; begin = end) {
    const std::int32_t expert = chosen[order[begin]];
    while (end < rows && chosen[order[end]] == expert) ++end;
    f(expert, begin, end);
  }
}

void sort_by_expert(std::int32_t* order, std::int32_t* token, std::int32_t* place,
                    View<const std::int32_t, 2> chosen) {
  const std::int32_t rows = static_cast<std::int32_t>(chosen.size());
  const std::int32_t k = static_cast<std::int32_t>(chosen.shape[1]);
  for (std::int32_t i = 0; i < rows; ++i) order[i] = i;
  std::sort(order, order + rows, [&](std::int32_t a, std::int32_t b) {
    return chosen.data[a] != chosen.data[b] ? chosen.data[a] < chosen.data[b] : a < b;
  });
  for (std::int32_t i = 0; i < rows; ++i) {
    token[i] = order[i] / k;
    place[order[i]] = i;
  }
}

/// y[t,:] += sum_i weights[t,i] out[place of (t,i),:]
void combine(View<float, 2> y, const float* out, const std::int32_t* place,
             View<const float, 2> weights) {
  const Index T = y.shape[0], C = y.shape[1], k = weights.shape[1];
  parallel_for(T, k * C / 8, [&](Index t) {
    for (Index i = 0; i < k; ++i) {
      const float* const mine = out + place[t * k + i] * C;
      const float weight = weights(t, i);
      for (Index c = 0; c < C; ++c) y.data[t * C + c] += weight * mine[c];
    }
  });
}

}  // namespace

template <class X>
void feed_forward(Cpu cpu, View<float, 2> y, View<const X, 2> x, const FeedForward& network,
                  bool add, Scratch scratch) {
  const Index T = x.shape[0], C = x.shape[1], F = network.down.in();
  expect_shape("y", y, {T, C});
  expect_network<X>(network, C, F);
  const Pass<X> pass(scratch, T, C, F);
  Product first = product(x.data, C, T, network.gate_up, pass.gate_up);
  first.bias = bias_of(network.gate_up_bias, network.gate_up);
  multiply(cpu, {&first, 1}, pass.threads);
  swiglu<X>(cpu, {pass.h, {T, F}}, {pass.gate_up, {T, 2 * F}});
  Product second = product(pass.h, F, T, network.down, add ? pass.out : y.data);
  second.bias = bias_of(network.down_bias, network.down);
  multiply(cpu, {&second, 1}, pass.threads);
  if (!add) return;
  parallel_for(T * C, 1, [&](Index i) { y.data[i] += pass.out[i]; });
}

template <class X>
void experts(Cpu cpu, View<float, 2> y, const ExpertsIn<X>& in, Scratch scratch) {
  const Index T = in.x.shape[0], C = in.x.shape[1], k = in.chosen.shape[1], rows = T * k;
  expect_shape("y", y, {T, C});
  expect_shape("chosen", in.chosen, {T, k});
  expect_shape("weights", in.weights, {T, k});
  for (const std::int32_t e : in.chosen)
    if (!(0 <= e && e < static_cast<std::int32_t>(in.networks.size())))
      throw Error("expert " + std::to_string(e) + " was chosen; expected one of " +
                  std::to_string(in.networks.size()));
  if (rows == 0) return;
  const Index F = in.networks[0].down.in();
  const Pass<X> pass(scratch, rows, C, F);
  sort_by_expert(pass.order, pass.token, pass.place, in.chosen);

  Index runs = 0;
  for_each_run(pass.order, in.chosen.data, rows, [&](std::int32_t e, Index begin, Index end) {
    const FeedForward& network = in.networks[static_cast<std::size_t>(e)];
    expect_network<X>(network, C, F);
    Product* const p = new (pass.products + runs++)
        Product(product(in.x.data, C, end - begin, network.gate_up, pass.gate_up + begin * 2 * F));
    p->which = pass.token + begin;
  });
  const std::span<Product> products(pass.products, static_cast<std::size_t>(runs));
  multiply(cpu, products, pass.threads);
  swiglu<X>(cpu, {pass.h, {rows, F}}, {pass.gate_up, {rows, 2 * F}});
  runs = 0;
  for_each_run(pass.order, in.chosen.data, rows, [&](std::int32_t e, Index begin, Index end) {
    pass.products[runs++] =
        product(pass.h + begin * F, F, end - begin, in.networks[static_cast<std::size_t>(e)].down,
                pass.out + begin * C);
  });
  multiply(cpu, products, pass.threads);
  combine(y, pass.out, pass.place, in.weights);
}

Index experts_scratch(Index T, Index k, Index C, Index F) {
  return Pass<float>({}, T * k, C, F).bytes;  // no element is wider
}

#define DSA_INSTANTIATE(X)                                                                    \
  template void feed_forward(Cpu, View<float, 2>, View<const X, 2>, const FeedForward&, bool, \
                             Scratch);                                                        \
  template void experts(Cpu, View<float, 2>, const ExpertsIn<X>&, Scratch);
DSA_INSTANTIATE(float)
DSA_INSTANTIATE(bf16)

}  // namespace dsa::cpu
