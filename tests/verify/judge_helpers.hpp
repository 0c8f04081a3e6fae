// tests/verify/judge_helpers.hpp — goldens taken apart, spoiled, and written again.
#pragma once

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "core/checkpoint.hpp"
#include "core/safetensors.hpp"
#include "tests/models.hpp"
#include "verify/judge/judge.hpp"

namespace dsa::test {

/// One tensor of a file, widened.
struct Column {
  std::string name;
  Dtype dtype = Dtype::f64;
  std::vector<Index> shape;
  std::vector<double> values;

  /// Row t where the last axis is the row.
  double* row(Index t) { return values.data() + t * shape.back(); }
  double& operator()(Index t, Index c) { return row(t)[c]; }
  Index rows() const { return static_cast<Index>(values.size()) / shape.back(); }
};

/// A safetensors file in memory, to be changed at will.
struct TensorFile {
  std::vector<Column> columns;

  static TensorFile read(const std::filesystem::path& path) {
    TensorFile result;
    const SafetensorsFile file = SafetensorsFile::open(path);
    for (const StoredTensor& tensor : file.tensors()) {
      Column column{tensor.name, tensor.dtype, tensor.shape, {}};
      column.values.resize(static_cast<std::size_t>(tensor.size()));
      decode(tensor.dtype, tensor.data, tensor.size(), column.values.data());
      result.columns.push_back(std::move(column));
    }
    return result;
  }

  Column& at(const std::string& name) {
    for (Column& column : columns)
      if (column.name == name) return column;
    throw Error("the test's file has no tensor " + name);
  }

  void erase_all_but(const std::vector<std::string>& names) {
    std::erase_if(columns, [&](const Column& column) {
      return std::find(names.begin(), names.end(), column.name) == names.end();
    });
  }

  /// The first B sequences and T tokens of tokens and logits: what a causal model says of a prefix.
  void cut(Index B, Index T) {
    for (Column& column : columns) {
      const Index S = column.shape[1],
                  width = static_cast<Index>(column.values.size()) / column.shape[0] / S;
      std::vector<double> kept;
      for (Index b = 0; b < B; ++b) {
        const auto begin = column.values.begin() + b * S * width;
        kept.insert(kept.end(), begin, begin + T * width);
      }
      column.shape[0] = B, column.shape[1] = T;
      column.values = std::move(kept);
    }
  }

  void write(const std::filesystem::path& path) const {
    std::vector<SafetensorsWriter::Declaration> declared;
    for (const Column& column : columns)
      declared.push_back({column.name, column.dtype, column.shape});
    SafetensorsWriter writer(path, declared);
    for (const Column& column : columns) {
      if (column.dtype != Dtype::i64 && column.dtype != Dtype::i32) {
        writer.append_values(column.values);
      } else if (column.dtype == Dtype::i32) {
        const std::vector<std::int32_t> ids(column.values.begin(), column.values.end());
        writer.append(std::as_bytes(std::span(ids)));
      } else {
        const std::vector<std::int64_t> ids(column.values.begin(), column.values.end());
        writer.append(std::as_bytes(std::span(ids)));
      }
    }
    writer.commit();
  }
};

/// tokens and one logits column of a sample.
inline TensorFile golden_column(const std::string& name, const std::string& dtype) {
  TensorFile file = TensorFile::read(sample(name) / "logits.safetensors");
  file.erase_all_but({"tokens", "logits." + dtype});
  return file;
}

/// Few runs, one precision: a judgement that takes a fraction of a second.
inline verify::JudgeOptions quick(reference::Precision precision, int runs = 4) {
  verify::JudgeOptions options;
  options.runs = runs;
  options.precision = precision;
  return options;
}

/// What an implementation with this precision's roundings would print, a draw a seed.
inline Tensor<double, 2> logits_of_run(const Model& loaded, const Sequence& sequence,
                                       reference::Precision precision, std::uint64_t seed) {
  const auto ops =
      reference::ops_of(precision, {reference::Rounding::Mode::random, seed}, loaded.config);
  const reference::Pass<double> pass{loaded, ops};
  reference::Cache<double> cache;
  return reference::forward(pass, sequence, cache);
}

}  // namespace dsa::test
