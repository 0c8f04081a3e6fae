#include "verify/runs/implementation.hpp"

#include <algorithm>

#include "core/threads.hpp"
#include "reference/model/forward.hpp"

namespace dsa::verify {
namespace {

Sequence part(const Sequence& s, Index begin, Index end) {
  const auto cut = [&](const auto& x) {
    return std::remove_cvref_t<decltype(x)>(x.begin() + begin, x.begin() + end);
  };
  return {cut(s.tokens), cut(s.positions), cut(s.documents)};
}

Tensor<double, 2> in_chunks(const Variant& ours, const Sequence& sequence,
                            const std::vector<Index>& ends) {
  const Index V = ours.model.config.vocab_size;
  const reference::Pass<double> pass{ours.model, ours.ops};
  reference::Cache<double> cache;
  Tensor<double, 2> all({sequence.size(), V});
  Index begin = 0;
  for (const Index end : ends) {
    const auto logits = reference::forward<double>(pass, part(sequence, begin, end), cache);
    std::copy(logits.begin(), logits.end(), all.data() + begin * V);
    begin = end;
  }
  return all;
}

}  // namespace

Implementation reference_implementation(Variant altered, bool small) {
  Implementation implementation;
  implementation.name = "reference";
  implementation.run = [altered, small](const std::vector<Sequence>& batch) {
    const Threads scope(small ? 1 : dsa::threads());
    Recording output{.dtype = "fp64"};
    for (const Sequence& sequence : batch)
      output.logits.push_back(in_chunks(altered, sequence, {sequence.size()}));
    return output;
  };
  implementation.run_in_chunks = [altered, small](const Sequence& sequence,
                                                  const std::vector<Index>& ends) {
    const Threads scope(small ? 1 : dsa::threads());
    return Recording{.dtype = "fp64", .logits = {in_chunks(altered, sequence, ends)}};
  };
  implementation.in_process = true;
  implementation.ours = std::move(altered);
  return implementation;
}

Recording answered(const Implementation& implementation, const Recording& golden) {
  Recording output = implementation.run_traced ? implementation.run_traced(golden.sequences)
                                               : implementation.run(golden.sequences);
  output.path = implementation.name;
  output.sequences = golden.sequences;
  return output;
}

}  // namespace dsa::verify
