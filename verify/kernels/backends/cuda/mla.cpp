#include "optimized/cuda/ops/mla.cuh"

#include "verify/kernels/backends/cuda/binding.hpp"

namespace dsa::verify::kernels::DSA_PLACE {
namespace {

template <class Row>
struct Bound {
  MlaOut y;
  MlaIn<Row> in;

  Bound(Binding& b, const Case& c, Arrays& arrays)
      : y{.out = b.out<float, 3>(arrays.at("out")), .lse = b.out<float, 2>(arrays.at("lse"))},
        in{.q = b.in<QueryOf<Row>, 3>(c.in.at("q")),
           .kv = b.pages<Row>(c, "kv"),
           .scale = c.scalar("scale")} {}
};

Chosen keys_of(Binding& b, const Case& c, Chosen*) {
  return {b.in<std::int32_t, 2>(c.in.at("chosen"))};
}
AllVisible keys_of(Binding& b, const Case& c, AllVisible*) {
  return {{b.in<std::int32_t, 1>(c.in.at("begin")), b.in<std::int32_t, 1>(c.in.at("end"))}};
}

/// A row of NaN says that a key was none: which one.
void check_keys(const Case& c, const Arrays& out) {
  const auto found = c.in.find("chosen");
  if (found == c.in.end()) return;
  const auto chosen = found->second.as<std::int32_t, 2>();
  const auto lse = out.at("lse").as<float, 2>();
  const Index S = c.in.at("kv").shape()[0];
  for (Index t = 0; t < lse.shape[0]; ++t) {
    if (lse.shape[1] == 0 || !std::isnan(lse(t, 0))) continue;
    for (const std::int32_t s : chosen[t])
      require(-1 <= s && s < S, "query " + std::to_string(t) + " chose key " + std::to_string(s) +
                                    ", expected -1 or one of " + std::to_string(S));
  }
}

template <class Row, class Keys>
Launch prepare_v1(const Case& c, Arrays& out) {
  const auto b = std::make_shared<Binding>();
  const Bound<Row> x(*b, c, out);
  const Keys keys = keys_of(*b, c, static_cast<Keys*>(nullptr));
  return launch_of(
      b, [=] { v1::mla(Stream{}, x.y, x.in, keys); }, [&c, &out] { check_keys(c, out); });
}

template <class Row, class Keys, int splits>
Launch prepare_v2(const Case& c, Arrays& out) {
  const auto b = std::make_shared<Binding>();
  const Bound<Row> x(*b, c, out);
  const Keys keys = keys_of(*b, c, static_cast<Keys*>(nullptr));
  const auto& shape = x.y.out.shape;
  const auto workspace =
      b->scratch<float>(mla_parts_workspace(shape[0], shape[1], shape[2], splits));
  return launch_of(
      b, [=] { v2::mla(Stream{}, x.y, x.in, keys, splits, workspace); },
      [&c, &out] { check_keys(c, out); });
}

template <class Row, class Keys, int ranges>
Launch prepare_v3(const Case& c, Arrays& out) {
  const auto b = std::make_shared<Binding>();
  const Bound<Row> x(*b, c, out);
  const Keys keys = keys_of(*b, c, static_cast<Keys*>(nullptr));
  const auto& shape = x.y.out.shape;
  const auto workspace =
      b->scratch<float>(mla_parts_workspace(shape[0], shape[1], shape[2], ranges));
  return launch_of(
      b, [=] { v3::mla(Stream{}, x.y, x.in, keys, ranges, workspace); },
      [&c, &out] { check_keys(c, out); });
}

void run_op(const auto& x, const Chosen& keys, DeviceView<float, 1> workspace) {
  mla_sparse(Stream{}, x.y, x.in, keys.keys, workspace);
}
void run_op(const auto& x, const AllVisible& keys, DeviceView<float, 1> workspace) {
  mla_dense(Stream{}, x.y, x.in, keys.visible, workspace);
}

template <class Row, class Keys>
Launch prepare_dispatch(const Case& c, Arrays& out) {
  const auto b = std::make_shared<Binding>();
  const Bound<Row> x(*b, c, out);
  const Keys keys = keys_of(*b, c, static_cast<Keys*>(nullptr));
  const auto& shape = x.y.out.shape;
  const Index R = shape[2], P = x.in.q.shape[2] - R;
  const auto workspace =
      b->scratch<float>(mla_workspace<Row>(shape[0], shape[1], R, P, keys.most_keys(x.in.kv.rows)));
  return launch_of(
      b, [=] { run_op(x, keys, workspace); }, [&c, &out] { check_keys(c, out); });
}

template <class Row>
std::string refuses(const Case& c) {
  return v2::mla_refuses<Row>(c.sizes.at('N'), c.sizes.at('R'), c.sizes.at('P'));
}

std::string v3_refuses(const Case& c) {
  return v3::mla_refuses(c.sizes.at('R'), c.sizes.at('P'), c.scalar("scale"));
}

template <class Keys>
void add(std::vector<Rung>& all, const char* op) {
  all.insert(all.end(), {{op, "v1", "fp32", prepare_v1<float, Keys>},
                         {op, "v1", "bf16", prepare_v1<bf16, Keys>},
                         {op, "v1", "fp8", prepare_v1<e4m3, Keys>},
                         {op, "v2", "bf16", prepare_v2<bf16, Keys, 1>, refuses<bf16>},
                         {op, "v2", "fp8", prepare_v2<e4m3, Keys, 1>, refuses<e4m3>},
                         {op, "v2-3-splits", "bf16", prepare_v2<bf16, Keys, 3>, refuses<bf16>},
                         {op, "v2-3-splits", "fp8", prepare_v2<e4m3, Keys, 3>, refuses<e4m3>},
                         {op, "dispatch", "fp32", prepare_dispatch<float, Keys>},
                         {op, "dispatch", "bf16", prepare_dispatch<bf16, Keys>},
                         {op, "dispatch", "fp8", prepare_dispatch<e4m3, Keys>}});
}

}  // namespace

std::vector<Rung> mla_rungs() {
  std::vector<Rung> all;
  add<Chosen>(all, "mla_sparse");
  all.insert(all.end(),
             {{"mla_sparse", "v3", "bf16", prepare_v3<bf16, Chosen, 1>, v3_refuses},
              {"mla_sparse", "v3", "fp8", prepare_v3<e4m3, Chosen, 1>, v3_refuses},
              {"mla_sparse", "v3-3-ranges", "fp8", prepare_v3<e4m3, Chosen, 3>, v3_refuses}});
  add<AllVisible>(all, "mla_dense");
  return all;
}

}  // namespace dsa::verify::kernels::DSA_PLACE
