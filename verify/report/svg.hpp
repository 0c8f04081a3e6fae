// verify/report/svg.hpp — the pictures of the HTML reports, drawn by hand.
//
// Colours are classes of the page's style sheet, so that they follow its light and dark forms.
// Each function returns "" where there is nothing to draw.
#pragma once

#include <string>
#include <vector>

#include "verify/verdict.hpp"

namespace dsa::verify {

/// KL of every row on a log axis, with the limit of each.
std::string kl_chart(const LogitsResult&);

/// Largest error of every tensor in units of the error allowed there, in order of execution.
std::string error_chart(const Judgement&);

/// How far each layer's selected keys agree, by row.
std::string selection_chart(const Judgement&);

struct Bar {
  std::string name;
  double value = 0;
  std::string kind;  // class of the style sheet: "good", "bad", "open"
};

/// Bars of positive numbers on a log axis in `unit`, in the order given.
std::string bar_chart(const std::vector<Bar>&, const std::string& unit);

}  // namespace dsa::verify
