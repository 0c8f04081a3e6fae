// `ops` in a build of the judge alone (DSA_BACKENDS=OFF): there are no kernels.
#include "core/check.hpp"
#include "verify/commands/command.hpp"

namespace dsa::verify {

Command ops_command(CLI::App& parent) {
  CLI::App* app = parent.add_subcommand(
      "ops", "Judge kernels. This build has none; `make build` builds them (docs/ops.md).");
  app->allow_extras();
  return {app, [](const std::string&) -> int {
            throw Error(
                "expected a build with kernels, found the judge alone; build them with `make "
                "build` (or configure with -DDSA_BACKENDS=ON)");
          }};
}

}  // namespace dsa::verify
