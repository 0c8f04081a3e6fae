#include "verify/commands/command.hpp"
#include "verify/defects/page.hpp"

namespace dsa::verify {

Command defects_command(CLI::App& parent) {
  CLI::App* app = parent.add_subcommand(
      "defects",
      "Print the catalogue of known defects as Markdown: docs/defects.md. Exit status: 0.");
  return {app, [](const std::string&) {
            print(catalogue_page());
            return 0;
          }};
}

}  // namespace dsa::verify
