#include "verify/runs/backends.hpp"

#include <algorithm>
#include <memory>
#include <span>

#include "core/checkpoint.hpp"
#include "core/words.hpp"
#include "optimized/backends.hpp"
#include "optimized/engine/evaluator.hpp"
#include "verify/runs/models.hpp"

namespace dsa::verify {
namespace {

namespace fs = std::filesystem;
using reference::Precision;

/// What a backend computes in, and the precision whose limits it is held to. Engines round less
/// than HuggingFace and the official code do (docs/limits.md).
struct Format {
  const char* name;
  Precision precision;
};
constexpr Format of_reference[] = {{"fp64", Precision::fp64}};
constexpr Format of_engines[] = {
    {"fp32", Precision::hf_fp32}, {"bf16", Precision::hf_bf16}, {"fp8", Precision::official_fp8}};

/// Below so many bytes of weights one thread is faster than waiting for others.
constexpr Index small_model = Index{1} << 26;

Implementation open_reference(const Model& stored) {
  const ModelPair models = open_models(stored, Precision::fp64);
  return reference_implementation(models.exact(), models.in_memory);
}

/// Logits of a batch; the trace is of its first sequence.
Recording answer(Evaluator& evaluator, const std::vector<Sequence>& batch,
                 const std::vector<Index>& ends, bool traced) {
  Recording output{.dtype = "fp32"};
  for (const Sequence& sequence : batch) {
    Tensor<double, 2> logits({sequence.size(), evaluator.engine().config().vocab_size});
    evaluator.run(
        sequence, ends,
        [&](Index t, View<const float, 1> row) {
          std::copy(row.begin(), row.end(), logits.view()[t].begin());
        },
        traced && output.logits.empty() ? &output.trace : nullptr);
    output.logits.push_back(std::move(logits));
  }
  return output;
}

Implementation open_engine(const Model& model, EngineOptions options) {
  const Backend& backend = backend_named(options.backend);
  const Plan plan = backend.plan(model.config, options, options.chunk, options.chunk);
  require_fits(plan);
  if (plan.weights < small_model && options.backend == "cpu" && options.threads == 0)
    options.threads = 1;
  const auto evaluator = std::make_shared<Evaluator>(backend.open(model, options));

  Implementation implementation;
  implementation.name = evaluator->engine().name();
  implementation.in_process = true;
  implementation.run = [=](const std::vector<Sequence>& batch) {
    return answer(*evaluator, batch, {}, false);
  };
  implementation.run_traced = [=](const std::vector<Sequence>& batch) {
    return answer(*evaluator, batch, {}, true);
  };
  implementation.run_in_chunks = [=](const Sequence& sequence, const std::vector<Index>& ends) {
    return answer(*evaluator, {sequence}, ends, false);
  };
  return implementation;
}

}  // namespace

std::vector<std::string> judged_backends() {
  std::vector<std::string> all = backend_names();
  all.insert(all.begin(), "reference");
  return all;
}

Precision precision_of(const EngineOptions& options) {
  const std::vector<std::string> all = judged_backends();
  require(std::find(all.begin(), all.end(), options.backend) != all.end(),
          "this build has no backend \"" + options.backend + "\"; choose " + alternatives(all) +
              (backends().empty() ? ", or build the backends with `make build`" : ""));
  check_options(options);
  const std::span<const Format> formats =
      options.backend == "reference" ? std::span<const Format>(of_reference) : of_engines;
  std::vector<std::string> known;
  for (const Format& format : formats) {
    if (options.format == format.name) return format.precision;
    known.push_back(format.name);
  }
  throw Error("the backend " + options.backend + " has no format \"" + options.format +
              "\"; choose " + alternatives(known));
}

Implementation open_backend(const Model& stored, const EngineOptions& options) {
  precision_of(options);
  return options.backend == "reference" ? open_reference(stored) : open_engine(stored, options);
}

Implementation open_backend(const fs::path& checkpoint, const EngineOptions& options) {
  return open_backend(open_checkpoint(checkpoint), options);
}

}  // namespace dsa::verify
