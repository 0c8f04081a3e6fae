#include "verify/judge/conclude.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace dsa::verify {
namespace {

struct Conclusion {
  Outcome outcome;
  std::string why;
};

/// Whatever of the logits decides before our own limits are looked at.
std::optional<Conclusion> before_limits(const LogitsResult& l) {
  if (l.all.wrong_kind > 0)
    return Conclusion{Outcome::fail,
                      fmt::format("{} logits are NaN or infinite on one side and not on the other",
                                  l.all.wrong_kind)};
  if (!l.user.empty()) {
    const bool ok =
        std::all_of(l.user.begin(), l.user.end(), [](const Check& c) { return c.ok(); });
    return ok ? Conclusion{Outcome::pass,
                           "every row lies within the limits given on the command "
                           "line"}
              : Conclusion{Outcome::fail, "rows lie beyond a limit given on the command line"};
  }
  if (l.all.rows == 0) return Conclusion{Outcome::inconclusive, "no row of logits was compared"};
  return std::nullopt;
}

std::optional<Conclusion> beyond_limits(const LogitsResult& l) {
  if (l.decided.rows > 0 && !(l.kl.ok() && l.elements.ok()))
    return Conclusion{Outcome::fail,
                      fmt::format("{} of {} decided rows of logits lie beyond their limits",
                                  std::max(l.kl.over, l.elements.over), l.decided.rows)};
  if (l.together.over > 0)
    return Conclusion{Outcome::fail,
                      fmt::format("the {} undecided rows lie further off than any flips of "
                                  "near-ties take them",
                                  l.together.n)};
  if (l.too_many_flips())
    return Conclusion{Outcome::fail,
                      fmt::format("{} decisions had to be flipped to explain the logits, more than "
                                  "the {} that rounding flips at the most",
                                  l.flips.size(), static_cast<Index>(l.flips_most))};
  if (2 * l.undecided() > l.all.rows)
    return Conclusion{Outcome::inconclusive,
                      fmt::format("{} of {} rows depend on decisions that rounding may flip; a "
                                  "trace, a golden of higher precision, or smaller weights would "
                                  "decide them",
                                  l.undecided(), l.all.rows)};
  return std::nullopt;
}

Conclusion within_limits(const LogitsResult& l, const std::vector<TensorResult>& tensors) {
  const std::string explained = l.explained() == 0
                                    ? ""
                                    : fmt::format(" ({} of them explained by {} flipped near-ties)",
                                                  l.explained(), l.flips.size());
  return {Outcome::pass,
          fmt::format("all {} decided rows of logits{}{} lie within their limits",
                      l.decided.rows + l.explained(), explained,
                      tensors.empty() ? "" : fmt::format(" and {} tensors", tensors.size()))};
}

Conclusion conclusion_of(const Judgement& j) {
  if (j.first_departure)
    return {Outcome::fail, *j.first_departure + " is the first tensor beyond its limit"};
  if (!j.logits && j.tensors.empty()) return {Outcome::inconclusive, "nothing was compared"};
  if (!j.logits)
    return {Outcome::pass, fmt::format("{} tensors lie within their limits", j.tensors.size())};
  if (auto conclusion = before_limits(*j.logits)) return *conclusion;
  if (auto conclusion = beyond_limits(*j.logits)) return *conclusion;
  return within_limits(*j.logits, j.tensors);
}

}  // namespace

void conclude(Judgement& j) {
  const auto wrong = std::find_if(j.tensors.begin(), j.tensors.end(),
                                  [](const TensorResult& tensor) { return !tensor.ok(); });
  j.first_departure =
      wrong == j.tensors.end() ? std::nullopt : std::optional<std::string>(wrong->name);
  Conclusion conclusion = conclusion_of(j);
  j.outcome = conclusion.outcome, j.why = std::move(conclusion.why);
}

void conclude(Verdict& verdict) {
  verdict.outcome = verdict.judged.outcome;
  verdict.why = verdict.judged.why;
  if (verdict.golden_judged && verdict.golden_judged->outcome == Outcome::fail) {
    verdict.outcome = Outcome::fail;
    verdict.why =
        "the golden itself is not what the definition says: " + verdict.golden_judged->why;
  }
  if (verdict.topk > 0 && verdict.longest_visible <= verdict.topk &&
      verdict.outcome == Outcome::pass) {
    verdict.outcome = Outcome::inconclusive;
    verdict.why = fmt::format(
        "no query sees more than {} keys and the indexer keeps {}: every selection is the same, "
        "right or wrong; use a golden longer than top-k",
        verdict.longest_visible, verdict.topk);
  }
}

}  // namespace dsa::verify
