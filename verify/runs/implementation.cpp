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
    Said said{{}, "fp64"};
    for (const Sequence& sequence : batch)
      said.logits.push_back(in_chunks(altered, sequence, {sequence.size()}));
    return said;
  };
  implementation.run_in_chunks = [altered, small](const Sequence& sequence,
                                                  const std::vector<Index>& ends) {
    const Threads scope(small ? 1 : dsa::threads());
    return Said{{in_chunks(altered, sequence, ends)}, "fp64"};
  };
  implementation.in_process = true;
  implementation.ours = std::move(altered);
  return implementation;
}

Recording answered(const Implementation& implementation, const Recording& golden) {
  struct Traced {
    Trace trace;
    std::vector<StoredTensor> tensors;
  };
  const auto traced = std::make_shared<Traced>();
  Said said = implementation.run_traced ? implementation.run_traced(golden.sequences, traced->trace)
                                        : implementation.run(golden.sequences);
  Recording answer;
  answer.path = implementation.name;
  answer.sequences = golden.sequences;
  answer.dtype = said.dtype;
  answer.logits = std::move(said.logits);
  for (const Trace::Entry& entry : traced->trace.entries()) {
    const Shape<2>& shape = entry.values.shape();
    traced->tensors.push_back({entry.name,
                               Dtype::f64,
                               {shape.begin(), shape.end()},
                               reinterpret_cast<const std::byte*>(entry.values.data())});
  }
  for (const StoredTensor& tensor : traced->tensors) answer.traces[tensor.name] = &tensor;
  answer.memory = traced;
  return answer;
}

}  // namespace dsa::verify
