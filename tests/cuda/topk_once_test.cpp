// topk_select v3 on what the suite's cases do not reach: several windows of subscripts, a bar that
// was wrong, a NaN at every end of a row, and rows of a panel.
#define DSA_CUDA_ON_HOST
#include "optimized/cuda/device/topk_once.cuh"

#include <algorithm>
#include <numeric>

#include "core/random.hpp"
#include "optimized/cuda/device/buffer.cuh"
#include "optimized/cuda/ops/topk_select.cuh"
#include "tests/catch.hpp"

using namespace dsa;
using namespace dsa::cuda::host;

namespace {

using Row = std::vector<float>;
using Choice = std::vector<std::int32_t>;

Row row_of(Index S, auto score) {
  Row row;
  for (Index s = 0; s < S; ++s) row.push_back(float(score(s)));
  return row;
}
float normal(Index s) { return float(gaussian(5, std::uint64_t(s))); }

/// By sorting, of subscripts [begin, end).
Choice wanted(const Row& row, Index K, Index begin, Index end) {
  Choice all;
  for (Index s = begin; s < end; ++s)
    if (row[std::size_t(s)] != -INFINITY) all.push_back(std::int32_t(s));
  std::stable_sort(all.begin(), all.end(), [&](std::int32_t a, std::int32_t b) {
    return row[std::size_t(a)] > row[std::size_t(b)];
  });
  all.resize(std::min(all.size(), std::size_t(K)));
  std::sort(all.begin(), all.end());
  all.resize(std::size_t(K), -1);
  return all;
}

struct Result {
  Choice chosen, nan_at;
};
/// `offset` floats lie before the row, so that it begins at no multiple of 16 bytes.
Result choose(const Row& row, Index K, Index offset = 0) {
  const Index S = Index(row.size());
  Row padded(std::size_t(offset), 1e30f);
  padded.insert(padded.end(), row.begin(), row.end());
  const Buffer<float> scores(padded.data(), offset + S);
  Buffer<std::int32_t> chosen(K), nan_at(1);
  v3::topk_select(Stream{}, chosen.view<2>({1, K}), nan_at.view<1>({1}),
                  {scores.data() + offset, {1, S}});
  Result result{Choice(std::size_t(K)), Choice(1)};
  chosen.download(result.chosen.data());
  nan_at.download(result.nan_at.data());
  return result;
}

void check(const Row& row, Index K, Index offset = 0) {
  const Result result = choose(row, K, offset);
  CHECK(result.nan_at[0] == -1);
  CHECK(result.chosen == wanted(row, K, 0, Index(row.size())));
}

void bar_kernel(DeviceView<std::uint32_t, 1> bar, DeviceView<const float, 1> scores, int K,
                int capacity) {
  SharedMemory memory;
  const std::uint32_t rank = bar_of({scores, 0}, K, OnceScratch(memory, capacity));
  if (threadIdx.x == 0) bar(0) = rank;
}

/// How many scores reach the bar of a row.
Index reach_bar(const Row& row, Index K) {
  const Index S = Index(row.size());
  const Buffer<float> scores(row.data(), S);
  const Buffer<std::uint32_t> bar_d(1);
  const Index capacity = OnceScratch::least_capacity;
  launch(Stream{}, "bar", {grid_of(1), once_threads, OnceScratch::bytes(capacity)}, bar_kernel,
         bar_d.view<1>({1}), scores.view<1>({S}), int(K), int(capacity));
  std::uint32_t bar = 0;
  bar_d.download(&bar);
  return std::count_if(row.begin(), row.end(), [&](float x) { return rank_of(x) >= bar; });
}

}  // namespace

TEST_CASE("topk_select v3 samples a bar that K scores reach, and no more than its list holds",
          "[cuda]") {
  constexpr Index S = 30000, K = 600;
  for (const float slope : {0.f, 6.f, -6.f}) {
    const auto score = [&](Index s) { return normal(s) + slope * float(s) / float(S); };
    const Index n = reach_bar(row_of(S, score), K);
    INFO(slope);
    CHECK(K <= n);
    CHECK(n <= OnceScratch::least_capacity);
  }
}

TEST_CASE("topk_select v3 chooses in rows of more subscripts than a window", "[cuda]") {
  constexpr Index S = OnceScratch::window + 3001;
  check(row_of(S, normal), 300);
  check(row_of(S, [](Index s) { return s > S - 200 ? 1 : std::round(4 * normal(s)) / 4; }), 2048);
  check(row_of(S, [](Index s) { return s % 70000 == 5 || s > S - 3; }), 2048);  // the slow way
}

TEST_CASE("topk_select v3 chooses where its bar is wrong", "[cuda]") {
  constexpr Index S = 20000, pieces = sample_size / 8;
  const auto sampled = [](Index s) {
    for (Index piece = 0; piece < pieces; ++piece)
      if (const Index at = (S - 8) * piece / pieces / 8 * 8; at <= s && s < at + 8) return true;
    return false;
  };
  check(row_of(S, [&](Index s) { return normal(s) + (sampled(s) ? 10 : 0); }), 4500);  // too high
  check(row_of(S, [&](Index s) { return normal(s) - (sampled(s) ? 10 : 0); }), 600);   // too low
  check(row_of(S, [&](Index s) { return sampled(s) ? -INFINITY : normal(s); }), 600);
  check(row_of(S, [](Index s) { return s < 900 ? normal(s) : -INFINITY; }), 1000);
  check(row_of(6000, normal), 5990);  // no bar lets so many through
  check(row_of(6000, [](Index s) { return s % 3 ? INFINITY : -1e38f * float(s % 2); }), 4100);
}

TEST_CASE("topk_select v3 reads a row from its first score to its last", "[cuda]") {
  for (const Index S : {1, 2, 3, 6, 9, 70, 5301})
    for (const Index offset : {0, 1, 2, 3}) {
      const Row row = row_of(S, [&](Index s) { return s == 0 || s == S - 1 ? 9 : normal(s); });
      check(row, 2, offset);
      for (const Index at : {Index{0}, S / 2, S - 1})
        for (const Index K : {0, 2}) {
          Row bad = row;
          bad[std::size_t(at)] = NAN;
          bad[std::size_t(S - 1)] = -NAN;
          const Result result = choose(bad, K, offset);
          CHECK(result.nan_at[0] == at);
          CHECK(result.chosen == Choice(std::size_t(K), -1));
        }
    }
}

TEST_CASE("topk_select v3 chooses among the visible keys of a panel", "[cuda]") {
  constexpr Index T = 4, S = 9000, longest = 6001, K = 100;
  const Choice begin{0, 2999, 8999, 9500}, end{5000, 9000, 9000, 9600};
  const Row all = row_of(S, normal);
  Row panel(std::size_t(T * longest), NAN);  // beyond what is visible
  for (std::size_t t = 0; t < T; ++t)
    if (begin[t] < S)
      std::copy(all.begin() + begin[t], all.begin() + end[t], panel.begin() + t * longest);
  const Buffer<float> scores(panel.data(), T * longest);
  const Buffer<std::int32_t> begins(begin.data(), T), ends(end.data(), T);
  Buffer<std::int32_t> chosen(T * K), nan_at(T);
  v3::topk_of_panel(Stream{}, chosen.view<2>({T, K}), nan_at.view<1>({T}),
                    scores.view<2>({T, longest}), {begins.view<1>({T}), ends.view<1>({T})}, S);
  Choice got(std::size_t(T * K)), nan(T);
  chosen.download(got.data());
  nan_at.download(nan.data());
  CHECK(nan == Choice(T, -1));
  for (std::size_t t = 0; t < T; ++t)
    CHECK(Choice(got.begin() + t * K, got.begin() + (t + 1) * K) ==
          wanted(all, K, std::min(Index(begin[t]), S), std::min(Index(end[t]), S)));
}
