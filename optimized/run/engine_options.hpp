// optimized/run/engine_options.hpp — the options of every command that runs a model.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "optimized/cpu/session.hpp"

namespace dsa::run {

struct EngineOptions {
  std::string backend = "cpu", format = "bf16", tier, mla = "automatic", memory;
  Index chunk = 512;
  int threads = 0;

  void describe(CLI::App&);
  cpu::SessionOptions parsed() const;
};

}  // namespace dsa::run
