#include "verify/localise/weights.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>

#include "core/dtype.hpp"
#include "verify/localise/graft.hpp"
#include "verify/measure/singular_values.hpp"

namespace dsa::verify {
namespace {

constexpr Index most_rows = 256;  // that are looked at: the cost grows with their square

/// One linear op as the grafted run has it: fed by the other side.
struct Fed {
  Tensor<double, 2> x, y;  // (T, in), (T, out) by the checkpoint's weights
};

std::map<std::string, Fed> run_fed(const ModelPair& models, const Recording& side,
                                   const std::set<std::string>& wanted) {
  const Graft graft(side, models.definition.config, Reading::masked);
  Variant watched = graft.feeding(models.exact());
  std::map<std::string, Fed> seen;
  const auto watch = [&](auto& op) {
    op = [&seen, &wanted, inner = std::move(op)](const std::string& name, View<double, 2> y,
                                                 View<const double, 2> x, const Linear& w) {
      inner(name, y, x, w);
      if (!wanted.contains(name)) return;
      Fed& fed = seen[name];
      fed.x = Tensor<double, 2>(x.shape), fed.y = Tensor<double, 2>(y.shape);
      std::copy(x.begin(), x.end(), fed.x.begin());
      std::copy(y.begin(), y.end(), fed.y.begin());
    };
  };
  for (auto* op :
       {&watched.ops.linear, &watched.ops.index_head_weights, &watched.ops.router_logits})
    watch(*op);
  run_reference(watched.model, side.sequences.front(), watched.ops, graft.options());
  return seen;
}

/// Rows of x and of theirs - y that are of tokens, and finite.
struct Observed {
  Tensor<double, 2> x, difference;
  double size = 0;  // the root mean square of theirs
};

Observed observed(const Fed& fed, const Tensor<double, 2>& theirs, const Sequence& sequence) {
  std::vector<Index> rows;
  for (Index t = 0; t < sequence.size() && static_cast<Index>(rows.size()) < most_rows; ++t) {
    const auto row = theirs.view()[t];
    if (sequence.documents[static_cast<std::size_t>(t)] >= 0 &&
        std::all_of(row.begin(), row.end(), [](double v) { return std::isfinite(v); }))
      rows.push_back(t);
  }
  const auto n = static_cast<Index>(rows.size());
  Observed o{Tensor<double, 2>({n, fed.x.shape()[1]}), Tensor<double, 2>({n, theirs.shape()[1]}),
             0};
  double squares = 0;
  for (Index i = 0; i < n; ++i) {
    const Index t = rows[static_cast<std::size_t>(i)];
    std::copy(fed.x.view()[t].begin(), fed.x.view()[t].end(), o.x.view()[i].begin());
    for (Index c = 0; c < theirs.shape()[1]; ++c) {
      o.difference(i, c) = theirs(t, c) - fed.y(t, c);
      squares += theirs(t, c) * theirs(t, c);
    }
  }
  o.size = std::sqrt(squares / static_cast<double>(std::max<Index>(1, theirs.shape()[1] * n)));
  return o;
}

/// q a, and what is left of a: a - q' q a. q (r, m) has orthonormal rows.
std::pair<Tensor<double, 2>, Tensor<double, 2>> projected(const Tensor<double, 2>& q,
                                                          const Tensor<double, 2>& a) {
  const Index r = q.shape()[0], m = a.shape()[0], n = a.shape()[1];
  Tensor<double, 2> along({r, n}), left = a;
  for (Index i = 0; i < r; ++i)
    for (Index t = 0; t < m; ++t)
      for (Index c = 0; c < n; ++c) along(i, c) += q(i, t) * a(t, c);
  for (Index i = 0; i < r; ++i)
    for (Index t = 0; t < m; ++t)
      for (Index c = 0; c < n; ++c) left(t, c) -= q(i, t) * along(i, c);
  return {std::move(along), std::move(left)};
}

/// A rounding of an element, and those of its sum, whose accumulator is never narrower: an error of
/// at most (8 + sqrt(in)) units of the format is taken for noise. A matrix of such errors has no
/// singular value above that times sqrt(rows) + sqrt(columns).
std::optional<OtherWeights> weights_behind(const std::string& name, const Observed& o,
                                           double unit_roundoff) {
  const Index m = o.x.shape()[0], in = o.x.shape()[1], out = o.difference.shape()[1];
  if (m <= in) return std::nullopt;
  const Tensor<double, 2> q = orthonormal_columns(o.x);
  if (q.shape()[0] < in) return std::nullopt;
  const auto [along, left] = projected(q, o.difference);
  const double error = (8 + std::sqrt(static_cast<double>(in))) * unit_roundoff * o.size;
  double squares = 0;
  for (const double x : left) squares += x * x;
  if (!(squares <= error * error * static_cast<double>(m * out)))
    return std::nullopt;  // not linear in its input
  const double noise =
      error * (std::sqrt(static_cast<double>(m)) + std::sqrt(static_cast<double>(out)));
  const std::vector<double> values = singular_values(along);
  const auto rank =
      std::count_if(values.begin(), values.end(), [&](double value) { return value > noise; });
  if (rank == 0) return std::nullopt;
  return OtherWeights{name, static_cast<Index>(rank), std::min(in, out)};
}

}  // namespace

std::vector<OtherWeights> other_weights(const ModelPair& models, const Recording& side,
                                        const std::vector<FaultyOp>& wrong) {
  std::set<std::string> wanted;
  for (const FaultyOp& op : wrong) wanted.insert(op.tensor.name);
  const double u = unit_roundoff(reference::format_of(models.precision));
  const std::map<std::string, Fed> seen = run_fed(models, side, wanted);
  std::vector<OtherWeights> found;
  for (const FaultyOp& op : wrong) {
    const auto fed = seen.find(op.tensor.name);
    const Trace::Entry* entry = side.trace.find(op.tensor.name);
    if (fed == seen.end() || entry == nullptr) continue;
    const Tensor<double, 2> theirs = entry->values();
    if (theirs.shape() != fed->second.y.shape()) continue;
    if (const auto other = weights_behind(op.tensor.name,
                                          observed(fed->second, theirs, side.sequences.front()), u))
      found.push_back(*other);
  }
  return found;
}

std::string in_words(const std::vector<OtherWeights>& all) {
  std::string words;
  bool low = true;
  for (const OtherWeights& w : all) {
    words += fmt::format(
        "{}{} multiplies what it is given by a matrix that differs from the "
        "checkpoint's by one of rank {}{}",
        words.empty() ? "" : ", ", w.name, w.rank,
        w.is_low() ? fmt::format(" (of {})", w.full) : ", the full one");
    low &= w.is_low();
  }
  if (all.empty()) return words;
  return words + (low ? ": an adapter that is not applied, is merged, or is merged twice"
                      : ": other weights than the checkpoint's");
}

}  // namespace dsa::verify
