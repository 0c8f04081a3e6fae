// One prefill and some decoding of a whole model, in a process of its own.
#include <sys/resource.h>

#include <chrono>
#include <iostream>
#include <memory>

#include "core/checkpoint.hpp"
#include "core/json.hpp"
#include "core/random.hpp"
#include "experiments/bench/bench.hpp"
#include "optimized/engine/arguments.hpp"
#include "optimized/engine/session.hpp"

namespace dsa::bench {
namespace {

struct ModelArguments {
  std::string checkpoint;
  Index length = 1024, decode = 8;
  EngineArguments engine;
};

double seconds_of(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

/// The most resident memory so far, pages of mapped files included: as the peers are measured.
double peak_mib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

int measure(const ModelArguments& a) {
  const EngineOptions options = a.engine.parsed();
  Session session(backend_named(options.backend).open(open_checkpoint(a.checkpoint), options));
  const auto vocabulary = static_cast<double>(session.engine().config().vocab_size);
  std::vector<Token> tokens(static_cast<std::size_t>(a.length + a.decode));
  for (std::size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<Token>(uniform(1, i) * vocabulary);
  const std::span<const Token> all(tokens);
  const auto length = static_cast<std::size_t>(a.length);
  const double prefill = seconds_of([&] { session.append(all.first(length)); });
  const double decode = seconds_of([&] {
    for (std::size_t i = length; i < tokens.size(); ++i) session.append(all.subspan(i, 1));
  });
  const Json result = {{"peer", "dsa"},
                       {"format", options.format},
                       {"engine", session.engine().name()},
                       {"length", a.length},
                       {"prefill_tokens_per_s", static_cast<double>(a.length) / prefill},
                       {"decode_s_per_token",
                        a.decode ? Json(decode / static_cast<double>(a.decode)) : Json(nullptr)},
                       {"peak_mib", peak_mib()}};
  std::cout << result.dump() << "\n";
  return 0;
}

}  // namespace

Command model_command(CLI::App& parent) {
  const auto a = std::make_shared<ModelArguments>();
  CLI::App* app = parent.add_subcommand(
      "model",
      "Time the prefill of --length random tokens and the decoding of --decode more.\n"
      "Prints one line of JSON; experiments/bench/peers/side_by_side.py sets it beside others.");
  app->add_option("CHECKPOINT", a->checkpoint, "Directory with config.json and safetensors")
      ->required();
  cli::add_integer(*app, "--length", a->length, {1, Index{1} << 24}, "Tokens of the prompt")
      ->capture_default_str();
  cli::add_integer(*app, "--decode", a->decode, {0, Index{1} << 24}, "Tokens after it")
      ->capture_default_str();
  a->engine.describe(*app);
  return {app, [=](const std::string&) { return measure(*a); }};
}

}  // namespace dsa::bench
