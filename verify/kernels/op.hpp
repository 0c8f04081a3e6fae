// verify/kernels/op.hpp — one mathematical operation and its cases, for the judge of kernels.
//
// An Op poses Cases: named input arrays in the storage type a kernel would read, and the answer of
// the reference on exactly these inputs, with the error that each element is allowed. All outputs
// (of a tier of the CPU backend, a rung of the CUDA backend, a file that another program wrote) are
// judged by the same Case. `dsa-verify ops`, tests and benchmarks walk over
// all_ops(): write one file in verify/kernels/cases/ and all of them know it. docs/ops.md is the
// table.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.hpp"
#include "verify/measure/compare.hpp"

namespace dsa::verify::kernels {

/// Numbers in a storage type. Owns its bytes, 64-byte aligned, between two guard zones of bytes
/// 0xff: whoever reads beyond the array reads NaN, whoever writes there is found.
class Array {
 public:
  Array() : Array(Dtype::f32, {0}) {}
  Array(Dtype, std::vector<Index> shape);                                  // zeros
  Array(Dtype, std::vector<Index> shape, std::span<const double> values);  // rounded to nearest

  Dtype dtype() const { return dtype_; }
  const std::vector<Index>& shape() const { return shape_; }
  Index size() const;
  std::span<std::byte> bytes() { return {store_.data() + guard, store_.size() - 2 * guard}; }
  std::span<const std::byte> bytes() const {
    return {store_.data() + guard, store_.size() - 2 * guard};
  }
  std::vector<double> values() const;  // widened, exactly

  /// As a View; Error where type or rank differ. T: float, bf16, e4m3, std::int32_t, std::uint8_t.
  /// Bytes (U8) may be viewed as e4m3: rows of optimized/shared/rows.hpp.
  template <class T, int Rank>
  View<T, Rank> as() {
    return {reinterpret_cast<T*>(checked(dtype_of<T>, Rank)), shape_of<Rank>()};
  }
  template <class T, int Rank>
  View<const T, Rank> as() const {
    return {reinterpret_cast<const T*>(const_cast<Array*>(this)->checked(dtype_of<T>, Rank)),
            shape_of<Rank>()};
  }

  /// Every element becomes NaN, in i32 a number that is no subscript of anything.
  void poison();
  bool guards_intact() const;

 private:
  static constexpr std::size_t guard = 256;
  template <class T>
  struct Aligned {
    using value_type = T;
    T* allocate(std::size_t n) {
      return static_cast<T*>(::operator new (n * sizeof(T), std::align_val_t{64}));
    }
    void deallocate(T* p, std::size_t) { ::operator delete (p, std::align_val_t{64}); }
    bool operator==(const Aligned&) const { return true; }
  };
  template <class T>
  static constexpr Dtype dtype_of = std::is_same_v<T, float>          ? Dtype::f32
                                    : std::is_same_v<T, bf16>         ? Dtype::bf16
                                    : std::is_same_v<T, e4m3>         ? Dtype::f8_e4m3
                                    : std::is_same_v<T, std::int32_t> ? Dtype::i32
                                                                      : Dtype::u8;
  template <int Rank>
  Shape<Rank> shape_of() const {
    Shape<Rank> shape{};
    for (int axis = 0; axis < Rank; ++axis)
      shape[static_cast<std::size_t>(axis)] = shape_[static_cast<std::size_t>(axis)];
    return shape;
  }
  std::byte* checked(Dtype, int rank);

  Dtype dtype_;
  std::vector<Index> shape_;
  std::vector<std::byte, Aligned<std::byte>> store_;
};
using Arrays = std::map<std::string, Array>;

enum class Inputs {
  dyadic,       // sums are exact in fp32: the only acceptable error is that of the stored output
  gaussian,     // realistic: errors must stay below the derived bound
  adversarial,  // made to hurt: ties, infinities of size, NaN where nobody may look
};
std::string_view name_of(Inputs);

/// Extents by axis letter (core/config.hpp), e.g. {{'T', 5}, {'S', 9}, {'H', 3}, {'D', 16}}.
using Sizes = std::map<char, Index>;

struct Op;
struct Case;

/// How a kernel sums products of two e4m3 numbers: in fp32, or as the tensor cores of Hopper do,
/// which keep 14 bits (verify/kernels/cases/hopper_fp8.hpp).
enum class Sums { fp32, hopper_fp8 };
std::string_view name_of(Sums);  // "fp32", "hopper-fp8"

/// Numbers by name: of an output, or of the scores that decisions rest on.
using Answers = std::map<std::string, std::vector<double>>;

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
  /// Elementwise outputs, and what decisions are judged by (scores), by name.
  Answers want, allowed;
  /// The allowed errors if Hopper's tensor cores sum the products; null: there are no sums of
  /// products of two e4m3 numbers.
  Answers (*allowed_on_hopper)(const Case&) = nullptr;
  /// Not empty: the kernel must throw an Error whose sentence holds all of these words.
  std::vector<std::string> refusal;
  double flops = 0, bytes = 0;  // that no kernel can do without

  bool is_empty() const;  // every output has no elements: stated by the shapes, nothing to judge
  double scalar(const std::string& key) const { return scalars.at(key); }
  bool flag(const std::string& key) const { return scalar(key) != 0; }
  Index integer(const std::string& key) const { return static_cast<Index>(scalar(key)); }
};

/// One output, or a part of one, against the answer.
struct OutputVerdict {
  std::string output;
  std::vector<Index> shape;  // of what was compared
  Check check;
  std::string why = {};  // of a decision that is wrong: one clause
};

/// A case that is not posed yet: the answer of a large one takes seconds.
struct Pose {
  std::string dtype;
  double flops = 0;  // of the case, or a bound: known before its inputs are drawn
  std::function<Case()> pose;

  /// The case; its flops are those, unless it counted fewer.
  Case operator()() const;
};

/// An input as somebody gives it who has no case of the suite (given.hpp).
struct InputRule {
  /// stored: the storage type of the case's dtype. rows: of optimized/shared/rows.hpp under fp8,
  /// otherwise as stored.
  enum class Kind { stored, rows, fp32, int32, bf16_or_fp32 };
  std::string_view name;
  std::string_view axes;  // "THD": extents by letter; "?": any extent
  Kind kind = Kind::stored;
  bool is_optional = false;  // or only of some dtypes: set_answer says which
};

/// A scalar and the value that it has where none is given.
inline constexpr double must_be_given = std::numeric_limits<double>::quiet_NaN();
struct ScalarRule {
  std::string_view name;
  double value = must_be_given;
  bool is_whole = false;  // a number or a flag, below 2^31
};

struct Op {
  std::string_view name;     // "indexer_topk"
  std::string_view formula;  // one line, printed in reports
  std::vector<std::string> dtypes;
  /// Every case of the suite, small and odd shapes first; drawn from `seed`.
  std::function<std::vector<Pose>(std::uint64_t seed)> cases;
  /// Decisions are judged as decisions; everything else elementwise against want and allowed. An
  /// output may come in another type than case.out's: a narrower one is allowed its own rounding.
  /// Error: an output is missing or has another shape.
  std::function<std::vector<OutputVerdict>(const Case&, const Arrays& out)> judge;
  /// Outputs, answers and bounds of a case that has its dtype, sizes, scalars and inputs: of the
  /// suite, or somebody's. Error: inputs that contradict one another.
  void (*set_answer)(Case&) = nullptr;
  std::vector<InputRule> inputs = {};
  std::vector<ScalarRule> scalars = {};
};

std::span<const Op> all_ops();
const Op& op_named(std::string_view);  // Error: lists the names

/// `allowed` as a kernel with these sums is allowed; the case comes with fp32's.
void allow_sums(Case&, Sums);

/// Every output elementwise: what most ops judge by.
std::vector<OutputVerdict> judge_elementwise(const Case&, const Arrays& out);

/// The numbers of one output; Error where it is missing or has another shape than case.out's.
std::vector<double> values_of(const Case&, const Arrays& out, const std::string& name);

/// Widens `allowed` for rounding to the type. Rounding to nearest is monotone, so the result lies
/// between the rounded ends of the interval.
void allow_storing(Dtype, const std::vector<double>& want, std::vector<double>& allowed);

/// The place of execution: this machine's processor, a device, or none.
enum class Ran { host, device, compiled };
std::string_view name_of(Ran);  // "host", "device", "compiled"

/// An op about to be run: weights packed, inputs uploaded, scratch allocated and poisoned.
struct Launch {
  std::function<void()> run;    // the op itself, as often as one likes: what benchmarks time
  std::function<void()> fetch;  // waits for it and brings the outputs; empty: nothing to do
};

/// A kernel for an op.
struct Kernel {
  std::string op, backend, rung, dtype;  // "indexer_topk", "cpu", "avx512", "bf16"
  Ran ran = Ran::host;
  /// The reason why the kernel does not take the case, one sentence; empty if it does.
  std::function<std::string(const Case&)> refuses;
  /// `case` and `out` (types and shapes of case.out) outlive the Launch. Errors may come here or
  /// from run() and fetch().
  std::function<Launch(const Case&, Arrays& out)> prepare;
  double most_flops = std::numeric_limits<double>::infinity();  // of a case: more take too long
  std::string why = "built, but this machine cannot run it";    // where ran == compiled
};

/// Every kernel of every backend that this build contains; those that cannot run here have
/// ran == compiled and no `prepare`.
std::vector<Kernel> all_kernels();

}  // namespace dsa::verify::kernels
