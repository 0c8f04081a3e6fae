// Four kernels and the call of a library, made wrong in one place each, and who notices: the judge
// of the op by its bounds, or the emulator whatever the numbers are. The unmutated copy passes
// both.
#define DSA_CUDA_ON_HOST
#include "optimized/cuda/device/indexer_tile.cuh"
#include "optimized/cuda/device/topk.cuh"
#include "optimized/cuda/host/cublaslt.hpp"
#include "optimized/cuda/ops/expert_groups.cuh"
#include "tests/catch.hpp"
#include "verify/kernels/backends/cuda/binding.hpp"

using namespace dsa;
using namespace dsa::cuda::host;
using Catch::Matchers::Contains;
using verify::kernels::Arrays;
using verify::kernels::Case;
using verify::kernels::host::Binding;

namespace {

enum class Mutant {
  none,
  mask_off_by_one,
  last_tile_dropped,
  barrier_missing,
  bf16_sums,
  not_atomic,
  one_tie_more,
  one_row_early,
  T_and_F_swapped,
  rows_too_near,
  rows_too_far,
  not_transposed,
  bias_ignored,
  bias_of_bf16,
  algorithm_of_another_T,
  workspace_not_given,
};

/// indexer_scores v2 in bf16: its loop over tiles, written out.
void scores_kernel(DeviceView<float, 2> scores, IndexerIn<bf16> in, Mutant mutant) {
  const Index t = blockIdx.x, S = in.k.rows, begin = in.visible.begin(t);
  const Index end = smaller(S, in.visible.end(t) + (mutant == Mutant::mask_off_by_one));
  const Index last = mutant == Mutant::last_tile_dropped ? end - keys_per_tile : end;
  SharedMemory memory;
  const IndexerTile<bf16> tile(memory, in);
  tile.load_query(in, t);
  for (Index s = threadIdx.x; s < S; s += indexer_threads) scores(t, s) = -INFINITY;
  for (Index first = begin; first < last; first += keys_per_tile) {
    tile.load_keys(0, first, end);
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();
    tile.score_stage(0);
    if (mutant != Mutant::barrier_missing) __syncthreads();
    const Index i = threadIdx.x;
    if (i < keys_per_tile && first + i < end) scores(t, first + i) = tile.score(first, i);
    __syncthreads();
  }
}

void rmsnorm_kernel(DeviceView<float, 2> y, DeviceView<const float, 2> x,
                    DeviceView<const float, 1> g, double eps, Mutant mutant) {
  const Index t = blockIdx.x, C = x.shape[1];
  SharedMemory memory;
  const Shared<float> partial = memory.take<float>(64);
  float sum = 0;
  for (Index c = threadIdx.x; c < C; c += 64) {
    sum += x(t, c) * x(t, c);
    if (mutant == Mutant::bf16_sums) sum = widen(narrow<bf16>(sum));
  }
  partial[threadIdx.x] = sum;
  if (mutant != Mutant::barrier_missing) __syncthreads();
  float total = 0;
  for (int i = 0; i < 64; ++i) total += partial[i];
  const float r = float(1 / std::sqrt(double(total) / double(C) + eps));
  for (Index c = threadIdx.x; c < C; c += 64) y(t, c) = g(c) * (x(t, c) * r);
}

/// topk_select by a cut that a sorted row would give; a row's ranks are counted into bins first.
void topk_kernel(DeviceView<std::int32_t, 2> chosen, DeviceView<const float, 2> scores,
                 Mutant mutant) {
  const Index t = blockIdx.x, S = scores.shape[1], K = chosen.shape[1];
  const auto rank = [&](Index s) { return rank_of(scores(t, s)); };
  SharedMemory memory;
  const SelectScratch scratch(memory);
  if (mutant == Mutant::not_atomic) {
    if (threadIdx.x < SelectScratch::bins) scratch.histogram[threadIdx.x] = 0;
    __syncthreads();
    for (Index s = threadIdx.x; s < S; s += blockDim.x) scratch.histogram[rank(s) >> 24] += 1;
    __syncthreads();
  }
  Cut cut = find_cut(rank, S, K, scratch);
  if (mutant == Mutant::one_tie_more) ++cut.equals;
  const auto same = [](Index s) { return s; };
  take_cut(cut, rank, same, S, scratch, [&](Index s, Index i) {
    if (i < K) chosen(t, i) = std::int32_t(s);
  });
}

/// experts v2: its groups, by one block with a thread an expert.
void group_kernel(v2::Groups groups, DeviceView<const std::int32_t, 1> expert_of, Index E,
                  Mutant mutant) {
  const Index pairs = expert_of.shape[0], e = threadIdx.x;
  SharedMemory memory;
  const Shared<std::int32_t> count = memory.take<std::int32_t>(E);
  if (e < E) count[e] = 0;
  __syncthreads();
  for (Index pair = e; pair < pairs; pair += blockDim.x)
    if (mutant == Mutant::not_atomic)
      count[expert_of(pair)] += 1;
    else
      count.atomic_add(expert_of(pair), 1);
  __syncthreads();
  if (e >= E) return;
  Index first = 0, tile = 0;
  for (Index other = 0; other < e; ++other)
    first += count[other], tile += v2::Groups::tiles_of(count[other]);
  const Index end = first + count[e];
  for (Index begin = first; begin < end; begin += product_rows) {
    const bool last = begin + product_rows >= end;
    groups.set_tile(tile++, {mutant == Mutant::last_tile_dropped && last ? -1 : e,
                             begin - (mutant == Mutant::one_row_early && begin > 0),
                             smaller(end, begin + product_rows)});
  }
  if (e == E - 1)
    while (tile < groups.tiles.shape[0]) groups.set_tile(tile++, {-1, 0, 0});
  for (Index pair = 0; pair < pairs; ++pair)
    if (expert_of(pair) == e) groups.order(first++) = std::int32_t(pair);
}

/// linear cublaslt: its call of the library, written out.
void library_product(DeviceView<float, 2> y, DeviceView<const bf16, 2> x,
                     DeviceView<const bf16, 2> w, DeviceView<const float, 1> bias, Mutant mutant) {
  const auto ok = [](cublasStatus_t status) {
    if (status != CUBLAS_STATUS_SUCCESS) throw Error(cublasLtGetStatusString(status));
  };
  cublasLtMatmulDescOpaque_t operation;
  ok(cublasLtMatmulDescInit(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  const auto set = [&](cublasLtMatmulDescAttributes_t attribute, auto value) {
    ok(cublasLtMatmulDescSetAttribute(&operation, attribute, &value, sizeof value));
  };
  const auto transposed = mutant == Mutant::not_transposed ? CUBLAS_OP_N : CUBLAS_OP_T;
  set(CUBLASLT_MATMUL_DESC_TRANSA, static_cast<std::int32_t>(transposed));
  if (bias.shape[0] > 0 && mutant != Mutant::bias_ignored) {
    const auto type = mutant == Mutant::bias_of_bf16 ? CUDA_R_16BF : CUDA_R_32F;
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, std::uint32_t{CUBLASLT_EPILOGUE_BIAS});
    set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, static_cast<std::int32_t>(type));
    set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<const void*>(bias.data));
  }
  Index T = x.shape[0], F = w.shape[0];
  if (mutant == Mutant::T_and_F_swapped) std::swap(T, F);
  const Index C = x.shape[1], x_stride = mutant == Mutant::rows_too_near ? C - 8 : C,
              y_stride = mutant == Mutant::rows_too_far ? F + 4 : F;
  const auto layout = [&](cudaDataType type, Index rows, Index columns, Index ld) {
    cublasLtMatrixLayoutOpaque_t matrix;
    ok(cublasLtMatrixLayoutInit(&matrix, type, std::uint64_t(rows), std::uint64_t(columns), ld));
    return matrix;
  };
  const Index asked_T = mutant == Mutant::algorithm_of_another_T ? T + 1 : T;
  auto a = layout(CUDA_R_16BF, C, F, C), b = layout(CUDA_R_16BF, C, T, x_stride),
       d = layout(CUDA_R_32F, F, T, y_stride), asked_b = layout(CUDA_R_16BF, C, asked_T, x_stride),
       asked_d = layout(CUDA_R_32F, F, asked_T, y_stride);
  cublasLtMatmulPreferenceOpaque_t preference;
  ok(cublasLtMatmulPreferenceInit(&preference));
  const std::uint64_t workspace = mutant == Mutant::workspace_not_given ? 1 << 20 : 0;
  ok(cublasLtMatmulPreferenceSetAttribute(&preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                          &workspace, sizeof workspace));
  cublasLtHandle_t handle;
  ok(cublasLtCreate(&handle));
  cublasLtMatmulHeuristicResult_t found;
  int count = 0;
  ok(cublasLtMatmulAlgoGetHeuristic(handle, &operation, &a, &asked_b, &asked_d, &asked_d,
                                    &preference, 1, &found, &count));
  const float one = 1, zero = 0;
  ok(cublasLtMatmul(handle, &operation, &one, w.data, &a, x.data, &b, &zero, y.data, &d, y.data, &d,
                    &found.algo, nullptr, 0, Stream{}));
}

/// The cases before `from` are not posed: some of them take their time.
Case case_named(const char* op, const std::string& name, std::size_t from = 0) {
  const auto poses = verify::kernels::op_named(op).cases(1);
  for (std::size_t i = from; i < poses.size(); ++i)
    if (Case c = poses[i](); c.name == name) return c;
  throw Error("no case " + name + " of " + op);
}

/// True if the judge finds nothing wrong.
bool passes(const Case& c, Arrays& out, Binding& binding) {
  binding.fetch();
  for (const verify::kernels::OutputVerdict& verdict : c.op->judge(c, out))
    if (!verdict.check.ok()) return false;
  return true;
}

bool scores_pass(Mutant mutant) {
  Case c = case_named("indexer_scores", "bf16-T17-S130-H33-D96-gaussian", 45);
  Arrays out = c.out;
  Binding b;
  const auto scores = b.out<float, 2>(out.at("scores"));
  const IndexerIn<bf16> in{
      .q = b.in<bf16, 3>(c.in.at("q")),
      .k = b.pages<bf16>(c, "k"),
      .w = b.in<float, 2>(c.in.at("w")),
      .relu = true,
      .visible = {b.in<std::int32_t, 1>(c.in.at("begin")), b.in<std::int32_t, 1>(c.in.at("end"))}};
  launch(Stream{}, "scores",
         {grid_of(in.q.shape[0]), indexer_threads,
          IndexerShapes<bf16>{in.q.shape[1], in.q.shape[2]}.shared_bytes()},
         scores_kernel, scores, in, mutant);
  return passes(c, out, b);
}

bool rmsnorm_passes(Mutant mutant) {
  Case c = case_named("rmsnorm", "fp32-T33-C512-gaussian");
  Arrays out = c.out;
  Binding b;
  launch(Stream{}, "rmsnorm", {grid_of(33), 64, shared_room<float>(64)}, rmsnorm_kernel,
         b.out<float, 2>(out.at("y")), b.in<float, 2>(c.in.at("x")), b.in<float, 1>(c.in.at("g")),
         c.scalar("eps"), mutant);
  return passes(c, out, b);
}

bool topk_passes(Mutant mutant) {
  Case c = case_named("topk_select", "fp32-T7-S130-K32-adversarial-few-values");
  Arrays out = c.out;
  Binding b;
  launch(Stream{}, "topk", {grid_of(7), 256, SelectScratch::bytes()}, topk_kernel,
         b.out<std::int32_t, 2>(out.at("chosen")), b.in<float, 2>(c.in.at("scores")), mutant);
  return passes(c, out, b);
}

bool experts_pass(Mutant mutant, const char* name) {
  Case c = case_named("experts", name, 14);
  Arrays out = c.out;
  Binding b;
  const ExpertsIn<bf16> in{.x = b.in<bf16, 2>(c.in.at("x")),
                           .gate_up = b.in<bf16, 3>(c.in.at("gate_up")),
                           .down = b.in<bf16, 3>(c.in.at("down")),
                           .chosen = b.in<std::int32_t, 2>(c.in.at("chosen")),
                           .weights = b.in<float, 2>(c.in.at("weights"))};
  const Index T = in.x.shape[0], C = in.x.shape[1], k = in.chosen.shape[1];
  const Index E = in.down.shape[0], F = in.down.shape[2], tiles = v2::Groups::most_tiles(T * k, E);
  const v2::Groups groups{b.scratch<std::int32_t>(T * k),
                          {b.scratch<std::int32_t>(3 * tiles).data, {tiles, 3}}};
  launch(Stream{}, "group", {grid_of(1), 32, shared_room<std::int32_t>(E)}, group_kernel, groups,
         DeviceView<const std::int32_t, 1>{in.chosen.data, {T * k}}, E, mutant);
  const std::vector<float> zeros(static_cast<std::size_t>(T * C));
  const auto y = b.in_out<float, 2>(out.at("y"), zeros.data());
  b.begin();
  v2::grouped_experts<bf16>(Stream{}, y, in, {b.scratch<bf16>(T * k * F).data, {T, k, F}},
                            {b.scratch<float>(T * k * C).data, {T, k, C}}, groups);
  return passes(c, out, b);
}

bool linear_passes(Mutant mutant, const char* name) {
  Case c = case_named("linear", name, 52);
  Arrays out = c.out;
  Binding b;
  library_product(b.out<float, 2>(out.at("y")), b.in<bf16, 2>(c.in.at("x")),
                  b.in<bf16, 2>(c.in.at("w")), b.optional<float, 1>(c, "bias"), mutant);
  return passes(c, out, b);
}

}  // namespace

TEST_CASE("mutants of indexer_scores: two by the bounds, one by the emulator", "[cuda]") {
  CHECK(scores_pass(Mutant::none));
  CHECK_FALSE(scores_pass(Mutant::mask_off_by_one));
  CHECK_FALSE(scores_pass(Mutant::last_tile_dropped));
  CHECK_THROWS_WITH(scores_pass(Mutant::barrier_missing), Contains("of shared memory"));
}

TEST_CASE("mutants of rmsnorm: sums in bf16 by the bounds, a race by the emulator", "[cuda]") {
  CHECK(rmsnorm_passes(Mutant::none));
  CHECK_FALSE(rmsnorm_passes(Mutant::bf16_sums));
  CHECK_THROWS_WITH(rmsnorm_passes(Mutant::barrier_missing), Contains("of shared memory"));
}

TEST_CASE("mutants of topk_select: a race by the emulator, a tie by the judge", "[cuda]") {
  CHECK(topk_passes(Mutant::none));
  CHECK_THROWS_WITH(topk_passes(Mutant::not_atomic), Contains("no barrier orders the two"));
  CHECK_FALSE(topk_passes(Mutant::one_tie_more));
}

TEST_CASE("mutants of experts: two by the judge, a race by the emulator", "[cuda]") {
  const char *few = "bf16-T5-K1-E6-C16-F16-gaussian", *tiles = "bf16-T150-K2-E3-C24-F72-gaussian";
  CHECK(experts_pass(Mutant::none, few));
  CHECK(experts_pass(Mutant::none, tiles));
  CHECK_FALSE(experts_pass(Mutant::one_row_early, few));
  CHECK_FALSE(experts_pass(Mutant::last_tile_dropped, tiles));
  CHECK_THROWS_WITH(experts_pass(Mutant::not_atomic, tiles), Contains("no barrier orders the two"));
}

TEST_CASE("mutants of the call of cuBLASLt: two by the judge, the others by what is in its place",
          "[cuda]") {
  const char *square = "bf16-T13-C16-F16-gaussian", *biased = "bf16-T33-C72-F20-gaussian-bias";
  CHECK(linear_passes(Mutant::none, square));
  CHECK(linear_passes(Mutant::none, biased));
  CHECK_FALSE(linear_passes(Mutant::not_transposed, square));
  CHECK_FALSE(linear_passes(Mutant::bias_ignored, biased));
  CHECK_THROWS_WITH(linear_passes(Mutant::not_transposed, biased),
                    Contains("op(A) is 72 x 20, and op(B) 72 x 33"));
  CHECK_THROWS_WITH(linear_passes(Mutant::T_and_F_swapped, biased),
                    Contains("outside every buffer"));
  CHECK_THROWS_WITH(linear_passes(Mutant::rows_too_near, biased),
                    Contains("leading dimension is 64"));
  CHECK_THROWS_WITH(linear_passes(Mutant::rows_too_far, biased), Contains("outside every buffer"));
  CHECK_THROWS_WITH(linear_passes(Mutant::bias_of_bf16, biased), Contains("a bias must be of D's"));
  CHECK_THROWS_WITH(linear_passes(Mutant::algorithm_of_another_T, biased),
                    Contains("its algorithm was asked for another layout of B"));
  CHECK_THROWS_WITH(linear_passes(Mutant::workspace_not_given, biased),
                    Contains("takes a workspace of 1048576 bytes"));
}
