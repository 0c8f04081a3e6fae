#include "optimized/engine/plan.hpp"

#include <fmt/format.h>

#include "core/check.hpp"
#include "core/checkpoint_writer.hpp"

namespace dsa {
namespace {

/// "80 GB", or "80 GB on the device".
std::string memory_text(const Plan& p) {
  return bytes_text(p.memory) + (p.where.empty() ? "" : " " + p.where);
}

}  // namespace

std::string as_text(const Plan& p) {
  return fmt::format(
      "weights    {}\n"
      "cache      {} for {} tokens\n"
      "workspace  {} for passes of {} tokens, and {} for their logits\n"
      "together   {} of {}, into which {} tokens fit\n",
      bytes_text(p.weights), bytes_text(p.cache), p.S, bytes_text(p.workspace), p.chunk,
      bytes_text(p.logits), bytes_text(p.total()), memory_text(p), p.largest_S);
}

void require_fits(const Plan& p) {
  if (p.largest_S == 0)
    throw Error(fmt::format(
        "the model takes {} of weights and {} of workspace, which leaves no room for a cache in "
        "the {} that may be used; choose a smaller --chunk or a narrower --format",
        bytes_text(p.weights), bytes_text(p.workspace + p.logits), memory_text(p)));
  if (p.S > p.largest_S)
    throw Error(fmt::format("{} tokens take {}, but only {} may be used; at most {} tokens fit",
                            p.S, bytes_text(p.total()), memory_text(p), p.largest_S));
}

}  // namespace dsa
