#include "optimized/train/data/synthetic.hpp"

#include <algorithm>
#include <numeric>

#include "core/check.hpp"
#include "core/random.hpp"

namespace dsa::train {
namespace {

constexpr Token ask_for_copy = 1;
constexpr Token first_filler = 'a', fillers = 26;
constexpr Token first_key = 128;

/// Most fillers before a question: a random few, and those that change the class of its distance.
Index longest_shift(const Task& task) { return task.bucket * task.held_out; }

bool is_scattered(const Task& task) {
  return task.kind == Task::Kind::needle || task.kind == Task::Kind::lookup;
}

/// Tokens of a pair before its question.
Index tokens_of_pair(const Task& task) {
  return task.value_length + (task.kind == Task::Kind::lookup ? 0 : 1);
}

/// Random numbers of one document, one after the other.
class Dice {
 public:
  Dice(std::uint64_t seed, std::uint64_t i) : seed_(random_bits(seed, i)) {}
  Index below(Index n) {
    return static_cast<Index>(random_bits(seed_, next_++) % static_cast<std::uint64_t>(n));
  }
  /// The first `count` of n things in a random order.
  std::vector<Index> some_of(Index n, Index count) {
    std::vector<Index> all(static_cast<std::size_t>(n));
    std::iota(all.begin(), all.end(), Index{0});
    for (Index i = 0; i < count; ++i)
      std::swap(all[static_cast<std::size_t>(i)], all[static_cast<std::size_t>(i + below(n - i))]);
    all.resize(static_cast<std::size_t>(count));
    return all;
  }

 private:
  std::uint64_t seed_, next_ = 0;
};

/// A pair as it stands in the document.
struct Pair {
  Token key = 0;
  std::vector<Token> values;
  Index at = 0;  // of its first value
};

void put_filler(Document& document, Dice& dice) {
  document.put(first_filler + dice.below(fillers));
}

std::vector<Pair> draw_pairs(const Task& task, Dice& dice) {
  std::vector<Pair> pairs;
  const Index count = task.pairs + (is_scattered(task) ? task.distractors : 0);
  const bool has_class = task.kind == Task::Kind::lookup;
  for (const Index key : dice.some_of(task.keys, count)) {
    Pair pair{first_key + key, {}, 0};
    for (Index v = 0; v < task.value_length; ++v)
      pair.values.push_back(first_key + task.keys +
                            (has_class ? key + task.keys * dice.below(task.values / task.keys)
                                       : dice.below(task.values)));
    pairs.push_back(std::move(pair));
  }
  return pairs;
}

void put_pair(Document& document, Pair& pair, const Task& task) {
  if (task.kind != Task::Kind::lookup) document.put(pair.key);
  pair.at = document.size();
  for (const Token value : pair.values) document.put(value);
}

/// The pairs in a random order; scattered ones have the room that a document of full length leaves,
/// divided at random, before each.
void put_pairs(Document& document, std::vector<Pair>& pairs, const Task& task, Index questions,
               Dice& dice) {
  const Index count = static_cast<Index>(pairs.size()), question = 1 + task.value_length;
  std::vector<Index> gaps(pairs.size(), 0);
  if (is_scattered(task))
    for (Index room = task.length - count * tokens_of_pair(task) -
                      questions * (question + longest_shift(task));
         room > 0; --room)
      ++gaps[static_cast<std::size_t>(dice.below(count))];
  const std::vector<Index> order = dice.some_of(count, count);
  for (Index i = 0; i < count; ++i) {
    for (Index g = gaps[static_cast<std::size_t>(i)]; g > 0; --g) put_filler(document, dice);
    put_pair(document, pairs[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])], task);
  }
}

/// Which pairs are asked for: each once, in a random order, then any.
std::vector<Index> draw_questions(const Task& task, Index questions, Dice& dice) {
  std::vector<Index> asked = dice.some_of(task.pairs, task.pairs);
  while (static_cast<Index>(asked.size()) < questions) asked.push_back(dice.below(task.pairs));
  asked.resize(static_cast<std::size_t>(questions));
  return asked;
}

void put_question(Document& document, const Pair& pair, const Task& task, bool evaluation,
                  Dice& dice) {
  const Index gap = dice.below(task.bucket);
  for (Index g = 0; g < gap; ++g) put_filler(document, dice);
  while (is_held_out(task, document.size() + 1 - pair.at) != evaluation) put_filler(document, dice);
  document.put(pair.key);
  for (const Token value : pair.values) document.put(value, true);
}

Document make_copy(const Task& task, bool evaluation, Dice& dice) {
  Document document;
  const Index before = dice.below(2 * task.bucket);
  for (Index i = 0; i < before; ++i) put_filler(document, dice);
  const Index begin = document.size();
  for (Index i = 0; i < task.pairs; ++i)
    document.put(first_key + task.keys + dice.below(task.values));
  const Index gap = dice.below(task.bucket);
  for (Index i = 0; i < gap; ++i) put_filler(document, dice);
  while (is_held_out(task, document.size() + 1 - begin) != evaluation) put_filler(document, dice);
  document.put(ask_for_copy);
  for (Index i = 0; i < task.pairs; ++i)
    document.put(document.tokens[static_cast<std::size_t>(begin + i)], true);
  return document;
}

}  // namespace

Task::Kind task_named(const std::string& name) {
  if (name == "copy") return Task::Kind::copy;
  if (name == "recall") return Task::Kind::recall;
  if (name == "needle") return Task::Kind::needle;
  if (name == "lookup") return Task::Kind::lookup;
  throw Error("there is no synthetic task \"" + name +
              "\"; expected copy, recall, needle or lookup");
}

bool is_held_out(const Task& task, Index distance) {
  return (distance / task.bucket) % task.held_out == task.held_out - 1;
}

Index longest(const Task& task) {
  if (task.kind == Task::Kind::copy)
    return 2 * task.pairs + 2 * task.bucket + longest_shift(task) + 1;
  if (is_scattered(task)) return task.length;
  const Index questions = std::max(task.pairs, task.queries);
  return (task.pairs + questions) * (1 + task.value_length) + questions * longest_shift(task);
}

void check(const Task& task, Index vocab_size, Index most) {
  const auto text = [](Index n) { return std::to_string(n); };
  const Index last = first_key + task.keys + task.values;
  require(last <= vocab_size, "the synthetic tasks need " + text(last) +
                                  " tokens (128, task.keys, task.values), but vocab_size is " +
                                  text(vocab_size));
  require(task.kind != Task::Kind::lookup || task.values >= 2 * task.keys,
          "a lookup needs two values or more for every key, but task.values is " + text(task.values) +
              " and task.keys is " + text(task.keys));
  const Index pairs = task.pairs + (is_scattered(task) ? task.distractors : 0);
  require(task.kind == Task::Kind::copy || pairs <= task.keys,
          "a document of " + text(pairs) + " pairs needs as many keys, but task.keys is " +
              text(task.keys));
  const Index questions = std::max(task.pairs, task.queries);
  const Index least =
      pairs * tokens_of_pair(task) + questions * (1 + task.value_length + longest_shift(task));
  require(!is_scattered(task) || least <= task.length,
          "a document of " + text(pairs) + " pairs and " + text(questions) +
              " questions may take " + text(least) + " tokens, but task.length is " +
              text(task.length));
  require(longest(task) <= most, "a document of " + text(task.pairs) +
                                     (task.kind == Task::Kind::copy ? " copied tokens" : " pairs") +
                                     " may take " + text(longest(task)) +
                                     " tokens, but a row has " + text(most) +
                                     "; lower stage.levels or task.bucket, or raise data.seq");
}

Document make_document(const Task& task, std::uint64_t seed, std::uint64_t i, bool evaluation) {
  Dice dice(seed, i);
  if (task.kind == Task::Kind::copy) return make_copy(task, evaluation, dice);
  const Index questions = evaluation ? task.pairs : std::max(task.pairs, task.queries);
  std::vector<Pair> pairs = draw_pairs(task, dice);
  Document document;
  put_pairs(document, pairs, task, questions, dice);
  for (const Index asked : draw_questions(task, questions, dice))
    put_question(document, pairs[static_cast<std::size_t>(asked)], task, evaluation, dice);
  return document;
}

}  // namespace dsa::train
