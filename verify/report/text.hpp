// verify/report/text.hpp — how numbers, places and names are written, the same in every report.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "verify/verdict.hpp"

namespace dsa::verify {

/// Text from a file or a command line, safe to show: valid UTF-8, no control characters (a
/// terminal obeys them, XML forbids them).
std::string clean(std::string_view);

/// Safe inside HTML text and attributes.
std::string escaped(std::string_view);

std::string number(double);  // three digits: "3.12e-27", "0.31", "NaN", "inf"
std::string count(Index);    // "12,345"
std::string share(double);   // "100%" only where it is exactly 1, else rounded down: "99.99%"

/// limit / value: infinity where nothing differs, NaN where either side is none.
double headroom_of(double value, double limit);

/// "26x"; "exact" where nothing differs; above the limit "2.33e+10 x the limit".
std::string headroom(double value, double limit);

/// "0:17:503": sequence, position, channel, as far as they are known; "" where none is.
std::string place(const Place&);

/// "1 row", "12 rows"
std::string plural(Index n, const std::string& noun);

/// What is wrong with a tensor that is not ok, in words.
std::string complaint(const TensorResult&);

/// What the reader should do now; empty after a pass.
std::string advice(const Verdict&);

/// "8 goldens: 6 pass, 1 fail, 1 inconclusive"
std::string summary_of(const std::vector<Verdict>&);

/// The side that a judgement's logits are compared with the golden: what `got` is called.
std::string other_side(const Verdict&, const Judgement&);

/// Label and value of every statistic of the logits, in the order of the reports.
std::vector<std::pair<std::string, std::string>> metrics(const LogitsMetrics&,
                                                         const std::string& other);

/// A letter for each place that limits come from: many tensors share one, so it is said once.
class Sources {
 public:
  std::string letter(const std::string& from);  // "a", "b", ..., "z", "aa", ...; "" for ""
  /// (letter, sentence), in order of first use.
  const std::vector<std::pair<std::string, std::string>>& all() const { return all_; }

 private:
  std::vector<std::pair<std::string, std::string>> all_;
};

/// "31, 77"; the first three and a count where there are more.
std::string subscripts(const std::vector<Index>&);

}  // namespace dsa::verify
