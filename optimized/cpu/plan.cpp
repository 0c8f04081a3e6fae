#include "optimized/cpu/plan.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "core/checkpoint_writer.hpp"
#include "optimized/cpu/cache.hpp"
#include "optimized/cpu/model.hpp"
#include "optimized/cpu/workspace.hpp"

namespace dsa::cpu {

Plan plan(const Config& c, Format format, Index S, Index chunk, int threads, Index logits_rows,
          Index memory) {
  Plan p;
  p.S = S;
  p.chunk = chunk;
  p.weights = weight_bytes(c, format);
  p.cache = cache_bytes(c, format, S);
  p.workspace = workspace_bytes(c, format, chunk, threads);
  p.logits = logits_rows * c.vocab_size * static_cast<Index>(sizeof(float));
  p.memory = memory;
  const Index page = cache_bytes(c, format, Cache::page_rows), left = memory - p.total() + p.cache;
  p.largest_S = std::max<Index>(0, left) / page * Cache::page_rows;
  return p;
}

std::string text(const Plan& p) {
  return fmt::format(
      "weights    {}\n"
      "cache      {} for {} tokens\n"
      "workspace  {} for passes of {} tokens, and {} for their logits\n"
      "together   {} of {}, into which {} tokens fit\n",
      bytes_text(p.weights), bytes_text(p.cache), p.S, bytes_text(p.workspace), p.chunk,
      bytes_text(p.logits), bytes_text(p.total()), bytes_text(p.memory), p.largest_S);
}

void require_fits(const Plan& p) {
  if (p.largest_S == 0)
    throw Error(fmt::format(
        "the model takes {} of weights and {} of workspace, which leaves no room for a cache in "
        "the {} that may be used; choose a smaller --chunk or a narrower --format",
        bytes_text(p.weights), bytes_text(p.workspace + p.logits), bytes_text(p.memory)));
  if (p.S > p.largest_S)
    throw Error(fmt::format("{} tokens take {}, but only {} may be used; at most {} tokens fit",
                            p.S, bytes_text(p.total()), bytes_text(p.memory), p.largest_S));
}

}  // namespace dsa::cpu
