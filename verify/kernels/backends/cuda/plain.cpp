// Names, types and shapes of the arrays: verify/kernels/cases/*.cpp.
#include "optimized/cuda/ops/embed.cuh"
#include "optimized/cuda/ops/experts.cuh"
#include "optimized/cuda/ops/linear.cuh"
#include "optimized/cuda/ops/linear_heads.cuh"
#include "optimized/cuda/ops/norms.cuh"
#include "optimized/cuda/ops/quantise.cuh"
#include "optimized/cuda/ops/rope.cuh"
#include "optimized/cuda/ops/router.cuh"
#include "optimized/cuda/ops/swiglu.cuh"
#include "verify/kernels/backends/cuda/binding.hpp"
#include "verify/kernels/cases/router.hpp"

namespace dsa::verify::kernels::DSA_PLACE {
namespace {

using Bound = std::shared_ptr<Binding>;
Bound bound() { return std::make_shared<Binding>(); }

double number(float x) { return x; }
double number(bf16 x) {
  double value = 0;
  decode(Dtype::bf16, reinterpret_cast<const std::byte*>(&x), 1, &value);
  return value;
}

/// A row of NaN says that the table has no such token.
template <class X>
void check_tokens(View<const std::int32_t, 1> tokens, View<const X, 2> y, Index V) {
  for (Index t = 0; t < y.shape[0]; ++t)
    require(y.shape[1] == 0 || !std::isnan(number(y(t, 0))) || (tokens(t) >= 0 && tokens(t) < V),
            "token " + std::to_string(tokens(t)) + " at " + std::to_string(t) + " is none of the " +
                std::to_string(V) + " of the table");
}

template <class X>
Launch prepare_embed(const Case& c, Arrays& out) {
  const Bound b = bound();
  const auto y = b->out<X, 2>(out.at("y"));
  const auto table = b->in<X, 2>(c.in.at("table"));
  const auto tokens = b->in<std::int32_t, 1>(c.in.at("tokens"));
  return launch_of(
      b, [=] { embed(Stream{}, y, table, tokens); },
      [ids = c.in.at("tokens").as<std::int32_t, 1>(),
       rows = View<const X, 2>(out.at("y").as<X, 2>()),
       V = c.in.at("table").shape()[0]] { check_tokens(ids, rows, V); });
}

template <class Y, auto run>
Launch prepare_rmsnorm(const Case& c, Arrays& out) {
  const Bound b = bound();
  const auto y = b->out<Y, 2>(out.at("y"));
  const auto x = b->in<float, 2>(c.in.at("x"));
  const auto g = b->in<float, 1>(c.in.at("g"));
  const double eps = c.scalar("eps");
  return launch_of(b, [=] { run(Stream{}, y, x, g, eps); });
}

template <class Y, auto run>
Launch prepare_layernorm(const Case& c, Arrays& out) {
  const Bound b = bound();
  const auto y = b->out<Y, 2>(out.at("y"));
  const auto x = b->in<float, 2>(c.in.at("x"));
  const auto g = b->in<float, 1>(c.in.at("g")), bias = b->in<float, 1>(c.in.at("b"));
  const double eps = c.scalar("eps");
  return launch_of(b, [=] { run(Stream{}, y, x, g, bias, eps); });
}

std::string refuses_norm(const Case& c) { return v2::norm_refuses(c.sizes.at('C')); }

Launch prepare_rope(const Case& c, Arrays& out) {
  const Bound b = bound();
  const auto y = b->in_out<float, 3>(out.at("y"), c.in.at("x").as<float, 3>().data);
  const auto cos = b->in<float, 2>(c.in.at("cos")), sin = b->in<float, 2>(c.in.at("sin"));
  const Index first = c.integer("first");
  const RopeLayout layout = c.flag("interleaved") ? RopeLayout::interleaved : RopeLayout::half;
  return launch_of(b, [=] { rope(Stream{}, y, cos, sin, first, layout); });
}

template <auto run>
Launch prepare_hadamard(const Case& c, Arrays& out) {
  const Bound b = bound();
  const auto y = b->out<e4m3, 2>(out.at("y"));
  const auto scale = b->out<float, 1>(out.at("scale"));
  const auto x = b->in<float, 2>(c.in.at("x"));
  const bool ue8m0 = c.flag("ue8m0");
  return launch_of(b, [=] { run(Stream{}, y, scale, x, ue8m0); });
}

/// The same as index keys: the rows are taken apart again, so that the same case judges them.
template <auto run>
Launch prepare_hadamard_rows(const Case& c, Arrays& out) {
  const Bound b = bound();
  const auto x = b->in<float, 2>(c.in.at("x"));
  const Index T = x.shape[0], D = x.shape[1];
  const auto rows = std::make_shared<Array>(Dtype::u8, std::vector<Index>{T, D + 4});
  const auto y = b->out<e4m3, 2>(*rows);
  const bool ue8m0 = c.flag("ue8m0");
  Array &numbers = out.at("y"), &scale = out.at("scale");
  return launch_of(
      b, [=] { run(Stream{}, y, x, ue8m0); },
      [=, &numbers, &scale] {
        for (Index t = 0; t < T; ++t) {
          const std::byte* row = rows->bytes().data() + t * (D + 4);
          std::copy_n(row, D, numbers.bytes().data() + t * D);
          std::copy_n(row + D, 4, scale.bytes().data() + t * 4);
        }
      });
}

std::string refuses_hadamard(const Case& c) { return v2::hadamard_refuses(c.sizes.at('D')); }

template <auto run>
Launch prepare_latent(const Case& c, Arrays& out) {
  const Bound b = bound();
  const auto y = b->out<e4m3, 2>(out.at("y"));
  const auto x = b->in<float, 2>(c.in.at("x"));
  const Index R = c.integer("R");
  const bool ue8m0 = c.flag("ue8m0");
  return launch_of(b, [=] { run(Stream{}, y, x, R, ue8m0); });
}

std::string refuses_latent(const Case& c) {
  return v2::latent_refuses(c.sizes.at('R'), c.sizes.at('P'));
}

template <class H>
Launch prepare_swiglu(const Case& c, Arrays& out) {
  const Bound b = bound();
  const auto h = b->out<H, 2>(out.at("h"));
  const auto gate_up = b->in<float, 2>(c.in.at("gate_up"));
  return launch_of(b, [=] { swiglu(Stream{}, h, gate_up); });
}

template <auto run>
Launch prepare_router(const Case& c, Arrays& out) {
  const Bound b = bound();
  const RouterOut y{.experts = b->out<std::int32_t, 2>(out.at("experts")),
                    .weights = b->out<float, 2>(out.at("weights"))};
  const auto logits = b->in<float, 2>(c.in.at("logits"));
  const auto bias = b->optional<float, 1>(c, "bias");
  const View<float, 2> got = out.at("weights").as<float, 2>();
  return launch_of(
      b, [=, config = router_config(c)] { run(Stream{}, y, logits, bias, config); },
      [=] {
        for (Index t = 0; t < got.shape[0]; ++t)
          require(
              got.shape[1] == 0 || !std::isnan(got(t, 0)),
              "a logit of token " + std::to_string(t) + " is NaN: there is no order to choose by");
      });
}

std::string refuses_router(const Case& c) {
  return v2::router_refuses(c.sizes.at('E'), c.sizes.at('G'));
}

/// A row of NaN says that a token chose an expert there is none of.
void check_experts(View<const std::int32_t, 2> chosen, View<const float, 2> y, Index E) {
  for (Index t = 0; t < y.shape[0]; ++t) {
    if (y.shape[1] == 0 || !std::isnan(y(t, 0))) continue;
    for (const std::int32_t e : chosen[t])
      require(-1 <= e && e < E, "token " + std::to_string(t) + " chose expert " +
                                    std::to_string(e) + ", expected -1 or one of " +
                                    std::to_string(E));
  }
}

enum class ExpertsRung { v1, v2, dispatch };

template <class X, ExpertsRung rung>
Launch prepare_experts(const Case& c, Arrays& out) {
  const Bound b = bound();
  const ExpertsIn<X> in{.x = b->in<X, 2>(c.in.at("x")),
                        .gate_up = b->in<X, 3>(c.in.at("gate_up")),
                        .down = b->in<X, 3>(c.in.at("down")),
                        .chosen = b->in<std::int32_t, 2>(c.in.at("chosen")),
                        .weights = b->in<float, 2>(c.in.at("weights"))};
  const Index T = in.x.shape[0], C = in.x.shape[1], k = in.chosen.shape[1];
  const Index E = in.down.shape[0], F = in.down.shape[2];
  const std::vector<float> zeros(static_cast<std::size_t>(T * C));
  const auto y = b->in_out<float, 2>(out.at("y"), zeros.data());
  const DeviceView<X, 3> hidden{b->scratch<X>(T * k * F).data, {T, k, F}};
  Index elements = 0;
  if constexpr (rung == ExpertsRung::v2) elements = v2::experts_workspace(T, k, E, C);
  if constexpr (rung == ExpertsRung::dispatch) elements = experts_workspace<X>(T, k, E, C, F);
  const auto space = b->scratch<std::uint32_t>(elements);
  return launch_of(
      b,
      [=] {
        if constexpr (rung == ExpertsRung::v1)
          v1::experts(Stream{}, y, in, hidden);
        else if constexpr (rung == ExpertsRung::v2)
          v2::experts(Stream{}, y, in, hidden, space);
        else
          experts(Stream{}, y, in, hidden, space);
      },
      [ids = c.in.at("chosen").as<std::int32_t, 2>(),
       got = View<const float, 2>(out.at("y").as<float, 2>()), E] { check_experts(ids, got, E); });
}

template <class X>
std::string refuses_experts(const Case& c) {
  return v2::experts_refuses(c.sizes.at('C'), c.sizes.at('F'), sizeof(X));
}

template <class X, auto run>
Launch prepare_linear(const Case& c, Arrays& out) {
  const Bound b = bound();
  const auto y = b->out<float, 2>(out.at("y"));
  const auto x = b->in<X, 2>(c.in.at("x")), w = b->in<X, 2>(c.in.at("w"));
  const Scales scales{b->optional<float, 2>(c, "x_scale"), b->optional<float, 2>(c, "w_scale")};
  const auto bias = b->optional<float, 1>(c, "bias");
  return launch_of(b, [=] { run(Stream{}, y, x, w, scales, bias); });
}

template <class X>
std::string refuses_linear(const Case& c) {
  return v2::linear_refuses(c.sizes.at('C'), sizeof(X));
}

std::string refuses_cublaslt(const Case& c) {
  return cublaslt::linear_refuses(c.sizes.at('T'), c.sizes.at('C'), c.sizes.at('F'),
                                  c.in.count("bias") > 0);
}

/// The same as the second of two heads. NaN stands where it must not look: in the first head, and
/// in eight channels more than the matrix takes.
constexpr Index more_channels = 8;
template <class X, auto run>
Launch prepare_linear_heads(const Case& c, Arrays& out) {
  const Bound b = bound();
  const View<const X, 2> x = c.in.at("x").as<X, 2>(), w = c.in.at("w").as<X, 2>();
  const Index T = x.shape[0], C = x.shape[1], F = w.shape[0];
  Array x_heads(c.in.at("x").dtype(), {T, 2, C + more_channels}),
      w_heads(c.in.at("w").dtype(), {2, F, C});
  x_heads.poison();
  w_heads.poison();
  for (Index t = 0; t < T; ++t) std::copy_n(x[t].data, C, x_heads.as<X, 3>()[t][1].data);
  std::copy_n(w.data, F * C, w_heads.as<X, 3>()[1].data);
  const auto y_heads = std::make_shared<Array>(Dtype::f32, std::vector<Index>{T, 2, F});
  const auto y = b->out<float, 3>(*y_heads);
  const auto xs = b->in<X, 3>(x_heads), ws = b->in<X, 3>(w_heads);
  return launch_of(
      b, [=] { run(Stream{}, y, xs, ws); },
      [=, answer = out.at("y").as<float, 2>()] {
        for (Index t = 0; t < T; ++t)
          std::copy_n(y_heads->as<float, 3>()[t][1].data, F, answer.data + t * F);
      });
}

std::string refuses_bias(const Case& c) {
  return c.in.count("bias") ? "linear_heads adds no bias" : "";
}
template <class X>
std::string refuses_heads(const Case& c) {
  const Index C = c.sizes.at('C');
  const std::string bias = refuses_bias(c);
  return bias.empty() ? v2::linear_heads_refuses(C + more_channels, C, sizeof(X)) : bias;
}

}  // namespace

std::vector<Rung> plain_rungs() {
  return {
      {"embed", "v1", "fp32", prepare_embed<float>},
      {"embed", "v1", "bf16", prepare_embed<bf16>},
      {"rope", "v1", "fp32", prepare_rope},
      {"swiglu", "v1", "fp32", prepare_swiglu<float>},
      {"swiglu", "v1", "bf16", prepare_swiglu<bf16>},
      {"rmsnorm", "v1", "fp32", prepare_rmsnorm<float, v1::rmsnorm<float>>},
      {"rmsnorm", "v1", "bf16", prepare_rmsnorm<bf16, v1::rmsnorm<bf16>>},
      {"rmsnorm", "v2", "fp32", prepare_rmsnorm<float, v2::rmsnorm<float>>, refuses_norm},
      {"rmsnorm", "v2", "bf16", prepare_rmsnorm<bf16, v2::rmsnorm<bf16>>, refuses_norm},
      {"rmsnorm", "dispatch", "fp32", prepare_rmsnorm<float, rmsnorm<float>>},
      {"rmsnorm", "dispatch", "bf16", prepare_rmsnorm<bf16, rmsnorm<bf16>>},
      {"layernorm", "v1", "fp32", prepare_layernorm<float, v1::layernorm<float>>},
      {"layernorm", "v1", "bf16", prepare_layernorm<bf16, v1::layernorm<bf16>>},
      {"layernorm", "v2", "fp32", prepare_layernorm<float, v2::layernorm<float>>, refuses_norm},
      {"layernorm", "v2", "bf16", prepare_layernorm<bf16, v2::layernorm<bf16>>, refuses_norm},
      {"layernorm", "dispatch", "fp32", prepare_layernorm<float, layernorm<float>>},
      {"layernorm", "dispatch", "bf16", prepare_layernorm<bf16, layernorm<bf16>>},
      {"hadamard_e4m3", "v1", "fp8", prepare_hadamard<v1::hadamard_e4m3>},
      {"hadamard_e4m3", "v2", "fp8", prepare_hadamard<v2::hadamard_e4m3>, refuses_hadamard},
      {"hadamard_e4m3", "dispatch", "fp8", prepare_hadamard<hadamard_e4m3>},
      {"hadamard_e4m3", "v1-rows", "fp8", prepare_hadamard_rows<v1::hadamard_e4m3_rows>},
      {"hadamard_e4m3", "v2-rows", "fp8", prepare_hadamard_rows<v2::hadamard_e4m3_rows>,
       refuses_hadamard},
      {"hadamard_e4m3", "dispatch-rows", "fp8", prepare_hadamard_rows<hadamard_e4m3_rows>},
      {"latent_e4m3", "v1", "fp8", prepare_latent<v1::latent_e4m3_rows>},
      {"latent_e4m3", "v2", "fp8", prepare_latent<v2::latent_e4m3_rows>, refuses_latent},
      {"latent_e4m3", "dispatch", "fp8", prepare_latent<latent_e4m3_rows>},
      {"router", "v1", "fp32", prepare_router<v1::router>},
      {"router", "v2", "fp32", prepare_router<v2::router>, refuses_router},
      {"router", "dispatch", "fp32", prepare_router<router>},
      {"experts", "v1", "fp32", prepare_experts<float, ExpertsRung::v1>},
      {"experts", "v1", "bf16", prepare_experts<bf16, ExpertsRung::v1>},
      {"experts", "v2", "fp32", prepare_experts<float, ExpertsRung::v2>, refuses_experts<float>},
      {"experts", "v2", "bf16", prepare_experts<bf16, ExpertsRung::v2>, refuses_experts<bf16>},
      {"experts", "dispatch", "fp32", prepare_experts<float, ExpertsRung::dispatch>},
      {"experts", "dispatch", "bf16", prepare_experts<bf16, ExpertsRung::dispatch>},
      {"linear", "v1", "fp32", prepare_linear<float, v1::linear<float>>},
      {"linear", "v1", "bf16", prepare_linear<bf16, v1::linear<bf16>>},
      {"linear", "v1", "fp8", prepare_linear<e4m3, v1::linear<e4m3>>},
      {"linear", "v1-heads", "fp32", prepare_linear_heads<float, v1::linear_heads<float>>,
       refuses_bias},
      {"linear", "v1-heads", "bf16", prepare_linear_heads<bf16, v1::linear_heads<bf16>>,
       refuses_bias},
      {"linear", "v2-heads", "fp32", prepare_linear_heads<float, v2::linear_heads<float>>,
       refuses_heads<float>},
      {"linear", "v2-heads", "bf16", prepare_linear_heads<bf16, v2::linear_heads<bf16>>,
       refuses_heads<bf16>},
      {"linear", "dispatch-heads", "fp32", prepare_linear_heads<float, linear_heads<float>>,
       refuses_bias},
      {"linear", "dispatch-heads", "bf16", prepare_linear_heads<bf16, linear_heads<bf16>>,
       refuses_bias},
      {"linear", "v2", "fp32", prepare_linear<float, v2::linear<float>>, refuses_linear<float>},
      {"linear", "v2", "bf16", prepare_linear<bf16, v2::linear<bf16>>, refuses_linear<bf16>},
      {"linear", "v2", "fp8", prepare_linear<e4m3, v2::linear<e4m3>>, refuses_linear<e4m3>},
      {"linear", "cublaslt", "bf16", prepare_linear<bf16, cublaslt::linear>, refuses_cublaslt},
      {"linear", "dispatch", "fp32", prepare_linear<float, linear<float>>},
      {"linear", "dispatch", "bf16", prepare_linear<bf16, linear<bf16>>},
      {"linear", "dispatch", "fp8", prepare_linear<e4m3, linear<e4m3>>}};
}

}  // namespace dsa::verify::kernels::DSA_PLACE
