#include "optimized/train/pipeline/gradient_sum.hpp"

#include "core/threads.hpp"

namespace dsa::train {
namespace {

constexpr Index received_numbers = 16 << 20;  // at once, from all ranks together

template <class Pieces>
std::size_t bytes_in(const Pieces& pieces) {
  std::size_t bytes = 0;
  for (const auto& piece : pieces) bytes += piece.size();
  return bytes;
}

}  // namespace

Index chunk_numbers(int sources) {
  const Index blocks = received_numbers / sources / numbers_of_a_block;
  return std::max<Index>(blocks, 1) * numbers_of_a_block;
}

void GradientSum::begin(const std::vector<Trained>& trained, Index parts) {
  trained_ = &trained;
  parts_ = parts;
  added_ = 0;
  out_.clear();
  for (int k = 0; k < ranks_.size(); ++k) out_.push_back(gradients_of(trained, k, ranks_.size()));
  const auto own = static_cast<std::size_t>(ranks_.rank());
  const bool one_round = parts <= ranks_.size();
  kept_.resize(one_round ? 0 : bytes_in(out_[own]) / sizeof(float));
  sums_.clear();
  target_.clear();
  Index at = 0;
  for (const Trained& one : trained) {
    const Share share = share_of(one.name, one.gradient->size(), ranks_.rank(), ranks_.size());
    sums_.push_back(one_round ? one.gradient->data() + share.begin : kept_.data() + at);
    target_.push_back(ranks::room_of(sums_.back(), share.size()));
    at += share.size();
  }
}

void GradientSum::add_round() {
  const auto sources = static_cast<int>(std::min<Index>(ranks_.size(), parts_ - added_));
  const bool is_there = ranks_.size() == 1 && parts_ == 1;
  std::size_t longest = 0;
  for (const ranks::Out& pieces : out_) longest = std::max(longest, bytes_in(pieces));
  const std::size_t step = static_cast<std::size_t>(chunk_numbers(sources)) * sizeof(float);
  received_.resize(static_cast<std::size_t>(sources));
  for (std::size_t from = 0; from < longest && !is_there; from += step) add_chunk(from, step);
  added_ += sources;
}

/// Bytes [from, from + bytes) of every rank's share.
void GradientSum::add_chunk(std::size_t from, std::size_t bytes) {
  const auto n = static_cast<std::size_t>(ranks_.size());
  const auto sources = static_cast<int>(received_.size());
  std::vector<ranks::Out> out(n);
  std::vector<ranks::In> in(n);
  if (ranks_.rank() < sources)
    for (std::size_t k = 0; k < n; ++k) out[k] = slice(out_[k], from, from + bytes);
  const ranks::In target = slice(target_, from, from + bytes);
  const std::size_t own = bytes_in(target);
  for (std::size_t k = 0; k < received_.size(); ++k) {
    received_[k].resize(own / sizeof(float));
    in[k] = {std::as_writable_bytes(std::span(received_[k]))};
  }
  ranks_.exchange(out, in);
  const bool is_first = added_ == 0;
  Index before = 0;
  for (const std::span<std::byte>& piece : target) {
    float* const sum = reinterpret_cast<float*>(piece.data());
    const auto size = static_cast<Index>(piece.size() / sizeof(float));
    parallel_for((size + numbers_of_a_block - 1) / numbers_of_a_block,
                 sources * numbers_of_a_block / 4, [&](Index block) {
                   const Index begin = block * numbers_of_a_block,
                               end = std::min(begin + numbers_of_a_block, size);
                   for (int k = 0; k < sources; ++k) {
                     const float* const part =
                         received_[static_cast<std::size_t>(k)].data() + before;
                     if (is_first && k == 0)
                       std::copy(part + begin, part + end, sum + begin);
                     else
                       for (Index i = begin; i < end; ++i) sum[i] += part[i];
                   }
                 });
    before += size;
  }
}

}  // namespace dsa::train
