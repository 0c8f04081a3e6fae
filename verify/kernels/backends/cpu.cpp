#include "verify/kernels/backends/cpu.hpp"

#include <algorithm>
#include <memory>

#include "core/threads.hpp"
#include "optimized/cpu/ops/embed.hpp"
#include "optimized/cpu/ops/experts.hpp"
#include "optimized/cpu/ops/indexer_topk.hpp"
#include "optimized/cpu/ops/mla_dense.hpp"
#include "optimized/cpu/ops/mla_expanded.hpp"
#include "optimized/cpu/ops/mla_sparse.hpp"
#include "optimized/cpu/ops/norms.hpp"
#include "optimized/cpu/ops/quantise.hpp"
#include "optimized/cpu/ops/rope.hpp"
#include "optimized/cpu/ops/router.hpp"
#include "optimized/cpu/ops/swiglu.hpp"
#include "optimized/cpu/ops/topk_select.hpp"
#include "verify/kernels/backends/cpu_entries.hpp"
#include "verify/kernels/cases/router.hpp"

namespace dsa::verify::kernels {
namespace {

using cpu::Cpu;

/// Scratch, poisoned and guarded.
class Memory {
 public:
  explicit Memory(Index bytes_per_thread, Index threads = dsa::threads())
      : bytes_((bytes_per_thread + 63) / 64 * 64),
        array_(std::make_shared<Array>(Dtype::u8, std::vector<Index>{bytes_ * threads})) {
    array_->poison();
  }
  operator cpu::Scratch() const { return {array_->bytes().data(), bytes_}; }
  void check() const { require(array_->guards_intact(), "the op wrote beside its scratch"); }

 private:
  Index bytes_;
  std::shared_ptr<Array> array_;
};

template <class F>
Launch launch(const Memory& memory, F op) {
  return {[=]() mutable { op(cpu::Scratch(memory)); }, [=] { memory.check(); }};
}

/// The rows of an array as a cache of pages that lie anywhere.
template <class Row>
class Cache {
 public:
  explicit Cache(const Array& rows) : rows_(rows.shape()[0]), width_(rows.shape()[1]) {
    const auto pages = std::make_shared<std::vector<Array>>();
    const Index row_bytes = rows_ ? static_cast<Index>(rows.bytes().size()) / rows_ : 0;
    for (Index s = 0; s < rows_; s += page_rows) {
      const Index n = std::min(page_rows, rows_ - s);
      Array page(rows.dtype(), {n, width_});
      std::copy_n(rows.bytes().data() + s * row_bytes, n * row_bytes, page.bytes().data());
      pages->push_back(std::move(page));
    }
    for (const Array& page : *pages) first_.push_back(page.template as<Row, 2>().data);
    pages_ = pages;
  }
  Pages<const Row> view() const { return {first_.data(), page_rows, rows_, width_}; }

 private:
  static constexpr Index page_rows = 64;
  Index rows_, width_;
  std::shared_ptr<const std::vector<Array>> pages_;  // of all copies
  std::vector<const Row*> first_;
};

/// Calls f<float>(), f<bf16>() or f<e4m3>(), as the dtype of a case says.
template <class F>
Launch for_dtype(const std::string& dtype, F&& f) {
  if (dtype == "fp32") return f.template operator()<float>();
  if (dtype == "bf16") return f.template operator()<bf16>();
  return f.template operator()<e4m3>();
}
template <class F>
Launch for_float_or_bf16(const std::string& dtype, F&& f) {
  return dtype == "fp32" ? f.template operator()<float>() : f.template operator()<bf16>();
}

KeyRanges visible(const Case& c) {
  return {c.in.at("begin").as<std::int32_t, 1>(), c.in.at("end").as<std::int32_t, 1>()};
}

Launch embed(Cpu on, const Case& c, Arrays& out) {
  return for_float_or_bf16(c.dtype, [&]<class T>() -> Launch {
    return {[=, y = out.at("y").as<T, 2>(), table = c.in.at("table").as<T, 2>(),
             tokens = c.in.at("tokens").as<std::int32_t, 1>()] {
              cpu::embed<T, T>(on, y, table, tokens);
            },
            {}};
  });
}

Launch rmsnorm(Cpu on, const Case& c, Arrays& out) {
  return for_float_or_bf16(c.dtype, [&]<class Y>() -> Launch {
    return {[=, y = out.at("y").as<Y, 2>(), x = c.in.at("x").as<float, 2>(),
             g = c.in.at("g").as<float, 1>(),
             eps = c.scalar("eps")] { cpu::rmsnorm<Y>(on, y, x, g, eps); },
            {}};
  });
}

Launch layernorm(Cpu on, const Case& c, Arrays& out) {
  return for_float_or_bf16(c.dtype, [&]<class Y>() -> Launch {
    return {[=, y = out.at("y").as<Y, 2>(), x = c.in.at("x").as<float, 2>(),
             g = c.in.at("g").as<float, 1>(), b = c.in.at("b").as<float, 1>(),
             eps = c.scalar("eps")] { cpu::layernorm<Y>(on, y, x, g, b, eps); },
            {}};
  });
}

Launch rope(Cpu on, const Case& c, Arrays& out) {
  const RopeLayout layout = c.flag("interleaved") ? RopeLayout::interleaved : RopeLayout::half;
  return {[=, y = out.at("y").as<float, 3>(), x = c.in.at("x").as<float, 3>(),
           cos = c.in.at("cos").as<float, 2>(), sin = c.in.at("sin").as<float, 2>(),
           first = c.integer("first")] {
            std::copy(x.begin(), x.end(), y.begin());  // the op turns in place
            cpu::rope(on, y, cos, sin, first, layout);
          },
          {}};
}

Launch hadamard_e4m3(Cpu on, const Case& c, Arrays& out) {
  return {[=, y = out.at("y").as<e4m3, 2>(), scale = out.at("scale").as<float, 1>(),
           x = c.in.at("x").as<float, 2>(),
           ue8m0 = c.flag("ue8m0")] { cpu::hadamard_e4m3(on, y, scale, x, ue8m0); },
          {}};
}

Launch latent_e4m3(Cpu on, const Case& c, Arrays& out) {
  return {[=, y = out.at("y").as<e4m3, 2>(), x = c.in.at("x").as<float, 2>(), R = c.integer("R"),
           ue8m0 = c.flag("ue8m0")] { cpu::latent_e4m3_rows(on, y, x, R, ue8m0); },
          {}};
}

/// Matrix e of `w`.
Tensor<float, 2> numbers(const Array& w, Index e, Index rows, Index columns) {
  Tensor<float, 2> wide({rows, columns});
  const Index bytes = rows * columns * bits_of(w.dtype()) / 8;
  decode(w.dtype(), w.bytes().data() + e * bytes, rows * columns, wide.data());
  return wide;
}

cpu::Matrix packed(Cpu on, const Array& w, Index e, Index rows, Index columns) {
  return {on, numbers(w, e, rows, columns), w.dtype()};
}

Launch linear(Cpu on, const Case& c, Arrays& out) {
  const Array& w = c.in.at("w");
  const Index F = w.shape()[0], C = w.shape()[1];
  const auto bias = c.in.contains("bias") ? c.in.at("bias").as<float, 1>() : View<const float, 1>{};
  return for_float_or_bf16(c.dtype, [&]<class X>() {
    return launch(Memory(cpu::linear_scratch(C)),
                  [=, y = out.at("y").as<float, 2>(), x = c.in.at("x").as<X, 2>(),
                   matrix = packed(on, w, 0, F, C)](cpu::Scratch scratch) {
                    cpu::linear<float, X>(on, y, x, matrix, bias, scratch);
                  });
  });
}

Launch swiglu(Cpu on, const Case& c, Arrays& out) {
  return for_float_or_bf16(c.dtype, [&]<class H>() -> Launch {
    return {[=, h = out.at("h").as<H, 2>(), gate_up = c.in.at("gate_up").as<float, 2>()] {
              cpu::swiglu<H>(on, h, gate_up);
            },
            {}};
  });
}

Launch router(Cpu on, const Case& c, Arrays& out) {
  const Config config = router_config(c);
  const auto bias = c.in.contains("bias") ? c.in.at("bias").as<float, 1>() : View<const float, 1>{};
  return launch(Memory(cpu::router_scratch(config)),
                [=,
                 y = cpu::RouterOut{.experts = out.at("experts").as<std::int32_t, 2>(),
                                    .weights = out.at("weights").as<float, 2>()},
                 logits = c.in.at("logits").as<float, 2>()](cpu::Scratch scratch) {
                  cpu::router(on, y, logits, bias, config, scratch);
                });
}

Launch experts(Cpu on, const Case& c, Arrays& out) {
  const Index T = c.sizes.at('T'), k = c.sizes.at('K'), E = c.sizes.at('E'), C = c.sizes.at('C'),
              F = c.sizes.at('F');
  std::vector<cpu::FeedForward> networks;
  for (Index e = 0; e < E; ++e)
    networks.push_back(
        {packed(on, c.in.at("gate_up"), e, 2 * F, C), packed(on, c.in.at("down"), e, C, F)});
  return for_float_or_bf16(c.dtype, [&]<class X>() {
    cpu::ExpertsIn<X> in{.x = c.in.at("x").as<X, 2>(),
                         .chosen = c.in.at("chosen").as<std::int32_t, 2>(),
                         .weights = c.in.at("weights").as<float, 2>(),
                         .networks = {}};
    return launch(Memory(cpu::experts_scratch(T, k, C, F), 1),
                  [=, y = out.at("y").as<float, 2>()](cpu::Scratch scratch) mutable {
                    std::fill(y.begin(), y.end(), 0.0f);  // the op adds to y
                    in.networks = networks;
                    cpu::experts(on, y, in, scratch);
                  });
  });
}

/// The inputs of the indexer, without the keys.
template <class Row>
cpu::IndexerIn<Row> indexer_in(const Case& c) {
  return {.q = c.in.at("q").as<Row, 3>(),
          .k = {},
          .w = c.in.at("w").as<float, 2>(),
          .relu = c.flag("relu"),
          .visible = visible(c)};
}

Launch indexer_scores(Cpu on, const Case& c, Arrays& out) {
  return for_dtype(c.dtype, [&]<class Row>() {
    return launch(Memory(cpu::indexer_scores_scratch(c.sizes.at('H'), c.sizes.at('D'))),
                  [=, scores = out.at("scores").as<float, 2>(), in = indexer_in<Row>(c),
                   k = Cache<Row>(c.in.at("k"))](cpu::Scratch scratch) mutable {
                    in.k = k.view();
                    cpu::indexer_scores(on, scores, in, scratch);
                  });
  });
}

Launch indexer_topk(Cpu on, const Case& c, Arrays& out) {
  const Index K = c.integer("topk");
  return for_dtype(c.dtype, [&]<class Row>() {
    return launch(Memory(cpu::indexer_topk_scratch(c.sizes.at('H'), c.sizes.at('D'), K)),
                  [=, chosen = out.at("chosen").as<std::int32_t, 2>(), in = indexer_in<Row>(c),
                   k = Cache<Row>(c.in.at("k"))](cpu::Scratch scratch) mutable {
                    in.k = k.view();
                    cpu::indexer_topk(on, chosen, in, scratch);
                  });
  });
}

Launch topk_select(Cpu on, const Case& c, Arrays& out) {
  return launch(Memory(cpu::topk_select_scratch(c.sizes.at('S'), c.sizes.at('K'))),
                [=, chosen = out.at("chosen").as<std::int32_t, 2>(),
                 scores = c.in.at("scores").as<float, 2>()](cpu::Scratch scratch) {
                  cpu::topk_select(on, chosen, scores, scratch);
                });
}

cpu::MlaOut mla_out(Arrays& out) {
  return {.out = out.at("out").as<float, 3>(), .lse = out.at("lse").as<float, 2>()};
}

/// f<Q, Row>() for the types of a case's queries and rows.
template <class F>
Launch for_latents(const std::string& dtype, F&& f) {
  if (dtype == "fp32") return f.template operator()<float, float>();
  if (dtype == "bf16") return f.template operator()<bf16, bf16>();
  return f.template operator()<bf16, e4m3>();
}

Launch mla_sparse(Cpu on, const Case& c, Arrays& out) {
  const Index N = c.sizes.at('N'), R = c.sizes.at('R'), P = c.sizes.at('P'), K = c.sizes.at('K');
  return for_latents(c.dtype, [&]<class Q, class Row>() {
    return launch(Memory(cpu::mla_sparse_scratch(N, R, P, K)),
                  [=, y = mla_out(out), q = c.in.at("q").as<Q, 3>(), kv = Cache<Row>(c.in.at("kv")),
                   chosen = c.in.at("chosen").as<std::int32_t, 2>(),
                   scale = c.scalar("scale")](cpu::Scratch scratch) {
                    cpu::mla_sparse<Q, Row>(on, y, {.q = q, .kv = kv.view(), .scale = scale},
                                            chosen, scratch);
                  });
  });
}

Launch mla_dense(Cpu on, const Case& c, Arrays& out) {
  const Index N = c.sizes.at('N'), R = c.sizes.at('R'), P = c.sizes.at('P');
  return for_latents(c.dtype, [&]<class Q, class Row>() {
    return launch(Memory(cpu::mla_dense_scratch(N, R, P)),
                  [=, y = mla_out(out), q = c.in.at("q").as<Q, 3>(), kv = Cache<Row>(c.in.at("kv")),
                   seen = visible(c), scale = c.scalar("scale")](cpu::Scratch scratch) {
                    cpu::mla_dense<Q, Row>(on, y, {.q = q, .kv = kv.view(), .scale = scale}, seen,
                                           scratch);
                  });
  });
}

Launch mla_expanded(Cpu on, const Case& c, Arrays& out) {
  const Index T = c.sizes.at('T'), N = c.sizes.at('N'), R = c.sizes.at('R'), P = c.sizes.at('P'),
              B = c.sizes.at('B'), U = c.sizes.at('U');
  const Array& kv_b = c.in.at("kv_b");
  std::vector<cpu::Matrix> w;
  for (Index n = 0; n < N; ++n)
    w.push_back(cpu::expansion_of(on, numbers(kv_b, n, B + U, R), B, kv_b.dtype()));
  return for_latents(c.dtype, [&]<class X, class Row>() {
    const Index bytes = cpu::mla_expanded_scratch<X>(T, N, R, P, B, U);
    return launch(Memory(bytes, 1), [=, y = mla_out(out), q = c.in.at("q").as<X, 3>(),
                                     kv = Cache<Row>(c.in.at("kv")), seen = visible(c),
                                     scale = c.scalar("scale")](cpu::Scratch scratch) {
      cpu::mla_expanded<X, Row>(
          on, y, {.q = q, .kv = kv.view(), .w = w, .visible = seen, .scale = scale}, scratch);
    });
  });
}

/// Every op of the engine that the CPU backend has, in the dtypes it has.
std::vector<CpuEntry> entries() {
  const std::vector<std::string> fp32 = {"fp32"}, fp8 = {"fp8"}, plain = {"fp32", "bf16"},
                                 all = {"fp32", "bf16", "fp8"};
  return {{"embed", plain, embed},
          {"rmsnorm", plain, rmsnorm},
          {"layernorm", plain, layernorm},
          {"rope", fp32, rope},
          {"hadamard_e4m3", fp8, hadamard_e4m3},
          {"latent_e4m3", fp8, latent_e4m3},
          {"linear", plain, linear},
          {"swiglu", plain, swiglu},
          {"router", fp32, router},
          {"experts", plain, experts},
          {"indexer_scores", all, indexer_scores},
          {"topk_select", fp32, topk_select},
          {"indexer_topk", all, indexer_topk},
          {"mla_sparse", all, mla_sparse},
          {"mla_dense", all, mla_dense},
          {"mla_expanded", all, mla_expanded}};
}

}  // namespace

std::vector<Kernel> cpu_kernels() {
  const std::vector<cpu::Tier>& usable = cpu::usable_tiers();
  std::vector<Kernel> kernels;
  std::vector<CpuEntry> all = entries();
  for (CpuEntry& entry : cpu_training_entries()) all.push_back(std::move(entry));
  for (const CpuEntry& entry : all)
    for (const std::string& dtype : entry.dtypes)
      for (int i = 0; i < cpu::tier_count; ++i) {
        const auto tier = static_cast<cpu::Tier>(i);
        Kernel k{.op = entry.op,
                 .backend = "cpu",
                 .rung = std::string(name_of(tier)),
                 .dtype = dtype,
                 .ran = Ran::compiled,
                 .refuses = {},
                 .prepare = {}};
        if (std::find(usable.begin(), usable.end(), tier) != usable.end()) {
          k.ran = Ran::host;
          k.prepare = [tier, prepare = entry.prepare](const Case& c, Arrays& out) {
            return prepare(Cpu{tier}, c, out);
          };
        }
        kernels.push_back(std::move(k));
      }
  return kernels;
}

}  // namespace dsa::verify::kernels
