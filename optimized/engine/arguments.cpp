#include "optimized/engine/arguments.hpp"

#include "cli/numbers.hpp"
#include "core/checkpoint_writer.hpp"
#include "core/words.hpp"

namespace dsa {

void EngineArguments::describe(CLI::App& app, const std::vector<std::string>& names) {
  app_ = &app;
  app.add_option("--backend", options.backend, "What computes: " + alternatives(names))
      ->type_name("NAME")
      ->capture_default_str();
  app.add_option("--format", options.format, "fp32, bf16 or fp8")
      ->type_name("TYPE")
      ->capture_default_str();
  app.add_option("--isa", options.tier,
                 "Instruction set of the backend cpu: portable, avx2, avx512, avx512-bf16 or amx.\n"
                 "Default: the best here")
      ->type_name("ISA");
  app.add_option("--mla", options.mla,
                 "Form of the backend cpu's attention to every visible key: absorbed, expanded or\n"
                 "automatic, the one with fewer operations. Absorbed: logits are the same bits\n"
                 "however tokens are cut into passes. Default: automatic")
      ->type_name("FORM");
  cli::add_integer(app, "--chunk", options.chunk, {1, Index{1} << 20}, "Tokens of a pass, at most")
      ->capture_default_str();
  cli::add_integer(app, "--threads", options.threads, {1, 4096},
                   "Of the backend cpu. Default: one for every core");
  app.add_option("--memory", memory, "That may be used, e.g. 20GB. Default: what is available")
      ->type_name("SIZE");
}

EngineOptions EngineArguments::parsed() const {
  EngineOptions parsed = options;
  if (!memory.empty()) parsed.memory = parse_bytes(memory, "--memory");
  check_options(parsed);
  return parsed;
}

}  // namespace dsa
