#include "optimized/engine/arguments.hpp"

#include "core/checkpoint_writer.hpp"
#include "core/words.hpp"

namespace dsa::run {

void EngineArguments::describe(CLI::App& app) {
  app.add_option("--backend", backend, "What computes: " + alternatives(backend_names()))
      ->type_name("NAME")
      ->capture_default_str();
  app.add_option("--format", options.format, "fp32, bf16 or fp8")
      ->type_name("TYPE")
      ->capture_default_str();
  app.add_option("--cpu", options.tier,
                 "Instructions of the backend cpu: portable, avx2, avx512, avx512-bf16 or amx.\n"
                 "Default: the best here")
      ->type_name("TIER");
  app.add_option("--mla", options.mla,
                 "Form of the backend cpu's attention to every visible key: absorbed, expanded or\n"
                 "automatic, the one with fewer operations. Absorbed: logits are the same bits\n"
                 "however tokens are cut into passes. Default: automatic")
      ->type_name("FORM");
  app.add_option("--chunk", options.chunk, "Tokens of a pass, at most")
      ->check(CLI::Range(Index{1}, Index{1} << 20).description(""))
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--threads", options.threads, "Of the backend cpu. Default: one for every core")
      ->check(CLI::Range(1, 4096).description(""))
      ->type_name("N");
  app.add_option("--memory", memory, "That may be used, e.g. 20GB. Default: what is available")
      ->type_name("SIZE");
}

ChosenEngine EngineArguments::parsed() const {
  ChosenEngine chosen{backend_named(backend), options};
  check_options(backend, options);
  if (!memory.empty()) chosen.options.memory = parse_bytes(memory, "--memory");
  return chosen;
}

}  // namespace dsa::run
