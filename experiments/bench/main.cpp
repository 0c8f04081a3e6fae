// dsa-bench — how fast the optimised backends are, against this machine's own limits and others.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <vector>

#include "experiments/bench/bench.hpp"

int main(int argc, char** argv) {
  using namespace dsa::bench;
  CLI::App app{
      "dsa-bench: how fast the CPU backend is, and the CUDA kernels.\n\n"
      "  dsa-bench ops                every op, with the fraction of this machine's roofline "
      "reached\n"
      "  dsa-bench growth             how the cost of a layer grows with the context\n"
      "  dsa-bench cuda               the CUDA kernels on a device, at published sizes\n"
      "  dsa-bench model CHECKPOINT   prefill and decoding of a whole model\n\n"
      "Exit status: 0 measured, 2 usage or bad input."};
  app.require_subcommand(1);
  const std::vector<Command> commands = {ops_command(app), growth_command(app), cuda_command(app),
                                         model_command(app)};
  const auto is_named = [&](const Command& c) { return c.app->get_name() == argv[1]; };
  if (argc > 1 && argv[1][0] != '-' && std::none_of(commands.begin(), commands.end(), is_named)) {
    std::cerr << "dsa-bench: there is no command \"" << argv[1] << "\"; see dsa-bench --help\n";
    return 2;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& e) {
    std::cerr << "dsa-bench: " << e.what() << "; see dsa-bench --help\n";
    return 2;
  }
  try {
    for (const Command& command : commands)
      if (command.app->parsed()) return command.run();
  } catch (const std::exception& e) {
    std::cerr << "dsa-bench: " << e.what() << "\n";
  }
  return 2;
}
