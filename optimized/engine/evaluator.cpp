#include "optimized/engine/evaluator.hpp"

#include <algorithm>

#include "core/trace_names.hpp"

namespace dsa {
namespace {

/// Tensors whose rows come in pieces, in the order in which their first ones came.
struct Pieces {
  std::vector<std::pair<std::string, Tensor<double, 2>>> tensors;

  /// The whole tensor of that name; a new one holds `fill`.
  View<double, 2> whole(const std::string& name, Shape<2> shape, double fill) {
    auto found = std::find_if(tensors.begin(), tensors.end(),
                              [&](const auto& tensor) { return tensor.first == name; });
    if (found == tensors.end())
      found = tensors.insert(tensors.end(), {name, Tensor<double, 2>(shape, fill)});
    expect_shape(name.c_str(), found->second.view(), shape);
    return found->second;
  }
};

/// Rows [first, first + rows of x) of the unpadded sequence, into their places in the whole.
template <class T, class F>
void put(Pieces& pieces, const std::string& name, View<const T, 2> x, const Sequence& sequence,
         const Unpadded& u, Index first, double padding, F&& value_of) {
  const View<double, 2> all = pieces.whole(name, {sequence.size(), x.shape[1]}, padding);
  for (Index t = 0; t < x.shape[0]; ++t)
    std::transform(x[t].begin(), x[t].end(), all[u.at[static_cast<std::size_t>(first + t)]].begin(),
                   value_of);
}

Tap tap_into(Pieces& pieces, const Sequence& sequence, const Unpadded& u, const Index& first) {
  Tap tap;
  tap.tensor = [&](const std::string& name, View<const float, 2> x) {
    put(pieces, name, x, sequence, u, first, 0, [](float value) { return value; });
  };
  tap.decision = [&](const std::string& name, View<const std::int32_t, 2> chosen) {
    const bool keys = is_selection(name);
    put(pieces, name, chosen, sequence, u, first, -1, [&](std::int32_t id) {
      return static_cast<double>(keys && id >= 0 ? u.at[static_cast<std::size_t>(id)] : id);
    });
  };
  return tap;
}

/// Where passes end, as rows of the cache: at the asked ends, and after every full pass.
std::vector<Index> ends_of_passes(const Unpadded& u, const std::vector<Index>& ends,
                                  Index longest) {
  std::vector<Index> passes;
  const auto cut = [&](Index end) {
    Index begin = passes.empty() ? 0 : passes.back();
    while (begin < end) passes.push_back(begin = std::min(end, begin + longest));
  };
  for (const Index end : ends) cut(std::lower_bound(u.at.begin(), u.at.end(), end) - u.at.begin());
  cut(static_cast<Index>(u.at.size()));
  return passes;
}

}  // namespace

Unpadded unpadded(const Sequence& s) {
  Unpadded u;
  std::vector<Index> seen;  // documents
  for (std::size_t i = 0; i < s.tokens.size(); ++i) {
    const Index document = s.documents[i];
    if (document < 0) continue;
    const auto row = static_cast<std::int32_t>(u.tokens.size());
    const bool is_first = seen.empty() || seen.back() != document;
    if (is_first) {
      require(std::find(seen.begin(), seen.end(), document) == seen.end(),
              "the tokens of document " + std::to_string(document) +
                  " do not lie next to each other; give the documents one after the other");
      seen.push_back(document);
    }
    u.tokens.push_back(s.tokens[i]);
    u.positions.push_back(s.positions[i]);
    u.begin.push_back(is_first ? row : u.begin.back());
    u.at.push_back(static_cast<Index>(i));
  }
  return u;
}

Evaluator::Evaluator(std::unique_ptr<Engine> engine)
    : engine_(std::move(engine)),
      cache_(engine_->new_cache()),
      logits_({engine_->pass_tokens(), engine_->config().vocab_size}) {}

void Evaluator::run(const Sequence& sequence, const std::vector<Index>& ends,
                    const std::function<void(Index, View<const float, 1>)>& row, Trace* trace) {
  const Unpadded u = unpadded(sequence);
  Index first = 0;
  Pieces pieces;
  const Tap tap = trace == nullptr ? Tap{} : tap_into(pieces, sequence, u, first);
  cache_->clear();
  for (const Index end : ends_of_passes(u, ends, engine_->pass_tokens())) {
    const auto part = [&](const auto& x) {
      return std::span(x).subspan(static_cast<std::size_t>(first),
                                  static_cast<std::size_t>(end - first));
    };
    const Feed feed{cache_.get(), part(u.tokens), part(u.positions), part(u.begin)};
    const View<float, 2> logits{logits_.data(), {feed.size(), engine_->config().vocab_size}};
    engine_->forward({&feed, 1}, LogitsOf::every_token, logits, tap);
    for (Index t = 0; t < feed.size(); ++t)
      row(u.at[static_cast<std::size_t>(first + t)], logits[t]);
    first = end;
  }
  for (auto& [name, tensor] : pieces.tensors) trace->put(name, std::move(tensor));
}

}  // namespace dsa
