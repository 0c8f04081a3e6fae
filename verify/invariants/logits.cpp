#include <fmt/format.h>

#include <algorithm>

#include "core/random.hpp"
#include "verify/invariants/parts.hpp"

namespace dsa::verify {
namespace {

constexpr Index padding = 7;

/// Where to cut. A call of a command starts a process and loads a model: it is asked for two.
std::vector<Index> places_to_cut(const Asked& asked) {
  const Index T = asked.length();
  if (asked.implementation.in_process) return points(T, asked.topk(), 47);
  const Index a = std::min(asked.topk() + 1, T - 1), b = std::max<Index>(1, 3 * T / 4);
  return a == b ? std::vector{a} : std::vector{std::min(a, b), std::max(a, b)};
}

/// Three and four chunks of unequal sizes, by their ends: cut within the first top-k keys, at
/// them, beyond them, at twice as many and beyond those; of a model without an indexer, by thirds.
std::vector<std::vector<Index>> several_chunks(const Asked& asked) {
  const Index T = asked.length(), K = asked.topk() > 0 ? asked.topk() : std::max<Index>(1, T / 3);
  std::vector<std::vector<Index>> all;
  for (const std::vector<Index>& cuts :
       std::vector<std::vector<Index>>{{K / 2 + 1, K + K / 2},            // inside, and beyond
                                       {K / 3, K, 2 * K},                 // inside, and at both
                                       {K / 4 + 1, K + 1, 2 * K + 1}}) {  // inside, just beyond
    std::vector<Index> ends;
    for (const Index cut : cuts)
      if (cut > (ends.empty() ? 0 : ends.back()) && cut < T) ends.push_back(cut);
    ends.push_back(T);
    if (ends.size() > 2 && std::find(all.begin(), all.end(), ends) == all.end())
      all.push_back(ends);
  }
  return all;
}

Tensor<double, 2> one(const Asked& asked, const Sequence& sequence) {
  return std::move(asked.implementation.run({sequence}).logits.front());
}

Sequence first(const Sequence& s, Index n) {
  return plain_sequence({s.tokens.begin(), s.tokens.begin() + n});
}

Sequence changed_at(const Asked& asked, Index t) {
  Sequence changed = asked.main;
  const auto others = static_cast<std::uint64_t>(asked.config.vocab_size - 1);
  Token& token = changed.tokens[static_cast<std::size_t>(t)];
  const std::uint64_t by = 1 + random_bits(asked.seed + 1, static_cast<std::uint64_t>(t)) % others;
  token = static_cast<Token>((static_cast<std::uint64_t>(token) + by) % (others + 1));
  return changed;
}

Invariant concluded(Invariant invariant, const RowComparison& comparison) {
  comparison.conclude(invariant);
  return invariant;
}

/// Both that a changed token leaves the past as it was, and that it is read at all.
std::vector<Invariant> causality(const Asked& asked, Noise& noise) {
  const std::vector<Index> at =
      points(asked.length(), asked.topk(), asked.implementation.in_process ? 47 : 15);
  Invariant causal{"causality",
                   "a later token moves nothing before it: no query reads a key of its future"};
  Invariant read{"tokens are read", "another token gives other logits at its own position"};
  causal.note = read.note = told(at, asked.length(), "tokens changed");
  RowComparison comparison(noise, asked.is_ours());
  std::vector<Sequence> batch = {asked.main};
  for (const Index t : at) batch.push_back(changed_at(asked, t));
  std::vector<Tensor<double, 2>> all;
  if (!asked.is_ours()) all = asked.implementation.run(batch).logits;  // one call: the same kernels
  for (std::size_t i = 0; i < at.size(); ++i) {
    const Index t = at[i];
    const Tensor<double, 2> mine = asked.is_ours() ? one(asked, batch[i + 1]) : all[i + 1];
    const Tensor<double, 2>& main = asked.is_ours() ? asked.logits : all[0];
    comparison.add(main, mine, {t}, fmt::format("token {} changed", t));
    if (asked.progress)
      asked.progress("causality", static_cast<int>(i) + 1, static_cast<int>(at.size()));
    ++read.n;
    if (!std::equal(main.view()[t].begin(), main.view()[t].end(), mine.view()[t].begin())) continue;
    ++read.value;
    read.at = "row " + std::to_string(t);
  }
  read.from = "exact: a count of positions where nothing moved";
  read.held = read.value == 0 ? Held::pass : Held::fail;
  return {concluded(causal, comparison), read};
}

Invariant repeatable(const Asked& asked, Noise& noise) {
  RowComparison comparison(noise, asked.is_ours());
  comparison.add(asked.logits, one(asked, asked.main), {asked.length()}, "asked again");
  return concluded({"repeatable", "the same tokens asked for again give the same logits"},
                   comparison);
}

Invariant batched(const Asked& asked, Noise& noise) {
  Invariant invariant{"batched = alone", "the other sequences of a batch change nothing"};
  if (asked.is_ours()) {
    invariant.note = "this backend runs one sequence after the other";
    return invariant;
  }
  RowComparison comparison(noise, false);
  const Recording output =
      asked.implementation.run({changed_at(asked, 0), asked.main, changed_at(asked, 1)});
  comparison.add(asked.logits, output.logits[1], {asked.length()}, "second of three");
  return concluded(invariant, comparison);
}

Invariant prefixes(const Asked& asked, Noise& noise) {
  const Index T = asked.length();
  RowComparison comparison(noise, asked.is_ours());
  const std::vector<Index> lengths = places_to_cut(asked);
  Invariant invariant{"prefix", "the first n tokens alone give the first n rows of the whole"};
  invariant.note = told(lengths, T, "lengths");
  for (const Index n : lengths)
    comparison.add(asked.logits, one(asked, first(asked.main, n)), {n},
                   fmt::format("first {} tokens alone", n));
  return concluded(invariant, comparison);
}

/// An engine may take another path for texts that the indexer need not choose from.
Invariant short_texts(const Asked& asked, Noise& noise) {
  Invariant invariant{"short = long",
                      "a text of at most index_topk tokens alone, where nothing is to be chosen, "
                      "gives the rows with which a longer text begins"};
  const Index K = asked.topk(), T = asked.length();
  if (K == 0 || T <= K) {
    invariant.note = K == 0 ? "the model has no indexer" : "no text is longer than index_topk";
    return invariant;
  }
  RowComparison comparison(noise, asked.is_ours());
  std::vector<Index> lengths;
  for (const Index n : {K - 1, K})
    if (n > 0) lengths.push_back(n);
  invariant.note = fmt::format("of {} tokens, {} alone", T, fmt::join(lengths, " and "));
  for (const Index n : lengths)
    comparison.add(asked.logits, one(asked, first(asked.main, n)), {n},
                   fmt::format("first {} tokens alone", n));
  return concluded(invariant, comparison);
}

Invariant chunked_more(const Asked& asked, Noise& noise, Invariant invariant) {
  const std::vector<std::vector<Index>> all = several_chunks(asked);
  if (all.empty()) {
    invariant.note = "the sequence is too short for three parts";
    return invariant;
  }
  RowComparison comparison(noise, asked.is_ours());
  for (const std::vector<Index>& ends : all) {
    const std::string told = fmt::format("{}", fmt::join(ends, ", "));
    invariant.note += (invariant.note.empty() ? "chunks that end at " : "; at ") + told;
    comparison.add(asked.logits, asked.implementation.run_in_chunks(asked.main, ends).logits[0],
                   {asked.length()}, "chunks that end at " + told);
  }
  return concluded(invariant, comparison);
}

std::vector<Invariant> chunks(const Asked& asked, Noise& noise) {
  const Index T = asked.length();
  Invariant chunked{"prefill = chunked", "a prefill cut in two gives the rows of one in one go"};
  Invariant more{"prefill = several chunks",
                 "a prefill cut into three or four unequal parts gives the rows of an uncut one"};
  Invariant decoded{"prefill = decode", "token by token through the cache gives the same rows"};
  if (!asked.implementation.run_in_chunks) {
    for (Invariant* i : {&chunked, &more, &decoded}) {
      i->held = Held::not_possible;
      i->note = "the command has no {chunks} (docs/invariants.md)";
    }
    return {chunked, more, decoded};
  }
  const std::vector<Index> cuts = places_to_cut(asked);
  chunked.note = told(cuts, T, "places to cut");
  RowComparison in_two(noise, asked.is_ours()), one_by_one(noise, asked.is_ours());
  for (const Index cut : cuts)
    in_two.add(asked.logits, asked.implementation.run_in_chunks(asked.main, {cut, T}).logits[0],
               {T}, fmt::format("cut at {}", cut));
  std::vector<Index> steps;
  for (Index t = 1; t <= T; ++t) steps.push_back(t);
  one_by_one.add(asked.logits, asked.implementation.run_in_chunks(asked.main, steps).logits[0], {T},
                 "token by token");
  return {concluded(chunked, in_two), chunked_more(asked, noise, more),
          concluded(decoded, one_by_one)};
}

/// `padding` zeros on the left, or on the right.
Sequence padded(const Sequence& s, bool left) {
  std::vector<Token> tokens = s.tokens;
  std::vector<Index> mask(tokens.size(), 1);
  tokens.insert(left ? tokens.begin() : tokens.end(), padding, 0);
  mask.insert(left ? mask.begin() : mask.end(), padding, 0);
  return masked_sequence(std::move(tokens), mask);
}

std::vector<Invariant> paddings(const Asked& asked, Noise& noise) {
  const Index T = asked.length();
  const Recording output =
      asked.implementation.run({padded(asked.main, true), padded(asked.main, false)});
  RowComparison left(noise, asked.is_ours()), right(noise, asked.is_ours());
  left.add(asked.logits, output.logits[0], {T, 0, padding, 0}, "padded on the left");
  right.add(asked.logits, output.logits[1], {T}, "padded on the right");
  const std::string note = fmt::format("{} tokens of padding, masked", padding);
  Invariant l{"padded on the left = unpadded", "padding is not seen and has no position"}, r = l;
  r.name = "padded on the right = unpadded";
  l.note = r.note = note;
  return {concluded(l, left), concluded(r, right)};
}

Invariant packed(const Asked& asked, Noise& noise) {
  Invariant invariant{"packed = separate", "documents of one sequence do not see each other"};
  if (!asked.implementation.in_process) {
    invariant.held = Held::not_possible;
    invariant.note = "tokens.safetensors has no documents";
    return invariant;
  }
  const Index T = asked.length(), before = std::max<Index>(1, T / 3);
  const Sequence ahead = first(changed_at(asked, 0), before), behind = first(asked.main, 3 % T + 1);
  const Sequence all = packed_sequence({ahead.tokens, asked.main.tokens, behind.tokens});
  RowComparison comparison(noise, asked.is_ours());
  comparison.add(asked.logits, one(asked, all), {T, 0, before, 0}, "second of three documents");
  const auto cut = asked.implementation.run_in_chunks(all, {before + T / 2, all.size()});
  comparison.add(asked.logits, cut.logits[0], {T, 0, before, 0}, "packed, and cut in two");
  invariant.note = fmt::format("documents of {}, {} and {} tokens", before, T, behind.size());
  return concluded(invariant, comparison);
}

}  // namespace

std::vector<Invariant> logits_invariants(const Asked& asked, Noise& noise) {
  std::vector<Invariant> all = causality(asked, noise);
  const auto add = [&](std::vector<Invariant> more) {
    all.insert(all.end(), more.begin(), more.end());
  };
  add({repeatable(asked, noise), batched(asked, noise), prefixes(asked, noise),
       short_texts(asked, noise)});
  add(chunks(asked, noise));
  add({packed(asked, noise)});
  add(paddings(asked, noise));
  return all;
}

}  // namespace dsa::verify
