// A localisation as a table and as JSON.
#include "verify/report/report.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "verify/localise/localise.hpp"
#include "verify/report/text.hpp"

namespace dsa::verify {
namespace {

/// "a, b, c and 12 more"
std::string some(const std::vector<std::string>& names, std::size_t most = 8) {
  const std::size_t n = std::min(most, names.size());
  std::string text =
      fmt::format("{}", fmt::join(names.begin(), names.begin() + static_cast<long>(n), ", "));
  return names.size() > n ? text + fmt::format(" and {} more", names.size() - n) : text;
}

}  // namespace

std::string table(const Localisation& l) {
  std::string text = fmt::format("checkpoint {}\ncandidate  {}, computed as {}\n",
                                 clean(l.checkpoint), clean(l.candidate), l.precision);
  if (l.first_departure) text += fmt::format("\nfirst departure: {}\n", *l.first_departure);
  if (!l.grafted.wrong.empty())
    text += fmt::format("\n{:<48} {:>14} {:>12}  {}\n", "wrong by itself", "worst/allowed", "at",
                        "ops");
  for (const FaultyOp& wrong : l.grafted.wrong)
    text +=
        fmt::format("{:<48} {:>14} {:>12}  {}\n", wrong.tensor.name, number(wrong.tensor.worst),
                    place(wrong.tensor.at), wrong.ops.size() == 1 ? "this one" : some(wrong.ops));
  const auto line = [&](const std::string& label, const std::vector<std::string>& names) {
    std::vector<std::string> shown;
    for (const std::string& name : names) shown.push_back(clean(name));
    if (!names.empty()) text += fmt::format("{} ({}): {}\n", label, names.size(), some(shown));
  };
  text += "\n";
  line("inherited", l.inherited);
  line("not judged", l.grafted.unjudged);
  line("dump next", l.dump_next);
  line("not in the reference", l.unmapped);
  return text + fmt::format("\n{}: {} -> exit {}\n", std::string(name_of(l.outcome)), clean(l.why),
                            exit_code(l.outcome));
}

Json to_json(const Localisation& l) {
  Json wrong = Json::array();
  for (const FaultyOp& w : l.grafted.wrong) {
    Json json = tensor_json(w.tensor);
    json["ops"] = w.ops;
    wrong.push_back(std::move(json));
  }
  Json unmapped = Json::array();
  for (const std::string& name : l.unmapped) unmapped.push_back(text_json(name));
  return {{"verdict", name_of(l.outcome)},
          {"why", text_json(l.why)},
          {"exit_code", exit_code(l.outcome)},
          {"checkpoint", text_json(l.checkpoint)},
          {"candidate", text_json(l.candidate)},
          {"precision", l.precision},
          {"first_departure", l.first_departure ? Json(*l.first_departure) : Json()},
          {"wrong", wrong},
          {"inherited", l.inherited},
          {"unjudged", l.grafted.unjudged},
          {"dump_next", l.dump_next},
          {"unmapped", unmapped},
          {"receipt", receipt_json(l.receipt)}};
}

}  // namespace dsa::verify
