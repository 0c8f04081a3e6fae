// python/bindings/module.cpp — dsa._core: the compiled half of the package. Its functions take
// exactly what dsa/reference and dsa/testing hand over; users call those.
#include <nanobind/stl/string.h>

#include "core/build_info.hpp"
#include "core/dtype.hpp"
#include "python/bindings/arrays.hpp"

namespace dsa::python {
namespace {

/// Errors of the library, and what the standard library throws, as dsa.Error.
void translate(const std::exception_ptr& thrown, void*) {
  const auto raise = [](const char* sentence) {
    PyErr_SetString(nb::module_::import_("dsa._errors").attr("Error").ptr(), sentence);
  };
  try {
    std::rethrow_exception(thrown);
  } catch (const Error& e) {
    raise(e.what());
  } catch (const std::bad_alloc&) {
    raise("there is not enough memory for arrays of these shapes");
  } catch (const std::length_error&) {
    raise("these shapes have more elements than an array can hold");
  }
}

nb::dict build() {
  const BuildInfo& info = build_info();
  nb::dict facts;
  facts["version"] = info.version;
  facts["commit"] = info.commit;
  facts["compiler"] = info.compiler;
  facts["flags"] = info.flags;
  return facts;
}

using Bytes = nb::ndarray<const std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

/// Bytes of a storage type, "BF16", as doubles (n).
nb::object widened(const std::string& dtype, const Bytes& bytes) {
  const std::optional<Dtype> type = dtype_named(dtype);
  require(type && is_decodable(*type), "there are no numbers of type " + dtype);
  const Index size = bits_of(*type) / 8, n = static_cast<Index>(bytes.size()) / size;
  require(n * size == static_cast<Index>(bytes.size()),
          "the bytes are no whole number of " + dtype + " numbers");
  std::vector<double> values(static_cast<std::size_t>(n));
  decode(*type, reinterpret_cast<const std::byte*>(bytes.data()), n, values.data());
  return as_numpy(std::move(values), {n});
}

/// x, any shape, rounded to nearest to the numbers of a type.
nb::object rounded(const std::string& dtype, const Numbers& x) {
  const std::optional<Dtype> type = dtype_named(dtype);
  require(type.has_value(), "there is no type " + dtype);
  std::vector<double> values(x.data(), x.data() + x.size());
  for (double& value : values) value = round_to(*type, value);
  return as_numpy(std::move(values), shape_of(x));
}

}  // namespace
}  // namespace dsa::python

NB_MODULE(_core, m) {
  using namespace dsa::python;
  nb::register_exception_translator(translate);
  m.def("build", &build);
  m.def("widened", &widened);
  m.def("rounded", &rounded);
  bind_network(m);
  bind_indexer(m);
  bind_attention(m);
  bind_router(m);
  bind_training(m);
  bind_kernels(m);
}
