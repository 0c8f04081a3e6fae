#include "optimized/cuda/ops/indexer_scores.cuh"
#include "optimized/cuda/ops/indexer_topk.cuh"
#include "optimized/cuda/ops/topk_select.cuh"
#include "verify/kernels/backends/cuda/binding.hpp"

namespace dsa::verify::kernels::DSA_PLACE {
namespace {

template <class Row>
IndexerIn<Row> indexer_in(Binding& b, const Case& c) {
  return {
      .q = b.in<Row, 3>(c.in.at("q")),
      .k = b.pages<Row>(c, "k"),
      .w = b.in<float, 2>(c.in.at("w")),
      .relu = c.flag("relu"),
      .visible = {b.in<std::int32_t, 1>(c.in.at("begin")), b.in<std::int32_t, 1>(c.in.at("end"))}};
}

template <class Row, auto run>
Launch prepare_scores(const Case& c, Arrays& out) {
  const auto b = std::make_shared<Binding>();
  const IndexerIn<Row> in = indexer_in<Row>(*b, c);
  const auto scores = b->out<float, 2>(out.at("scores"));
  return launch_of(b, [=] { run(Stream{}, scores, in); });
}

template <class T>
std::string refuses(const Case& c) {
  return v2::indexer_topk_refuses<T>(c.sizes.at('H'), c.sizes.at('D'));
}

std::string v3_refuses(const Case& c) {
  return v3::indexer_scores_refuses(c.sizes.at('H'), c.sizes.at('D'), c.flag("relu"));
}

/// Throws where a row had a NaN.
std::function<void()> nan_check(const std::shared_ptr<Array>& nan_at) {
  return [nan_at] {
    const auto at = nan_at->as<std::int32_t, 1>();
    for (Index t = 0; t < at.size(); ++t)
      require(at(t) == -1, "score (" + std::to_string(t) + ", " + std::to_string(at(t)) +
                               ") is NaN: there is no order to select by");
  };
}

template <auto run>
Launch prepare_select(const Case& c, Arrays& out) {
  const auto b = std::make_shared<Binding>();
  const auto scores = b->in<float, 2>(c.in.at("scores"));
  const auto chosen = b->out<std::int32_t, 2>(out.at("chosen"));
  const auto nan_at = std::make_shared<Array>(Dtype::i32, std::vector<Index>{scores.shape[0]});
  const auto nan_at_d = b->out<std::int32_t, 1>(*nan_at);
  return launch_of(
      b, [=] { run(Stream{}, chosen, nan_at_d, scores); }, nan_check(nan_at));
}

/// run(chosen, nan_at, in, workspace); elements(T, K, S) gives the size of the workspace.
template <class Row>
Launch prepare_topk(const Case& c, Arrays& out, auto elements, auto run) {
  const auto b = std::make_shared<Binding>();
  const IndexerIn<Row> in = indexer_in<Row>(*b, c);
  const auto chosen = b->out<std::int32_t, 2>(out.at("chosen"));
  const Index T = chosen.shape[0], K = chosen.shape[1];
  const auto nan_at = std::make_shared<Array>(Dtype::i32, std::vector<Index>{T});
  const auto nan_at_d = b->out<std::int32_t, 1>(*nan_at);
  const auto workspace = b->scratch<std::uint32_t>(elements(T, K, in.k.rows));
  return launch_of(
      b, [=] { run(chosen, nan_at_d, in, workspace); }, nan_check(nan_at));
}

template <class Row>
Launch prepare_topk_v1(const Case& c, Arrays& out) {
  return prepare_topk<Row>(
      c, out, [](Index T, Index K, Index) { return indexer_topk_workspace_of(T, K, 1); },
      [](auto chosen, auto nan_at, const IndexerIn<Row>& in, auto workspace) {
        v1::indexer_topk(Stream{}, chosen, nan_at, in, workspace);
      });
}

template <class Row, int splits>
Launch prepare_topk_v2(const Case& c, Arrays& out) {
  return prepare_topk<Row>(
      c, out, [](Index T, Index K, Index) { return indexer_topk_workspace_of(T, K, splits); },
      [](auto chosen, auto nan_at, const IndexerIn<Row>& in, auto workspace) {
        v2::indexer_topk(Stream{}, chosen, nan_at, in, splits, workspace);
      });
}

/// In panels of two queries, so that a case has several and a last one that may be smaller.
template <class Row>
Launch prepare_topk_v3(const Case& c, Arrays& out) {
  return prepare_topk<Row>(
      c, out, [](Index, Index, Index S) { return 2 * S; },
      [](auto chosen, auto nan_at, const IndexerIn<Row>& in, auto workspace) {
        v3::indexer_topk(Stream{}, chosen, nan_at, in, 2, workspace);
      });
}

template <class Row>
Launch prepare_topk_op(const Case& c, Arrays& out) {
  return prepare_topk<Row>(c, out, indexer_topk_workspace,
                           [](auto chosen, auto nan_at, const IndexerIn<Row>& in, auto workspace) {
                             indexer_topk(Stream{}, chosen, nan_at, in, workspace);
                           });
}

}  // namespace

std::vector<Rung> indexer_rungs() {
  return {
      {"indexer_scores", "v1", "fp32", prepare_scores<float, v1::indexer_scores<float>>},
      {"indexer_scores", "v1", "bf16", prepare_scores<bf16, v1::indexer_scores<bf16>>},
      {"indexer_scores", "v1", "fp8", prepare_scores<e4m3, v1::indexer_scores<e4m3>>},
      {"indexer_scores", "v2", "bf16", prepare_scores<bf16, v2::indexer_scores<bf16>>,
       refuses<bf16>},
      {"indexer_scores", "v2", "fp8", prepare_scores<e4m3, v2::indexer_scores<e4m3>>,
       refuses<e4m3>},
      {"indexer_scores", "v3", "bf16", prepare_scores<bf16, v3::indexer_scores<bf16>>, v3_refuses},
      {"indexer_scores", "v3", "fp8", prepare_scores<e4m3, v3::indexer_scores<e4m3>>, v3_refuses},
      {"indexer_scores", "dispatch", "fp32", prepare_scores<float, indexer_scores<float>>},
      {"indexer_scores", "dispatch", "bf16", prepare_scores<bf16, indexer_scores<bf16>>},
      {"indexer_scores", "dispatch", "fp8", prepare_scores<e4m3, indexer_scores<e4m3>>},
      {"topk_select", "v1", "fp32", prepare_select<v1::topk_select>},
      {"topk_select", "v2", "fp32", prepare_select<v2::topk_select>},
      {"topk_select", "v3", "fp32", prepare_select<v3::topk_select>},
      {"indexer_topk", "v1", "fp32", prepare_topk_v1<float>},
      {"indexer_topk", "v1", "bf16", prepare_topk_v1<bf16>},
      {"indexer_topk", "v1", "fp8", prepare_topk_v1<e4m3>},
      {"indexer_topk", "v2", "bf16", prepare_topk_v2<bf16, 1>, refuses<bf16>},
      {"indexer_topk", "v2", "fp8", prepare_topk_v2<e4m3, 1>, refuses<e4m3>},
      {"indexer_topk", "v2-3-splits", "bf16", prepare_topk_v2<bf16, 3>, refuses<bf16>},
      {"indexer_topk", "v2-3-splits", "fp8", prepare_topk_v2<e4m3, 3>, refuses<e4m3>},
      {"indexer_topk", "v3", "bf16", prepare_topk_v3<bf16>, refuses<bf16>},
      {"indexer_topk", "v3", "fp8", prepare_topk_v3<e4m3>, refuses<e4m3>},
      {"indexer_topk", "dispatch", "fp32", prepare_topk_op<float>},
      {"indexer_topk", "dispatch", "bf16", prepare_topk_op<bf16>},
      {"indexer_topk", "dispatch", "fp8", prepare_topk_op<e4m3>}};
}

}  // namespace dsa::verify::kernels::DSA_PLACE
