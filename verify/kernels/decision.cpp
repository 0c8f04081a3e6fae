#include "verify/kernels/decision.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "reference/ops/topk_select.hpp"

namespace dsa::verify::kernels {
namespace {

constexpr double inf = std::numeric_limits<double>::infinity();

/// The subscripts before the first -1, which must be in ascending order and below S.
struct Subscripts {
  std::vector<Index> chosen;
  std::string fault;
};

Subscripts subscripts_of(std::span<const double> row, Index S) {
  Subscripts result;
  for (std::size_t i = 0; i < row.size(); ++i) {
    const double s = row[i];
    if (result.chosen.size() < i) {
      if (s != -1) return {{}, fmt::format("{} stands behind a -1", s)};
      continue;
    }
    if (s == -1) continue;
    if (!(0 <= s && s < static_cast<double>(S) && s == std::floor(s)))
      return {{}, fmt::format("{} is no subscript below {}", s, S)};
    if (i > 0 && s == row[i - 1]) return {{}, fmt::format("{} was chosen twice", s)};
    if (i > 0 && s < row[i - 1])
      return {{}, fmt::format("{} stands behind {}: not in ascending order", s, row[i - 1])};
    result.chosen.push_back(static_cast<Index>(s));
  }
  return result;
}

}  // namespace

TopkVerdict judge_row(std::span<const double> chosen, View<const double, 1> scores,
                      View<const double, 1> allowed) {
  const Subscripts mine = subscripts_of(chosen, scores.size());
  if (!mine.fault.empty()) return {inf, mine.fault};
  return judge_topk(mine.chosen, scores, allowed, static_cast<Index>(chosen.size()),
                    Ties::lower_first);
}

void add_row(OutputVerdict& verdict, Index t, const TopkVerdict& row, const std::string& noun) {
  Check& check = verdict.check;
  ++check.n;
  check.over += !row.ok();
  if (row.ratio <= check.worst) return;
  check.worst = row.ratio;
  check.at = {.channel = t * verdict.shape[1]};
  verdict.why = row.ok() ? "" : fmt::format("{} {}: {}", noun, t, row.why);
}

OutputVerdict judge_selection(const Case& c, const Arrays& out) {
  const std::vector<double> chosen = values_of(c, out, "chosen");
  OutputVerdict verdict{"chosen", c.out.at("chosen").shape(), {}};
  const Index T = verdict.shape[0], K = verdict.shape[1];
  const std::vector<double>&scores = c.want.at("scores"), &allowed = c.allowed.at("scores");
  const Index S = T == 0 ? 0 : static_cast<Index>(scores.size()) / T;
  for (Index t = 0; t < T && K > 0; ++t) {
    const auto row =
        std::span(chosen).subspan(static_cast<std::size_t>(t * K), static_cast<std::size_t>(K));
    add_row(verdict, t, judge_row(row, {scores.data() + t * S, {S}}, {allowed.data() + t * S, {S}}),
            "row");
  }
  return verdict;
}

Index topk_of(const Case& c) {
  const double topk = c.scalar("topk");
  require(topk >= 0 && topk <= 0x1p20 && topk == std::floor(topk),
          fmt::format("topk is {}, expected a whole number of keys, 2^20 at most", topk));
  return static_cast<Index>(topk);
}

void set_selection(Case& c, const Tensor<double, 2>& scores, const Tensor<double, 2>& allowed,
                   Index K) {
  const Index T = scores.shape()[0];
  Tensor<Index, 2> chosen({T, K});
  reference::topk_select<double>(chosen, scores);
  std::vector<double> want;
  for (Index t = 0; t < T; ++t) {
    Index* const row = chosen.view()[t].data;
    // In ascending order, and -1 at the end: as unsigned numbers -1 is the largest.
    std::sort(row, row + K, [](Index a, Index b) {
      return static_cast<std::uint64_t>(a) < static_cast<std::uint64_t>(b);
    });
    want.insert(want.end(), row, row + K);
  }
  c.out["chosen"] = Array(Dtype::i32, {T, K});
  c.allowed["chosen"].assign(want.size(), 0);
  c.want["chosen"] = std::move(want);
  c.want["scores"].assign(scores.begin(), scores.end());
  c.allowed["scores"].assign(allowed.begin(), allowed.end());
}

}  // namespace dsa::verify::kernels
