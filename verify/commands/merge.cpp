#include "verify/report/merge.hpp"

#include "verify/commands/command.hpp"
#include "verify/report/report.hpp"

namespace dsa::verify {
namespace {

struct MergeArguments {
  std::vector<std::string> reports;
  std::string json;
};

int run(const MergeArguments& a, const std::string& command_line) {
  std::vector<SpanReport> reports;
  for (const std::string& file : a.reports) reports.push_back({file, read_json(file)});
  check_outputs({a.json}, {a.reports.begin(), a.reports.end()});
  const Json json = merged(std::move(reports), command_line);
  write_if_asked(a.json, json_text(json));
  print(table_of_merged(json, is_coloured()));
  return json.at("exit_code").get<int>();
}

}  // namespace

Command merge_command(CLI::App& parent) {
  const auto a = std::make_shared<MergeArguments>();
  CLI::App* app = parent.add_subcommand(
      "merge",
      "Join reports of `golden --layers A:B --json REPORT` on one model: each layer once.");
  app->add_option("REPORT", a->reports, "Reports on spans of layers, in any order")->required();
  app->add_option("--json", a->json, "Write the joined verdict as JSON to this file");
  return {app, [=](const std::string& command_line) { return run(*a, command_line); }};
}

}  // namespace dsa::verify
