#include "verify/backends.hpp"

#include <omp.h>

#include <algorithm>

#include "core/checkpoint.hpp"
#include "optimized/cpu/evaluator.hpp"
#include "optimized/cpu/memory.hpp"
#include "optimized/cpu/plan.hpp"
#include "verify/side.hpp"

namespace dsa::verify {
namespace {

namespace fs = std::filesystem;
using reference::Precision;

constexpr Index chunk = 512;

/// Below so many bytes of weights one thread is faster than waiting for others.
constexpr Index small_model = Index{1} << 26;

Implementation open_reference(const fs::path& checkpoint, const std::string&,
                              const std::string& tier, const std::string& mla) {
  require(tier.empty(), "--cpu chooses instructions of the backend cpu, not of the reference");
  require(mla.empty(), "--mla chooses a form of the backend cpu, not of the reference");
  const Models models = open_models(checkpoint, Precision::fp64);
  return reference_implementation(models.exact(), models.in_memory);
}

/// Logits of a batch; the trace is of its first sequence.
Said answer(cpu::Evaluator& evaluator, const std::vector<Sequence>& batch,
            const std::vector<Index>& ends, Trace* trace) {
  Said said{{}, "fp32"};
  for (const Sequence& sequence : batch) {
    Tensor<double, 2> logits({sequence.size(), evaluator.model().config.vocab_size});
    evaluator.run(
        sequence, ends,
        [&](Index t, View<const float, 1> row) {
          std::copy(row.begin(), row.end(), logits.view()[t].begin());
        },
        said.logits.empty() ? trace : nullptr);
    said.logits.push_back(std::move(logits));
  }
  return said;
}

Implementation open_cpu(const fs::path& checkpoint, const std::string& format_name,
                        const std::string& tier, const std::string& mla) {
  const Model model = open_checkpoint(checkpoint);
  const cpu::Format format = cpu::format_named(format_name);
  cpu::Cpu cpu;
  if (!tier.empty()) cpu.tier = cpu::tier_named(tier);
  const int threads =
      cpu::weight_bytes(model.config, format) < small_model ? 1 : omp_get_max_threads();
  cpu::require_fits(
      cpu::plan(model.config, format, chunk, chunk, threads, chunk, cpu::available_memory()));
  const cpu::Mla form = mla.empty() ? cpu::Mla::automatic : cpu::mla_named(mla);
  const auto evaluator =
      std::make_shared<cpu::Evaluator>(cpu::pack(model, format, cpu, form), chunk, threads);

  Implementation implementation;
  implementation.name = "cpu (" + format_name + ", " + std::string(name_of(cpu.tier)) +
                        (mla.empty() ? "" : ", " + mla) + ")";
  implementation.in_process = true;
  implementation.run = [=](const std::vector<Sequence>& batch) {
    return answer(*evaluator, batch, {}, nullptr);
  };
  implementation.run_traced = [=](const std::vector<Sequence>& batch, Trace& trace) {
    return answer(*evaluator, batch, {}, &trace);
  };
  implementation.run_in_chunks = [=](const Sequence& sequence, const std::vector<Index>& ends) {
    return answer(*evaluator, {sequence}, ends, nullptr);
  };
  return implementation;
}

/// "a, b or c".
template <class Range>
std::string names_of(const Range& range) {
  std::string all;
  for (std::size_t i = 0; i < range.size(); ++i)
    all += (i == 0 ? "" : i + 1 < range.size() ? ", " : " or ") + range[i].name;
  return all;
}

}  // namespace

const std::vector<Backend>& backends() {
  static const std::vector<Backend> all = {
      {"reference", {{"fp64", Precision::fp64}}, open_reference},
      {"cpu",
       {{"fp32", Precision::hf_fp32},
        {"bf16", Precision::hf_bf16},
        {"fp8", Precision::official_fp8}},
       open_cpu},
  };
  return all;
}

std::string backend_names() { return names_of(backends()); }

OpenedBackend open_backend(const fs::path& checkpoint, const BackendChoice& choice) {
  const auto backend = std::find_if(backends().begin(), backends().end(),
                                    [&](const Backend& b) { return b.name == choice.name; });
  require(backend != backends().end(), "this build, on this machine, has no backend \"" +
                                           choice.name + "\"; choose " + backend_names());
  auto format = backend->formats.begin();
  if (!choice.format.empty())
    format = std::find_if(format, backend->formats.end(),
                          [&](const BackendFormat& f) { return f.name == choice.format; });
  require(format != backend->formats.end(), "the backend " + backend->name + " has no format \"" +
                                                choice.format + "\"; choose " +
                                                names_of(backend->formats));
  return {backend->open(checkpoint, format->name, choice.tier, choice.mla), format->precision};
}

}  // namespace dsa::verify
