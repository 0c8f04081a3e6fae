#include "optimized/cpu/session.hpp"

#include <omp.h>

#include <numeric>

#include "core/checkpoint.hpp"
#include "optimized/cpu/memory.hpp"
#include "optimized/cpu/plan.hpp"

namespace dsa::cpu {
namespace {

int threads_of(const SessionOptions& o) {
  return o.threads > 0 ? o.threads : omp_get_max_threads();
}

/// The most tokens that fit. Error: not one.
Index largest_of(const Config& config, const SessionOptions& o) {
  const Index memory = o.memory > 0 ? o.memory : available_memory();
  const Plan p = plan(config, o.format, 1, o.chunk, threads_of(o), 1, memory);
  require_fits(p);
  return p.largest_S;
}

}  // namespace

Session::Session(const std::filesystem::path& checkpoint, const SessionOptions& o)
    : Session(open_checkpoint(checkpoint), o) {}

Session::Session(const Model& model, const SessionOptions& o)
    : largest_(largest_of(model.config, o)),
      model_(pack(model, o.format, o.cpu, o.mla)),
      workspace_(model.config, o.format, o.chunk, threads_of(o)),
      cache_(model.config, o.format),
      logits_({1, model.config.vocab_size}),
      positions_(static_cast<std::size_t>(o.chunk)),
      begin_(positions_.size()) {}

View<const float, 1> Session::append(std::span<const Token> tokens) {
  require(!tokens.empty(), "no token was given, expected at least one");
  const Index n = static_cast<Index>(tokens.size());
  if (length() + n > largest_)
    throw Error("the sequence would be " + std::to_string(length() + n) +
                " tokens long; the memory that may be used holds " + std::to_string(largest_));
  while (!tokens.empty()) {
    const std::size_t size = std::min(tokens.size(), positions_.size());
    std::iota(positions_.begin(), positions_.end(), length());
    const Feed feed{&cache_, tokens.first(size), std::span(positions_).first(size),
                    std::span(begin_).first(size)};
    forward(model_, workspace_, {&feed, 1}, LogitsOf::last_of_each_feed, logits_);
    tokens = tokens.subspan(size);
  }
  return {logits_.data(), {logits_.size()}};
}

}  // namespace dsa::cpu
