#include "reference/dual.hpp"

namespace dsa {

template <>
void read_rows<reference::Dual>(const Parameter& p, Index begin, Index end, reference::Dual* out) {
  require(p.dtype == Dtype::f64 && !p.loaded_as,
          "tensor " + p.name + " must be held in F64, its tangents behind it, to be read as Dual");
  Parameter tangent = p;
  tangent.data += p.rows() * p.columns() * static_cast<Index>(sizeof(double));
  const Index n = (end - begin) * p.columns();
  std::vector<double> values(static_cast<std::size_t>(n)), tangents(values.size());
  read_rows(p, begin, end, values.data());
  read_rows(tangent, begin, end, tangents.data());
  for (std::size_t i = 0; i < values.size(); ++i) out[i] = {values[i], tangents[i]};
}

template <>
std::vector<reference::Dual> read_all<reference::Dual>(const Parameter& p) {
  std::vector<reference::Dual> values(static_cast<std::size_t>(p.rows() * p.columns()));
  read_rows(p, 0, p.rows(), values.data());
  return values;
}

}  // namespace dsa
