#include "verify/diagnose/gradient_power.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "core/checkpoint.hpp"
#include "core/threads.hpp"
#include "verify/diagnose/gradient_search.hpp"
#include "verify/receipt.hpp"
#include "verify/report/page.hpp"
#include "verify/report/report.hpp"
#include "verify/report/text.hpp"
#include "verify/report/values.hpp"

namespace dsa::verify {
namespace {

void take(double& most, double ratio) {
  most = std::isnan(ratio) ? std::numeric_limits<double>::infinity() : std::max(most, ratio);
}

/// The largest error of the gradients that the golden has.
double largest(const GradientPass& arm, const GradientPass& base, const GradientLimits& limits,
               const ByParameter& golden) {
  double most = 0;
  for (std::size_t p = 0; p < base.gradients.size(); ++p) {
    const auto& [name, want] = base.gradients[p];
    const auto mine =
        std::find_if(arm.gradients.begin(), arm.gradients.end(),
                     [&, wanted = &name](const auto& other) { return other.first == *wanted; });
    if (norm(want) == 0)
      take(most, norm(mine->second) > 0 ? std::numeric_limits<double>::infinity() : 0);
    else if (golden.contains(name))
      take(most, limits.measured(p, {Dtype::f64, mine->second}).worst_over_allowed);
  }
  return most;
}

void add_rows(GradientPower& power, const std::string& loss, const GradientStage& stage,
              const GradientFile& golden, reference::Precision precision,
              const GradientOptions& options) {
  const GradientVariant right = variant_of(loss, stage);
  const GradientPass base = run_backward(right);
  const GradientLimits limits(right, base, draw_gradients(loss, stage, base, precision, options),
                              precision,
                              options.alpha / static_cast<double>(2 * base.gradients.size()));
  const std::vector<GradientArm> arms = training_arms(right);
  const auto gradients = golden.gradients.find(loss);
  std::vector<GradientPowerRow> rows(arms.size());
  parallel_for(static_cast<Index>(arms.size()), shared_loop_ns, [&](Index i) {
    const GradientArm& arm = arms[static_cast<std::size_t>(i)];
    const RankedGradients& r = arm.ranked;
    GradientPowerRow& row = rows[static_cast<std::size_t>(i)];
    row = {loss, r.number, r.name, r.variant, r.convention};
    const GradientPass pass = pass_of(arm, right, base);
    if (golden.losses.contains(loss))
      take(row.value, std::abs(pass.loss - base.loss) / limits.of_loss());
    if (gradients != golden.gradients.end())
      row.gradients = largest(pass, base, limits, gradients->second);
  });
  power.matrix.insert(power.matrix.end(), rows.begin(), rows.end());
}

}  // namespace

Index GradientPower::caught() const {
  return std::count_if(matrix.begin(), matrix.end(),
                       [](const GradientPowerRow& row) { return row.caught(); });
}

GradientPower gradient_power(const std::filesystem::path& checkpoint,
                             const std::filesystem::path& golden, const GradientOptions& options) {
  GradientOptions own = options;
  own.precision.reset();
  const GradientVerdict right = judge_gradients(checkpoint.string(), golden.string(), "", own);
  require(right.outcome != Outcome::fail, golden.string() + " is not what the definition says (" +
                                              right.why + "); a wrong golden sees nothing");
  const Model model = resident(open_checkpoint(checkpoint), Index{1} << 30);
  const GradientFile file = read_gradients(golden, model.config);
  const GradientStage stage = stage_of(model, file, semantics_named(options.semantics), file);
  GradientPower power;
  power.checkpoint = checkpoint.string(), power.golden = golden.string();
  power.stage = stage.words;
  const reference::Precision precision =
      options.precision ? *options.precision : reference::precision_named(file.precision);
  power.precision = name_of(precision);
  for (const char* loss : {"lm", "kl", "mtp", "balance"})
    if (file.has(loss)) add_rows(power, loss, stage, file, precision, options);
  power.receipt = make_receipt(checkpoint, golden, std::nullopt);
  power.receipt.draws = options;
  return power;
}

std::string table(const GradientPower& power, bool) {
  std::string text = fmt::format(
      "{} of {} variants of training defects would be caught by {}\n"
      "limits of {}, stage: {}; a ratio above 1 is caught\n\n{:<5} {:<7} {:<38} {:<46} {:>9} "
      "{:>9}\n",
      power.caught(), power.matrix.size(), clean(power.golden), power.precision, power.stage,
      "loss", "defect", "name", "variant", "value", "gradients");
  for (const GradientPowerRow& row : power.matrix)
    text += fmt::format("{:<5} {:<7} {:<38} {:<46} {:>9} {:>9}  {}\n", row.loss, row.number,
                        row.name, row.variant, number(row.value), number(row.gradients),
                        row.caught() ? "caught" : "NOT SEEN");
  return text;
}

Json to_json(const GradientPower& power) {
  Json matrix = Json::array();
  for (const GradientPowerRow& row : power.matrix)
    matrix.push_back({{"loss", row.loss},
                      {"defect", row.number},
                      {"name", row.name},
                      {"variant", row.variant},
                      {"convention", row.convention},
                      {"value", json_of(row.value)},
                      {"gradients", json_of(row.gradients)},
                      {"caught", row.caught()}});
  return {{"caught", power.caught()},
          {"all", power.matrix.size()},
          {"matrix", matrix},
          {"checkpoint", json_of(power.checkpoint)},
          {"golden", json_of(power.golden)},
          {"precision", power.precision},
          {"stage", power.stage},
          {"receipt", receipt_json(power.receipt)}};
}

std::string to_html(const GradientPower& power) {
  const std::string title =
      fmt::format("{} of {} training defects would be caught", power.caught(), power.matrix.size());
  std::string body;
  for (const GradientPowerRow& row : power.matrix)
    body += "<tr>" + cell("", row.loss) + cell("num", std::to_string(row.number)) +
            cell("name", row.name + (row.variant.empty() ? "" : " (" + row.variant + ")")) +
            cell("num", number(row.value)) + cell("num", number(row.gradients)) + "<td>" +
            word(row.caught()) + "</td></tr>\n";
  const std::string facts = "<dl class=\"facts\">\n" + fact("checkpoint", power.checkpoint, true) +
                            fact("golden", power.golden, true) +
                            fact("limits of", power.precision) + fact("stage", power.stage) +
                            "</dl>\n";
  const bool all = power.caught() == static_cast<Index>(power.matrix.size());
  return page_of(title, banner(all ? Outcome::pass : Outcome::inconclusive, "dsa-verify power",
                               title, "A ratio above 1 is caught.", "", facts) +
                            "<details class=\"box\" open><summary>Every variant</summary>" +
                            table_of(th("loss") + th_number("defect") + th("name") +
                                         th_number("value") + th_number("gradients") + th("caught"),
                                     body) +
                            "</details>\n" + receipt_section(power.receipt));
}

}  // namespace dsa::verify
