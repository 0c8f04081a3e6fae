// verify/op.hpp — one mathematical operation, as the judge of kernels knows it.
//
// An Op poses Cases: named input arrays in the storage type a kernel would read, and the answer of
// the reference on exactly these inputs, with the error that each element is allowed. Whoever
// computes the outputs (a tier of the CPU backend, a rung of the CUDA backend, a file that another
// program wrote) is judged by the same Case. `dsa-verify ops`, tests and benchmarks walk over
// all_ops(): write one file in verify/ops/ and all of them know it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.hpp"
#include "verify/compare.hpp"

namespace dsa::verify {

/// Numbers in a storage type. Owns its bytes, 64-byte aligned.
struct Array {
  Dtype dtype = Dtype::f32;
  std::vector<Index> shape;
  std::vector<std::byte> bytes;

  Array() = default;
  Array(Dtype, std::vector<Index> shape);
  Index size() const;
  /// As a View; Error where type or rank differ. T: float, bf16, e4m3, std::int32_t, ...
  template <class T, int Rank>
  View<T, Rank> as();
  template <class T, int Rank>
  View<const T, Rank> as() const;
};
using Arrays = std::map<std::string, Array>;

enum class Inputs {
  dyadic,    // every sum is exact in fp32: the only acceptable error is that of the stored output
  gaussian,  // realistic: errors must stay below the derived bound
};

/// Extents by axis letter (core/config.hpp), e.g. {{'T', 5}, {'S', 9}, {'H', 3}, {'D', 16}}.
using Sizes = std::map<char, Index>;

struct Op;

/// One problem with its answer.
struct Case {
  const Op* op = nullptr;
  std::string name;   // unique within the op, fit for a file name: "fp32-T5-S9-H3-D7-gaussian"
  std::string dtype;  // of the kernel: "fp32", "bf16" or "fp8"
  Inputs inputs = Inputs::gaussian;
  Sizes sizes;
  std::map<std::string, double> scalars;  // topk, scale, eps, relu, ...
  Arrays in;
  Arrays out;  // types and shapes of what a kernel writes, poisoned with NaN
  std::map<std::string, std::vector<double>> want, allowed;  // elementwise outputs, by name
  double flops = 0, bytes = 0;                               // that no kernel can do without
};

/// One output against the answer.
struct OutputVerdict {
  std::string output;
  Comparison comparison;
};

struct Op {
  std::string_view name;     // "indexer_topk"
  std::string_view formula;  // one line, printed in reports
  /// Every case of the suite, small and odd shapes first; drawn from `seed`.
  std::function<std::vector<std::function<Case()>>(std::uint64_t seed)> cases;
  /// Decisions are judged as decisions; everything else elementwise against want and allowed.
  std::function<std::vector<OutputVerdict>(const Case&, const Arrays& out)> judge;
};

std::span<const Op> all_ops();

/// Where a kernel was executed: on this machine's processor, on a device, or not at all.
enum class Ran { host, device, compiled };
std::string_view name_of(Ran);  // "host", "device", "compiled"

/// Somebody's kernel for an op.
struct Kernel {
  std::string op, backend, rung, dtype;  // "indexer_topk", "cpu", "avx512", "bf16"
  Ran ran = Ran::host;
  /// Empty: the case is within what the kernel takes; otherwise the reason, one sentence.
  std::function<std::string(const Case&)> refuses;
  /// Fills `out`, which has the types and shapes of case.out.
  std::function<void(const Case&, Arrays& out)> run;
};

/// Every kernel of every backend that this build contains; those that cannot run here have
/// ran == compiled and no `run`.
std::vector<Kernel> all_kernels();

}  // namespace dsa::verify
