// indexer_scores v3 on what the suite's cases do not reach: rows of a panel, pages of every
// alignment, bits that do not depend on the other queries; and its loop made wrong in one place
// each.
#define DSA_CUDA_ON_HOST
#include <bit>
#include <utility>

#include "core/random.hpp"
#include "optimized/cuda/device/buffer.cuh"
#include "optimized/cuda/ops/indexer_scores.cuh"
#include "optimized/cuda/ops/indexer_scores_v3_tile.cuh"
#include "tests/catch.hpp"

using namespace dsa;
using namespace dsa::cuda::host;
using Catch::Matchers::Contains;

namespace {

constexpr Index D = 128;
constexpr float numbers[] = {-1, -0.5f, 0, 0.5f, 1};  // products and their sums are exact in fp32

/// Queries and keys of such numbers, or of any. Keys lie on pages of page_rows rows, of which the
/// first begins `gap` bytes into its page.
template <class Row>
struct Problem {
  Index T, S, H;
  std::vector<std::int32_t> begin, end;
  Index page_rows = S, gap = 0;
  bool dyadic = true;
  Index nan_key = -1;

  float number(std::uint64_t seed, Index i) const {
    if (seed == 2 && i / D == nan_key) return NAN;
    return dyadic ? numbers[random_bits(seed, std::uint64_t(i)) % 5]
                  : float(gaussian(seed, std::uint64_t(i)));
  }
  float scale(Index s) const {
    if constexpr (std::is_same_v<Row, bf16>) return 1;
    return dyadic ? float(1 << s % 3) : 0.7f + float(s % 10);
  }
  float score(Index t, Index s) const {
    if (s < begin[std::size_t(t)] || s >= end[std::size_t(t)]) return -INFINITY;
    double sum = 0;
    for (Index h = 0; h < H; ++h) {
      double dot = 0;
      for (Index d = 0; d < D; ++d)
        dot += double(number(1, (t * H + h) * D + d)) * number(2, s * D + d);
      sum += number(3, t * H + h) * std::max(dot, 0.0);
    }
    return float(sum) * scale(s);
  }
};

/// Its arrays, and the scores that a kernel makes of them.
template <class Row>
struct Inputs {
  static constexpr Index width = std::is_same_v<Row, e4m3> ? D + 4 : D;
  const Problem<Row>& p;
  std::vector<Buffer<Row>> pages;
  Buffer<const Row*> list;
  Buffer<Row> q;
  Buffer<float> w;
  Buffer<std::int32_t> begin, end;

  explicit Inputs(const Problem<Row>& p_)
      : p(p_), q(p.T * p.H * D), w(p.T * p.H), begin(p.begin.data(), p.T), end(p.end.data(), p.T) {
    std::vector<const Row*> starts;
    for (Index first = 0; first < p.S; first += p.page_rows) {
      pages.push_back(page(first));
      starts.push_back(pages.back().data());
    }
    list = Buffer<const Row*>(starts.data(), Index(starts.size()));
    std::vector<Row> queries;
    std::vector<float> weights;
    for (Index i = 0; i < p.T * p.H * D; ++i) queries.push_back(narrow<Row>(p.number(1, i)));
    for (Index i = 0; i < p.T * p.H; ++i) weights.push_back(p.number(3, i));
    q.upload(queries.data());
    w.upload(weights.data());
  }
  Buffer<Row> page(Index first) const {
    const Index behind = std::min(p.S, first + p.page_rows);
    std::vector<Row> rows(std::size_t(p.gap / Index(sizeof(Row)) + (behind - first) * width));
    Row* to = rows.data() + p.gap / Index(sizeof(Row));
    for (Index s = first; s < behind; ++s, to += width) {
      for (Index d = 0; d < D; ++d) to[d] = narrow<Row>(p.number(2, s * D + d));
      if constexpr (std::is_same_v<Row, e4m3>) {
        const auto bits = std::bit_cast<std::uint32_t>(p.scale(s));
        for (int i = 0; i < 4; ++i) to[D + i] = {std::uint8_t(bits >> 8 * i)};
      }
    }
    return Buffer<Row>(rows.data(), Index(rows.size()));
  }
  /// Of queries [first, first + n).
  IndexerIn<Row> in(Index first, Index n) const {
    return {
        .q = rows(DeviceView<const Row, 3>(q.template view<3>({p.T, p.H, D})), first, first + n),
        .k = {{list.data(), {Index(pages.size())}},
              p.page_rows,
              p.S,
              width,
              p.gap / Index(sizeof(Row))},
        .w = rows(DeviceView<const float, 2>(w.template view<2>({p.T, p.H})), first, first + n),
        .relu = true,
        .visible = {{begin.data() + first, {n}}, {end.data() + first, {n}}}};
  }
};

/// run(scores, in) of queries [first, first + n). NaN where nothing was written.
template <class Row>
std::vector<float> scores_by(auto run, const Inputs<Row>& inputs, Index columns, Index first,
                             Index n) {
  const Buffer<float> scores(n * columns);
  run(scores.view<2>({n, columns}), inputs.in(first, n));
  std::vector<float> got(std::size_t(n * columns));
  scores.download(got.data());
  return got;
}
template <class Row>
void v3_scores(DeviceView<float, 2> scores, const IndexerIn<Row>& in) {
  v3::indexer_scores(Stream{}, scores, in);
}

template <class Row>
bool is_right(const Problem<Row>& p, auto run) {
  const Inputs<Row> inputs(p);
  const std::vector<float> got = scores_by(run, inputs, p.S, 0, p.T);
  for (Index t = 0; t < p.T; ++t)
    for (Index s = 0; s < p.S; ++s) {
      const float score = got[std::size_t(t * p.S + s)], wanted = p.score(t, s);
      if (score != wanted && !(std::isnan(score) && std::isnan(wanted))) return false;
    }
  return true;
}

template <class Row>
void check_pages(Index H) {
  const std::vector<std::int32_t> begin{0, 70, 3, 0, 199}, end{1, 200, 130, 0, 200};
  for (const Index page_rows : {7, 64, 200})
    for (const Index gap : {0, 4}) {
      INFO(page_rows << " rows a page, from byte " << gap);
      CHECK(is_right(Problem<Row>{5, 200, H, begin, end, page_rows, gap}, v3_scores<Row>));
    }
}

/// A panel's columns begin with the first visible key, and nothing is written behind the last.
template <class Row>
void check_panel() {
  const Problem<Row> p{3, 300, 16, {40, 0, 290}, {140, 65, 300}, 64};
  const Inputs<Row> inputs(p);
  constexpr Index longest = 110;
  const auto run = [&](DeviceView<float, 2> scores, IndexerIn<Row> in) {
    in.longest = longest;
    v3::indexer_scores_of_panel(Stream{}, scores, in);
  };
  const std::vector<float> got = scores_by(run, inputs, longest, 0, p.T);
  for (Index t = 0; t < p.T; ++t)
    for (Index i = 0; i < longest; ++i) {
      const float score = got[std::size_t(t * longest + i)];
      const Index s = p.begin[std::size_t(t)] + i;
      INFO(t << " " << i);
      if (s < p.end[std::size_t(t)])
        CHECK(score == p.score(t, s));
      else
        CHECK(score != score);
    }
}

/// A batch of all queries, and every query by itself.
template <class Row>
void check_alone() {
  const Problem<Row> p{5, 150, 32, {0, 1, 0, 64, 0}, {150, 149, 90, 150, 20}, 150, 0, false};
  const Inputs<Row> inputs(p);
  std::vector<float> alone;
  for (Index t = 0; t < p.T; ++t) {
    const std::vector<float> row = scores_by(v3_scores<Row>, inputs, p.S, t, 1);
    alone.insert(alone.end(), row.begin(), row.end());
  }
  CHECK(scores_by(v3_scores<Row>, inputs, p.S, 0, p.T) == alone);
}

enum class Mutant {
  none,
  words_exchanged,
  no_proxy_fence,
  slot_refilled_early,
  lanes_not_awaited,
  copies_not_awaited,
  products_not_awaited,
  mask_off_by_one,
  other_rows_scale,
};

/// v3's loop, written out: a block for two queries of 64 heads, and all their tiles.
template <class Row>
void mutated_kernel(DeviceView<float, 2> scores, IndexerIn<Row> in, Mutant mutant) {
  using namespace v3;
  constexpr int H = 64, ahead = KeyRing<Row>::slots - 1;
  SharedMemory shared;
  const ScoreMemory<Row> memory(shared);
  const QueryGroup<H> group(in, int(blockIdx.x));
  const int warp = int(threadIdx.x) / warp_size;
  KeyRing<Row> ring(memory.keys);
  const auto first_key = [&](int tile) { return tile * tile_keys + warp % 4 * warp_keys; };
  const auto fill = [&](int tile) {
    const int s = first_key(tile);
    ring.copy(in.k, s, group.end - s, KeyRing<Row>::piece_at(in.k, s, group.end - s));
  };
  int tile = group.first_tile + warp / 4;
  for (int i = 0; i < ahead; ++i) fill(tile + i * score_warpgroups);
  load_queries<H>(memory, in, group.first);
  if (mutant != Mutant::no_proxy_fence) fence_async_proxy();
  __syncthreads();
  LaneRows<H> rows(scores, in, group.first, false);
  if (mutant == Mutant::mask_off_by_one) ++rows.end[0];
  for (; tile < group.end_tile; tile += score_warpgroups) {
    KeyFragment a;
    Accumulator<score_columns> products;
    if (mutant == Mutant::slot_refilled_early) fill(tile + ahead * score_warpgroups);
    if (mutant != Mutant::copies_not_awaited) copy_async_wait<KeyRing<Row>::slots - 2>();
    if (mutant != Mutant::lanes_not_awaited) __syncwarp();
    float scale = ring.read(a);
    if (mutant == Mutant::words_exchanged) {
      const std::uint32_t word = std::as_const(a)[0];
      a[0] = std::as_const(a)[2];
      a[2] = word;
    }
    if (mutant == Mutant::other_rows_scale) scale = __shfl_xor_sync(all_lanes, scale, 1);
    begin_products<Row>(products, a, memory.q);
    if (mutant != Mutant::slot_refilled_early) fill(tile + ahead * score_warpgroups);
    if (mutant != Mutant::products_not_awaited) wgmma_wait<0>(products, a);
    rows.store(LaneScores<H>(products, memory.w), first_key(tile) + lane_key(), scale);
  }
  copy_async_wait<0>();
}

template <class Row>
bool mutant_is_right(Mutant mutant) {
  const Index S = 700;  // a slot is filled again
  const Problem<Row> p{2, S, 64, {0, 0}, {650, 699}, S};
  return is_right(p, [&](DeviceView<float, 2> scores, const IndexerIn<Row>& in) {
    const std::vector<float> unseen(std::size_t(p.T * S), -INFINITY);
    std::copy(unseen.begin(), unseen.end(), scores.data);
    launch(Stream{}, "scores",
           {grid_of(1), unsigned(v3::score_threads), v3::ScoreMemory<Row>::bytes, true},
           mutated_kernel<Row>, scores, in, mutant);
  });
}

template <class Row>
void check_mutants() {
  CHECK(mutant_is_right<Row>(Mutant::none));
  CHECK_FALSE(mutant_is_right<Row>(Mutant::words_exchanged));
  CHECK_FALSE(mutant_is_right<Row>(Mutant::mask_off_by_one));
  const std::pair<Mutant, const char*> named[] = {
      {Mutant::no_proxy_fence, "no proxy fence lies between the two"},
      {Mutant::slot_refilled_early, "no barrier orders the two"},
      {Mutant::lanes_not_awaited, "of shared memory"},
      {Mutant::copies_not_awaited, "a copy is still under way"},
      {Mutant::products_not_awaited, "touches an accumulator of the wgmma of line"}};
  for (const auto& [mutant, sentence] : named) {
    INFO(int(mutant));
    CHECK_THROWS_WITH(mutant_is_right<Row>(mutant), Contains(sentence));
  }
}

}  // namespace

TEST_CASE("indexer_scores v3 reads pages of any size and alignment", "[cuda]") {
  check_pages<e4m3>(64);
  check_pages<bf16>(16);
}

TEST_CASE("indexer_scores v3: a block goes on with the next queries", "[cuda]") {
  const std::vector<std::int32_t> begin(20, 0), end(20, 200);
  CHECK(is_right(Problem<e4m3>{20, 200, 16, begin, end}, v3_scores<e4m3>));
}

TEST_CASE("indexer_scores v3 writes rows of a panel from the first visible key on", "[cuda]") {
  check_panel<e4m3>();
  check_panel<bf16>();
}

TEST_CASE("indexer_scores v3 lets relu make no number of NaN", "[cuda]") {
  CHECK(is_right(Problem<e4m3>{2, 70, 16, {0, 0}, {70, 60}, 70, 0, true, 66}, v3_scores<e4m3>));
  CHECK(is_right(Problem<bf16>{2, 70, 16, {0, 0}, {70, 60}, 70, 0, true, 3}, v3_scores<bf16>));
}

TEST_CASE("indexer_scores v3: a query's bits do not depend on the others", "[cuda]") {
  check_alone<e4m3>();
  check_alone<bf16>();
}

TEST_CASE("mutants of indexer_scores v3, by the scores or named by the emulator", "[cuda]") {
  check_mutants<e4m3>();
  CHECK_FALSE(mutant_is_right<e4m3>(Mutant::other_rows_scale));
  check_mutants<bf16>();
}

TEST_CASE("indexer_scores v3 says what it does not take", "[cuda]") {
  CHECK(v3::indexer_scores_refuses(32, 128, true).empty());
  CHECK_THAT(v3::indexer_scores_refuses(48, 128, true),
             Contains("16, 32 or 64 index heads of 128 channels, got 48 of 128"));
  CHECK_THAT(v3::indexer_scores_refuses(64, 64, true), Contains("got 64 of 64"));
  CHECK_THAT(v3::indexer_scores_refuses(64, 128, false), Contains("with relu"));
}
