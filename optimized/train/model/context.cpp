#include "optimized/train/context.hpp"

#include <algorithm>
#include <string>

#include "optimized/ranks/collectives.hpp"

namespace dsa::train {
namespace {

using Arrays = std::initializer_list<View<float, 2>>;

/// The rows of `runs`, of one array after the other.
ranks::In pieces_of(Arrays arrays, const std::vector<Run>& runs) {
  ranks::In pieces;
  for (const View<float, 2>& x : arrays)
    for (const Run& run : runs) {
      const View<float, 2> part = rows(x, run.begin, run.end);
      pieces.push_back(ranks::room_of(part.data, part.size()));
    }
  return pieces;
}

ranks::Out as_out(const ranks::In& pieces) { return {pieces.begin(), pieces.end()}; }

}  // namespace

std::vector<Run> runs_of(Index T, int part, int of, RowOrder order) {
  const bool zigzag = order == RowOrder::zigzag && of > 1;
  const Index runs = zigzag ? 2 * of : of;
  require(T >= runs, "a micro-batch of " + std::to_string(T) + " tokens cannot be divided among " +
                         std::to_string(of) + " ranks; lower run.context_ranks");
  std::vector<Run> all;
  const auto add = [&](Index i) {
    const Index at = all.empty() ? 0 : all.back().at + all.back().size();
    all.push_back({T * i / runs, T * (i + 1) / runs, at});
  };
  add(part);
  if (zigzag) add(runs - 1 - part);
  return all;
}

Context::Context(ranks::Communicator& ranks, int n, RowOrder order)
    : ranks_(&ranks),
      first_(ranks.rank() / n * n),
      part_(ranks.rank() % n),
      of_(n),
      order_(order),
      received_(static_cast<std::size_t>(n)) {}

void Context::begin(Index rows) {
  T_ = rows;
  runs_ = runs_of_part(part_);
}

void Context::gather(Arrays arrays) const {
  if (!is_divided()) return;
  const auto n = static_cast<std::size_t>(ranks_->size());
  std::vector<ranks::Out> out(n);
  std::vector<ranks::In> in(n);
  for (int part = 0; part < of_; ++part) {
    if (part == part_) continue;
    const auto rank = static_cast<std::size_t>(first_ + part);
    out[rank] = as_out(pieces_of(arrays, runs_));
    in[rank] = pieces_of(arrays, runs_of_part(part));
  }
  ranks_->exchange(out, in);
}

void Context::add_up(Arrays arrays) {
  if (!is_divided()) return;
  const auto n = static_cast<std::size_t>(ranks_->size());
  const ranks::In mine = pieces_of(arrays, runs_);
  std::size_t numbers = 0;
  for (const auto& piece : mine) numbers += piece.size() / sizeof(float);
  std::vector<ranks::Out> out(n);
  std::vector<ranks::In> in(n);
  for (int part = 0; part < of_; ++part) {
    std::vector<float>& from = received_[static_cast<std::size_t>(part)];
    from.resize(numbers);
    const auto rank = static_cast<std::size_t>(first_ + part);
    out[rank] = as_out(pieces_of(arrays, runs_of_part(part)));
    in[rank] = {std::as_writable_bytes(std::span(from))};
  }
  ranks_->exchange(out, in);
  std::size_t at = 0;
  for (const auto& piece : mine) {
    float* const to = reinterpret_cast<float*>(piece.data());
    const std::size_t size = piece.size() / sizeof(float);
    std::copy_n(received_[0].data() + at, size, to);
    for (std::size_t part = 1; part < received_.size(); ++part)
      for (std::size_t i = 0; i < size; ++i) to[i] += received_[part][at + i];
    at += size;
  }
}

}  // namespace dsa::train
