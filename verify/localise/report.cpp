// A localisation as a table and as JSON.
#include "verify/report/report.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "verify/localise/localise.hpp"
#include "verify/report/text.hpp"
#include "verify/report/values.hpp"

namespace dsa::verify {
namespace {

/// "a, b, c and 12 more"
std::string some(const std::vector<std::string>& names, std::size_t most = 8) {
  std::vector<std::string> shown;
  for (std::size_t i = 0; i < std::min(most, names.size()); ++i) shown.push_back(clean(names[i]));
  const std::string text = fmt::format("{}", fmt::join(shown, ", "));
  return names.size() > most ? text + fmt::format(" and {} more", names.size() - most) : text;
}

}  // namespace

std::string table(const Localisation& l, bool colour) {
  std::string text = opening_line(l.outcome, l.why, colour) +
                     fmt::format("checkpoint {}\ncandidate  {}, computed as {}\n",
                                 clean(l.checkpoint), clean(l.candidate), l.precision);
  if (l.first_departure) text += fmt::format("\nfirst departure: {}\n", clean(*l.first_departure));
  if (!l.grafted.wrong.empty())
    text += fmt::format("\n{:<48} {:>14} {:>12}  {}\n", "wrong by itself", "worst/allowed", "at",
                        "ops");
  for (const FaultyOp& wrong : l.grafted.wrong)
    text += fmt::format("{:<48} {:>14} {:>12}  {}\n", clean(wrong.tensor.name),
                        number(wrong.tensor.worst), place(wrong.tensor.at),
                        wrong.ops == std::vector{wrong.tensor.name} ? "this one" : some(wrong.ops));
  const auto line = [&](const std::string& label, const std::vector<std::string>& names) {
    if (!names.empty()) text += fmt::format("{} ({}): {}\n", label, names.size(), some(names));
  };
  text += "\n";
  line("inherited", l.inherited);
  line("not judged", l.grafted.unjudged);
  line("dump next", l.dump_next);
  line("not in the reference", l.unmapped);
  return text + "\n" + closing_line(l.outcome, l.why, colour);
}

Json to_json(const Localisation& l) {
  Json wrong = Json::array();
  for (const FaultyOp& w : l.grafted.wrong) {
    Json json = tensor_json(w.tensor);
    json["ops"] = json_of(w.ops);
    wrong.push_back(std::move(json));
  }
  return {{"verdict", name_of(l.outcome)},
          {"why", json_of(l.why)},
          {"exit_code", exit_code(l.outcome)},
          {"checkpoint", json_of(l.checkpoint)},
          {"candidate", json_of(l.candidate)},
          {"precision", l.precision},
          {"first_departure", l.first_departure ? json_of(*l.first_departure) : Json()},
          {"wrong", wrong},
          {"inherited", json_of(l.inherited)},
          {"unjudged", json_of(l.grafted.unjudged)},
          {"dump_next", json_of(l.dump_next)},
          {"unmapped", json_of(l.unmapped)},
          {"receipt", receipt_json(l.receipt)}};
}

}  // namespace dsa::verify
