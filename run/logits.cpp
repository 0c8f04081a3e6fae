#include "run/logits.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "core/checkpoint.hpp"
#include "core/trace_names.hpp"
#include "optimized/backends.hpp"
#include "optimized/engine/evaluator.hpp"
#include "run/tokens.hpp"

namespace dsa::run {
namespace {

/// Padded on the right to the longest, as a tensor of tokens needs.
void pad(std::vector<Sequence>& sequences, Index S) {
  for (Sequence& s : sequences) {
    s.tokens.resize(static_cast<std::size_t>(S), 0);
    s.positions.resize(static_cast<std::size_t>(S), 0);
    s.documents.resize(static_cast<std::size_t>(S), -1);
  }
}

void append(SafetensorsWriter& out, const std::vector<Index>& values) {
  out.append(std::as_bytes(std::span(values)));
}

/// How many of all tokens have logits.
class Meter {
 public:
  Meter(const cli::Progress& progress, Index tokens) : progress_(progress), tokens_(tokens) {}
  void add_token() {
    ++done_;
    if (progress_) progress_("tokens", static_cast<int>(1000 * done_ / tokens_), 1000);
  }

 private:
  const cli::Progress& progress_;
  Index tokens_, done_ = 0;
};

/// Rows (S, V) of one sequence, as they come; zeros for padding.
void append_logits(SafetensorsWriter& out, Evaluator& evaluator, const Sequence& s, Meter& meter) {
  const std::vector<float> zeros(static_cast<std::size_t>(evaluator.engine().config().vocab_size));
  Index next = 0;
  const auto skip_to = [&](Index t) {
    for (; next < t; ++next) out.append(std::as_bytes(std::span(zeros)));
  };
  evaluator.run(s, {}, [&](Index t, View<const float, 1> row) {
    skip_to(t);
    out.append(std::as_bytes(std::span(row.data, static_cast<std::size_t>(row.size()))));
    ++next;
    meter.add_token();
  });
  skip_to(s.size());
}

void append(SafetensorsWriter& out, const Trace::Entry& entry) {
  const Tensor<double, 2> values = entry.values();
  if (is_decision(entry.name))
    append(out, std::vector<Index>(values.begin(), values.end()));
  else
    out.append_values({values.data(), static_cast<std::size_t>(values.size())});
}

void write_safetensors(const LogitsJob& job, Evaluator& evaluator, std::vector<Sequence> sequences,
                       Index S, Meter& meter) {
  pad(sequences, S);
  const auto B = static_cast<Index>(sequences.size()), V = evaluator.engine().config().vocab_size;
  Trace trace;  // of the first sequence; its header stands before the logits
  if (job.trace)
    evaluator.run(
        sequences.front(), {}, [&](auto&&...) { meter.add_token(); }, &trace);
  std::vector<SafetensorsWriter::Declaration> declared = {{"tokens", Dtype::i64, {B, S}},
                                                          {"attention_mask", Dtype::i64, {B, S}},
                                                          {"logits", Dtype::f32, {B, S, V}}};
  for (const Trace::Entry& entry : trace.entries())
    declared.push_back(
        {entry.name, is_decision(entry.name) ? Dtype::i64 : Dtype::f32, entry.shape});

  SafetensorsWriter out(job.out, declared);
  for (const Sequence& s : sequences) append(out, s.tokens);
  for (const Sequence& s : sequences) {
    std::vector<Index> mask;
    for (const Index document : s.documents) mask.push_back(document < 0 ? 0 : 1);
    append(out, mask);
  }
  for (std::size_t b = 0; b < sequences.size(); ++b) {
    if (b == 0 && job.trace)
      append(out, trace.at(names::lm_head));
    else
      append_logits(out, evaluator, sequences[b], meter);
  }
  for (const Trace::Entry& entry : trace.entries()) append(out, entry);
  out.commit();
}

void write_lines(const LogitsJob& job, Evaluator& evaluator, std::vector<Sequence> sequences,
                 Meter& meter) {
  Recording golden;
  for (const Sequence& s : sequences) {
    golden.logits.emplace_back(Shape<2>{s.size(), evaluator.engine().config().vocab_size});
    evaluator.run(s, {}, [&](Index t, View<const float, 1> row) {
      std::copy(row.begin(), row.end(), golden.logits.back().view()[t].begin());
      meter.add_token();
    });
  }
  golden.sequences = std::move(sequences);
  write_jsonl(job.out, golden);
}

}  // namespace

std::string logits(const LogitsJob& job, EngineOptions options) {
  const Backend& backend = backend_named(options.backend);
  const Config config = read_config(job.checkpoint);
  const std::vector<Sequence> sequences = read_tokens(job.tokens, config.vocab_size);
  Index S = 0, tokens = 0;
  for (const Sequence& s : sequences) {
    S = std::max(S, s.size());
    tokens += s.size() - std::count(s.documents.begin(), s.documents.end(), -1);
  }
  const bool lines = job.out.extension() == ".jsonl";
  require(lines || job.plan_only || job.out.extension() == ".safetensors",
          "the output is called " + job.out.string() + ", expected *.safetensors or *.jsonl");
  require(!(lines && job.trace), "JSON lines hold no trace; write *.safetensors");

  options.chunk = std::min(options.chunk, S);
  const Plan plan = backend.plan(config, options, S, options.chunk);
  if (job.plan_only) return as_text(plan);
  require_fits(plan);

  Evaluator evaluator(backend.open(open_checkpoint(job.checkpoint), options));
  const auto start = std::chrono::steady_clock::now();
  Meter meter(job.progress, tokens);
  if (lines)
    write_lines(job, evaluator, sequences, meter);
  else
    write_safetensors(job, evaluator, sequences, S, meter);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return fmt::format("{}: logits of {} tokens in {} sequence{} by {}, {:.3g} s\n", job.out.string(),
                     tokens, sequences.size(), sequences.size() == 1 ? "" : "s",
                     evaluator.engine().name(), seconds);
}

}  // namespace dsa::run
