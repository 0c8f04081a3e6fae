// tests/run/speaker.hpp — a tiny model of random weights that reads and writes with the deepseek
// sample's tokenizer.
#pragma once

#include <cmath>
#include <memory>
#include <vector>

#include "optimized/backends.hpp"
#include "optimized/engine/evaluator.hpp"
#include "tests/paths.hpp"
#include "tests/scratch.hpp"
#include "tests/tiny_checkpoint.hpp"
#include "text/tokenizer.hpp"

namespace dsa::test {

struct Speaker {
  Scratch scratch;
  std::filesystem::path dir = scratch / "model";
  std::unique_ptr<text::Tokenizer> tokenizer;

  Speaker() {
    Json json = tiny_config();
    json["vocab_size"] = 650;  // a few more than the tokenizer has
    write_checkpoint(dir, json, tiny_tensors(json));
    std::filesystem::copy(std::filesystem::path(source_dir()) / "data/text/deepseek/tokenizer.json",
                          dir);
    tokenizer = std::make_unique<text::Tokenizer>(text::Tokenizer::read(dir));
  }

  /// Absorbed: logits are the same bits however tokens are cut into passes.
  std::unique_ptr<Engine> engine() const {
    EngineOptions options;
    options.format = "fp32";
    options.mla = "absorbed";
    options.threads = 1;
    options.chunk = 64;
    return backend_named("cpu").open(open_checkpoint(dir), options);
  }

  /// Log-probabilities (V) of what follows each token, by one pass over the sequence.
  std::vector<std::vector<double>> log_probabilities(const std::vector<Token>& tokens) const {
    std::vector<std::vector<double>> rows;
    Evaluator(engine()).run(plain_sequence(tokens), {}, [&](Index, View<const float, 1> logits) {
      const double top = *std::max_element(logits.begin(), logits.end());
      double sum = 0;
      for (const float logit : logits) sum += std::exp(logit - top);
      auto& row = rows.emplace_back();
      for (const float logit : logits) row.push_back(logit - (top + std::log(sum)));
    });
    return rows;
  }
};

}  // namespace dsa::test
