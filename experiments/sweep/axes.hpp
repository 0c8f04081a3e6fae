// experiments/sweep/axes.hpp — what a sweep varies, as data: the words of users, the values that
// they may take, and the keys of the configuration that they set.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor.hpp"

namespace dsa::sweep {

/// name -> value, as text: of the axes of a point, or of keys of the configuration.
using Settings = std::map<std::string, std::string>;

/// One axis with its values, in the order given.
struct Axis {
  std::string name;
  std::vector<std::string> values;
};

/// A word that an axis knows, and the settings ("section.key=value") that it stands for.
struct Word {
  std::string_view word;
  std::vector<std::string_view> settings;
};

/// A row of the table: an axis of numbers sets its keys to the value; an axis of words sets what
/// the word stands for.
struct AxisKind {
  enum class Values { integers, reals, words };

  std::string_view name;
  Values values = Values::integers;
  double least = 0, most = 0;
  std::vector<std::string_view> keys;  // of numbers
  std::vector<Word> words;
  std::string_view meaning;
};

const std::vector<AxisKind>& axis_kinds();

/// "topk=16,32,64", "seed=range(0,8)" (8 is not one of them), "seed=range(0,8,2)". A name without a
/// dot is a row of the table; any other is a key of the configuration and takes any value. Errors:
/// an unknown axis, a value that it cannot take, a value given twice.
Axis parse_axis(const std::string& text);

/// The same with name and values apart, as files of sweeps have them.
Axis make_axis(const std::string& name, const std::vector<std::string>& values);

/// The keys of the configuration that one value of an axis sets.
Settings settings_of(const std::string& axis, const std::string& value);

/// One line an axis: its values and its meaning.
std::string list_of_axes();

}  // namespace dsa::sweep
