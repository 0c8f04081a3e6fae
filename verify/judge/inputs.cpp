#include "verify/judge/inputs.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "core/checkpoint.hpp"
#include "verify/judge/precision_of.hpp"
#include "verify/names/name_map.hpp"
#include "verify/receipt.hpp"

namespace dsa::verify {
namespace {

namespace fs = std::filesystem;

/// The candidate was computed for the golden's tokens: the same, or the first sequences of it.
void expect_same_tokens(const Recording& golden, const Recording& candidate) {
  require(candidate.sequences.size() <= golden.sequences.size(),
          fmt::format("{} holds {} sequences, the golden only {}", candidate.path.string(),
                      candidate.sequences.size(), golden.sequences.size()));
  for (std::size_t b = 0; b < candidate.sequences.size(); ++b) {
    const std::vector<Token>&mine = candidate.sequences[b].tokens,
          &theirs = golden.sequences[b].tokens;
    if (mine == theirs) continue;
    const auto at = std::mismatch(mine.begin(), mine.end(), theirs.begin(), theirs.end());
    throw Error(fmt::format(
        "{} was computed for other tokens than {}: sequence {} differs at position {}; run it on "
        "the golden's tokens",
        candidate.path.string(), golden.path.string(), b, at.first - mine.begin()));
  }
}

void expect_span(const JudgeOptions& options, const Config& config) {
  if (!options.layers) return;
  const auto [a, b] = *options.layers;
  require(0 <= a && a < b && b <= config.num_hidden_layers,
          fmt::format("--layers {}:{} is not a span of the {} layers; give A:B with A < B", a, b,
                      config.num_hidden_layers));
}

std::optional<Recording> read_candidate(const Candidate& candidate, const Recording& golden,
                                        const Config& config, const JudgeOptions& options) {
  if (candidate.file) return read_named(*candidate.file, "", config, options.names);
  if (candidate.implementation) return answered(*candidate.implementation, golden);
  return std::nullopt;
}

void describe(Verdict& verdict, const Config& config, const std::vector<Sequence>& judged) {
  verdict.family = config.model_type;
  verdict.layers = config.num_hidden_layers;
  verdict.unused_keys = config.unused_keys;
  verdict.topk = config.indexer && config.use_sparse_attention ? config.indexer->topk : 0;
  verdict.longest_visible = longest_visible(judged);
  verdict.sequences = static_cast<Index>(judged.size());
  for (const Sequence& s : judged)
    verdict.positions += std::count_if(s.documents.begin(), s.documents.end(),
                                       [](Index document) { return document >= 0; });
}

}  // namespace

Checkpoint::Checkpoint(const fs::path& directory)
    : path(directory), stored(open_checkpoint(directory)) {}

Checkpoint::Checkpoint(const fs::path& directory, const JudgeOptions& options)
    : Checkpoint(directory) {
  if (options.latent_eps_of_config) stored.config.latent_norm_eps = stored.config.rms_norm_eps;
}

Inputs read_inputs(const Checkpoint& checkpoint, const fs::path& golden, const Candidate& candidate,
                   const JudgeOptions& options) {
  const Config& config = checkpoint.stored.config;
  expect_span(options, config);
  Inputs in;
  in.golden = read_named(golden, options.dtype, config, candidate.file ? "" : options.names);
  in.candidate = read_candidate(candidate, in.golden, config, options);
  if (in.candidate) {
    expect_same_tokens(in.golden, *in.candidate);
    std::copy_n(in.golden.sequences.begin(), in.candidate->sequences.size(),
                in.candidate->sequences.begin());  // the golden's mask holds for both
    in.verdict.candidate = in.candidate->path.string();
  }
  in.verdict.checkpoint = checkpoint.path.string();
  in.verdict.golden = golden.string();
  describe(in.verdict, config, in.judged().sequences);
  in.verdict.span = options.layers.value_or(std::pair{Index{0}, config.num_hidden_layers});
  in.models = open_models(checkpoint.stored, options.precision.value_or(precision_of(in.judged())));
  in.verdict.receipt = make_receipt(checkpoint.path, golden, candidate.file);
  in.verdict.receipt.draws = options;
  return in;
}

Index longest_visible(const std::vector<Sequence>& sequences) {
  Index longest = 0;
  for (const Sequence& s : sequences) {
    std::map<Index, Index> seen;
    for (Index document : s.documents)
      if (document >= 0) longest = std::max(longest, ++seen[document]);
  }
  return longest;
}

}  // namespace dsa::verify
