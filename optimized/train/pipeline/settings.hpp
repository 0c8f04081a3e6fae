// optimized/train/pipeline/settings.hpp — the values of a run's keys, and where each comes from.
//
// A TOML file has the sections [run], [model], [data], [task], [optimizer], [semantics] and one
// [[stage]] a stage, in order. Overrides are `section.key=value`; `stage.key` is that of every
// stage, `stage[1].key` of the second, `stage.NAME.key` of those of that name or kind. Flag names
// of other trainers stand for keys (aliases.hpp), in the file and as overrides.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/json.hpp"
#include "core/tensor.hpp"

namespace dsa::train {

class Settings {
 public:
  struct Value {
    Json value;
    std::string source;  // "default", "needle.toml:12", "command line"
  };

  /// Errors are one sentence with file and line: an unknown key (and the nearest known one), a
  /// value of another type or out of range, no stage.
  static Settings read(const std::filesystem::path& file,
                       const std::vector<std::string>& overrides);
  /// From the file's text; `name` begins the sentences.
  static Settings parse(const std::string& text, const std::string& name,
                        const std::vector<std::string>& overrides);

  std::size_t stages() const { return stages_.size(); }

  const Json& at(const std::string& key) const;                     // "run.seed"
  const Json& at(std::size_t stage, const std::string& key) const;  // (1, "lr")
  Index integer(const std::string& key) const { return at(key).get<Index>(); }
  double number(const std::string& key) const { return at(key).get<double>(); }
  std::string text(const std::string& key) const { return at(key).get<std::string>(); }
  bool flag(const std::string& key) const { return at(key).get<bool>(); }

  /// Every key with type, value, default, source and meaning, a line each.
  std::string print() const;

  /// A configuration that reads back as this one.
  std::string toml() const;

  /// {key: value}, of the keys that change numbers; "stage[0].lr".
  Json that_changes_numbers() const;

 private:
  friend class SettingsReader;
  std::map<std::string, Value> values_;               // sections but the stages
  std::vector<std::map<std::string, Value>> stages_;  // "stage.lr"
};

/// "run.seed: 1, was 0; stage[0].lr: ..." of two that_changes_numbers(); empty where they agree.
std::string difference(const Json& now, const Json& before);

}  // namespace dsa::train
