#include "optimized/run/engine_options.hpp"

#include "core/checkpoint_writer.hpp"

namespace dsa::run {

void EngineOptions::describe(CLI::App& app) {
  app.add_option("--backend", backend, "What computes: cpu")
      ->check(CLI::IsMember({"cpu"}).description(""))
      ->type_name("NAME")
      ->capture_default_str();
  app.add_option("--format", format, "fp32, bf16 or fp8")->type_name("TYPE")->capture_default_str();
  app.add_option("--cpu", tier,
                 "Instructions: portable, avx2, avx512, avx512-bf16 or amx. Default: the best here")
      ->type_name("TIER");
  app.add_option(
         "--mla", mla,
         "Form of attention to every visible key: absorbed, expanded, or automatic, the one\n"
         "with fewer operations. Absorbed: logits are the same bits however tokens are cut\n"
         "into passes")
      ->type_name("FORM")
      ->capture_default_str();
  app.add_option("--chunk", chunk, "Tokens of a pass, at most")
      ->check(CLI::Range(Index{1}, Index{1} << 20).description(""))
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--threads", threads, "Default: as many as OpenMP would take")
      ->check(CLI::Range(1, 4096).description(""))
      ->type_name("N");
  app.add_option("--memory", memory, "That may be used, e.g. 20GB. Default: what is available")
      ->type_name("SIZE");
}

cpu::SessionOptions EngineOptions::parsed() const {
  cpu::SessionOptions session;
  session.format = cpu::format_named(format);
  if (!tier.empty()) session.cpu.tier = cpu::tier_named(tier);
  session.mla = cpu::mla_named(mla);
  if (!memory.empty()) session.memory = parse_bytes(memory, "--memory");
  session.chunk = chunk;
  session.threads = threads;
  return session;
}

}  // namespace dsa::run
