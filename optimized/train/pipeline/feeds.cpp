#include "optimized/train/pipeline/feeds.hpp"

#include "core/check.hpp"

namespace dsa::train {

Feeds::Feeds(const Settings& settings, Index vocab_size)
    : settings_(settings),
      vocab_size_(vocab_size),
      tokens_(settings.text("data.tokenizer"), settings.text("data.chat")) {}

Source Feeds::source_of(const std::string& name, double weight, const Stage& stage) {
  const auto colon = name.find(':');
  const std::string kind = name.substr(0, colon);
  const std::string rest = colon == name.npos ? "" : name.substr(colon + 1);
  Source source;
  source.name = name;
  source.weight = weight;
  if (kind == "synthetic") {
    Task& task = source.task;
    task.kind = task_named(rest);
    task.keys = settings_.integer("task.keys");
    task.values = settings_.integer("task.values");
    task.value_length = settings_.integer("task.value_length");
    task.queries = settings_.integer("task.queries");
    task.distractors = settings_.integer("task.distractors");
    task.length = settings_.integer("task.length");
    if (task.length == 0) task.length = stage.seq;
    task.bucket = settings_.integer("task.bucket");
    task.held_out = settings_.integer("task.held_out");
    for (const Index pairs : stage.levels) {
      task.pairs = pairs;
      check(task, vocab_size_, stage.seq);
    }
    return source;
  }
  require(kind == "text" || kind == "jsonl" || kind == "chat" || kind == "bin",
          "stage " + stage.name + ": the source \"" + name +
              "\" is of no known kind; expected synthetic:TASK, text:GLOB, jsonl:GLOB, chat:GLOB "
              "or bin:GLOB");
  auto& corpus = corpora_[name + " " + std::to_string(stage.seq)];
  if (!corpus)
    corpus = open_corpus(rest, {kind, stage.seq, vocab_size_, settings_.integer("data.separator")},
                         tokens_);
  source.corpus = corpus;
  return source;
}

Feed Feeds::feed_of(const Stage& stage) {
  FeedPlan plan;
  for (std::size_t i = 0; i < stage.sources.size(); ++i)
    plan.sources.push_back(source_of(stage.sources[i], stage.weights[i], stage));
  plan.seed = static_cast<std::uint64_t>(settings_.integer("run.seed"));
  plan.seq = stage.seq;
  plan.batch = stage.batch;
  plan.accumulation = stage.recipe.accumulation;
  plan.every_target = stage.every_target;
  plan.held_out = settings_.integer("run.eval_documents");
  plan.levels = stage.levels;
  return Feed(plan);
}

Json Feeds::hashes() const {
  Json hashes = Json::object();
  for (const auto& [name, corpus] : corpora_)
    hashes[name.substr(0, name.rfind(' '))] = corpus->sha256();
  return hashes;
}

}  // namespace dsa::train
