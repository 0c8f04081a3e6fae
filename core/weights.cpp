#include "core/weights.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/check.hpp"

namespace dsa {
namespace {

/// Multiplies one row of an FP8 matrix by the scales of the blocks it crosses.
template <class Real>
void scale_row(const Parameter& p, Index row, Real* out) {
  const Index columns = p.columns(), blocks = (columns + p.block - 1) / p.block;
  const float* scale = p.scale_inv + (p.scale_row + row) / p.block * blocks;
  for (Index b = 0; b < blocks; ++b) {
    const Real s = static_cast<Real>(scale[b]);
    const Index end = std::min(columns, (b + 1) * p.block);
    for (Index c = b * p.block; c < end; ++c) out[c] *= s;
  }
}

template <class Real>
bool all_finite(const Real* x, Index n) {
  // Branch-free, so that it vectorises; the place is looked for only once something is wrong.
  unsigned bad = 0;
  for (Index i = 0; i < n; ++i) bad |= !(std::abs(x[i]) <= std::numeric_limits<Real>::max());
  return bad == 0;
}

template <class Real>
[[noreturn]] void fail_not_finite(const Parameter& p, Index begin, const Real* x, Index n) {
  const Real* bad = std::find_if(x, x + n, [](Real v) { return !std::isfinite(v); });
  const Index at = bad - x, row = begin + at / p.columns(), column = at % p.columns();
  const std::string value = std::isnan(*bad) ? "NaN" : *bad > 0 ? "infinity" : "-infinity";
  const std::string where =
      p.shape.size() < 2 ? "index " + std::to_string(row)
                         : "row " + std::to_string(row) + ", column " + std::to_string(column);
  throw Error("tensor " + p.name + " (" + std::string(name_of(p.dtype)) + ") holds " + value +
              " at " + where + "; every weight must be a finite number");
}

}  // namespace

/// Rounds decoded values to what the emulated run loads them in.
template <class Real>
void round_rows(const Parameter& p, Real* out, Index n) {
  if (*p.loaded_as == Dtype::f32) {  // the common case, and a loop the compiler can vectorise
    for (Index i = 0; i < n; ++i) out[i] = static_cast<Real>(static_cast<float>(out[i]));
  } else {
    for (Index i = 0; i < n; ++i)
      out[i] = static_cast<Real>(round_to(*p.loaded_as, static_cast<double>(out[i])));
  }
}

template <class Real>
void read_rows(const Parameter& p, Index begin, Index end, Real* out) {
  require(p.present(), "tensor " + p.name + " is not in the checkpoint");
  require(0 <= begin && begin <= end && end <= p.rows(),
          "rows " + std::to_string(begin) + " to " + std::to_string(end) + " of tensor " + p.name +
              " were asked for, which has " + std::to_string(p.rows()));
  const Index columns = p.columns(), n = (end - begin) * columns;
  decode(p.dtype, p.data + begin * columns * (bits_of(p.dtype) / 8), n, out);
  if (p.scale_inv != nullptr)
    for (Index r = begin; r < end; ++r) scale_row(p, r, out + (r - begin) * columns);
  if (p.loaded_as) round_rows(p, out, n);
  if (!all_finite(out, n)) fail_not_finite(p, begin, out, n);
}
template void read_rows<float>(const Parameter&, Index, Index, float*);
template void read_rows<double>(const Parameter&, Index, Index, double*);
template void read_rows<long double>(const Parameter&, Index, Index, long double*);

template <class Real>
std::vector<Real> read_all(const Parameter& p) {
  std::vector<Real> values(static_cast<std::size_t>(p.rows() * p.columns()));
  read_rows(p, 0, p.rows(), values.data());
  return values;
}
template std::vector<float> read_all<float>(const Parameter&);
template std::vector<double> read_all<double>(const Parameter&);
template std::vector<long double> read_all<long double>(const Parameter&);

void tie_weights(Weights& w, const Config& c) {
  if (c.tie_word_embeddings) w.lm_head.weight = w.embed_tokens;
  for (Mtp& mtp : w.mtp) {
    if (!mtp.owns_embedding) mtp.embed_tokens = w.embed_tokens;
    if (!mtp.owns_head) mtp.shared_head = w.lm_head;
  }
}

}  // namespace dsa
