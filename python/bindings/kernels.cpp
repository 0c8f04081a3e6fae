// Cases, answers, bounds and verdicts of verify/kernels: what `dsa-verify ops` judges by.
#include <nanobind/stl/function.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cmath>
#include <cstring>

#include "python/bindings/arrays.hpp"
#include "verify/kernels/given.hpp"
#include "verify/measure/selection.hpp"

namespace dsa::python {
namespace {

namespace kernels = verify::kernels;

using Bytes = nb::ndarray<const std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

const char* name_of(kernels::InputRule::Kind kind) {
  using Kind = kernels::InputRule::Kind;
  switch (kind) {
    case Kind::fp32:
      return "fp32";
    case Kind::int32:
      return "int32";
    case Kind::rows:
      return "rows";
    case Kind::bf16_or_fp32:
      return "bf16 or fp32";
    case Kind::stored:
      break;
  }
  return "stored";
}

nb::dict as_dict(const kernels::Op& op) {
  nb::list inputs, scalars, dtypes;
  for (const kernels::InputRule& rule : op.inputs)
    inputs.append(nb::make_tuple(std::string(rule.name), std::string(rule.axes), name_of(rule.kind),
                                 rule.is_optional));
  for (const kernels::ScalarRule& rule : op.scalars)
    scalars.append(nb::make_tuple(std::string(rule.name), rule.value));
  for (const std::string& dtype : op.dtypes) dtypes.append(dtype);
  nb::dict facts;
  facts["name"] = std::string(op.name), facts["formula"] = std::string(op.formula);
  facts["dtypes"] = dtypes, facts["inputs"] = inputs, facts["scalars"] = scalars;
  facts["has_bounds"] = op.set_answer != nullptr;
  return facts;
}

nb::list ops() {
  nb::list all;
  for (const kernels::Op& op : kernels::all_ops()) all.append(as_dict(op));
  return all;
}

kernels::Case given(const std::string& op, const std::string& dtype,
                    const std::map<std::string, Numbers>& inputs,
                    const std::map<std::string, double>& scalars) {
  std::map<std::string, kernels::GivenArray> arrays;
  for (const auto& [name, x] : inputs)
    arrays[name] = {shape_of(x), std::vector<double>(x.data(), x.data() + x.size())};
  return kernels::given_case(kernels::op_named(op), dtype, arrays, scalars);
}

std::vector<kernels::Pose> suite(const std::string& op, std::uint64_t seed) {
  return kernels::op_named(op).cases(seed);
}

/// {name: (dtype, numbers, shape)}, for the types that hold numbers.
nb::dict as_dict(const kernels::Arrays& arrays, bool with_numbers) {
  nb::dict all;
  for (const auto& [name, array] : arrays) {
    nb::list shape;
    for (const Index extent : array.shape()) shape.append(extent);
    const nb::object numbers = with_numbers ? as_numpy(array.values(), array.shape()) : nb::none();
    all[name.c_str()] =
        nb::make_tuple(std::string(dsa::name_of(array.dtype())), numbers, nb::tuple(shape));
  }
  return all;
}

/// {name: numbers}, in the shape of the output of that name, or flat.
nb::dict as_dict(const kernels::Case& c, const kernels::Answers& answers) {
  nb::dict all;
  for (const auto& [name, values] : answers) {
    const auto out = c.out.find(name);
    const bool shaped = out != c.out.end() && out->second.size() == std::ssize(values);
    all[name.c_str()] =
        as_numpy(values, shaped ? out->second.shape() : std::vector<Index>{std::ssize(values)});
  }
  return all;
}

nb::dict as_dict(const kernels::OutputVerdict& verdict) {
  const verify::Check& check = verdict.check;
  nb::list at;
  if (check.at.channel >= 0) {
    Index left = check.at.channel;
    std::vector<Index> place;
    for (auto extent = verdict.shape.rbegin(); extent != verdict.shape.rend(); ++extent) {
      place.insert(place.begin(), left % *extent);
      left /= *extent;
    }
    for (const Index i : place) at.append(i);
  }
  nb::dict facts;
  facts["output"] = verdict.output, facts["ok"] = check.ok(), facts["why"] = verdict.why;
  facts["n"] = check.n, facts["over"] = check.over, facts["wrong_kind"] = check.wrong_kind;
  facts["worst"] = check.worst, facts["got"] = check.got, facts["want"] = check.want;
  facts["allowed"] = check.allowed, facts["at"] = nb::tuple(at);
  return facts;
}

kernels::Array output(const std::string& name, const nb::tuple& given) {
  const std::optional<Dtype> dtype = dtype_named(nb::cast<std::string>(given[0]));
  require(dtype && is_decodable(*dtype), "output " + name + " is of a type without numbers");
  const auto bytes = nb::cast<Bytes>(given[1]);
  const auto shape = nb::cast<std::vector<Index>>(given[2]);
  kernels::Array array(*dtype, shape);
  require(array.bytes().size() == bytes.size(), "output " + name + " has too few or many bytes");
  if (bytes.size() > 0) std::memcpy(array.bytes().data(), bytes.data(), bytes.size());
  return array;
}

/// outputs: {name: (dtype, bytes, shape)}. An output that is not given counts as right.
nb::list judge(const kernels::Case& c, const nb::dict& outputs) {
  require(c.refusal.empty(), "a kernel must refuse this case, there is no answer to judge by");
  kernels::Arrays out;
  for (const auto& [key, value] : outputs) {
    const auto name = nb::cast<std::string>(key);
    require(c.out.contains(name), std::string(c.op->name) + " has no output called " + name);
    out.emplace(name, output(name, nb::cast<nb::tuple>(value)));
  }
  for (const auto& [name, asked] : c.out)
    if (!out.contains(name)) {
      require(c.want.contains(name), "output " + name + " must be given: it has no single answer");
      out.emplace(name, kernels::Array(Dtype::f64, asked.shape(), c.want.at(name)));
    }
  nb::list verdicts;
  for (const kernels::OutputVerdict& verdict : c.op->judge(c, out))
    verdicts.append(as_dict(verdict));
  return verdicts;
}

const char* name_of(verify::TopkFault fault) {
  using enum verify::TopkFault;
  switch (fault) {
    case no_score:
      return "no score";
    case no_subscript:
      return "no subscript";
    case duplicate:
      return "duplicate";
    case invisible:
      return "invisible";
    case count:
      return "count";
    case preference:
      return "preference";
    case none:
      break;
  }
  return "";
}

/// One row of a selection, chosen (n): (ratio, why, fault).
nb::tuple judge_topk(const std::vector<Index>& chosen, const Numbers& scores,
                     const Numbers& allowed, Index K) {
  const auto row = view<1>("scores", scores);
  expect_shape("allowed", view<1>("allowed", allowed), row.shape);
  const verify::TopkVerdict verdict =
      verify::judge_topk(chosen, row, view<1>("allowed", allowed), K, verify::Ties::free);
  return nb::make_tuple(verdict.ratio, verdict.why, name_of(verdict.fault));
}

}  // namespace

void bind_kernels(nb::module_& m) {
  using kernels::Case;
  nb::class_<Case>(m, "Case")
      .def_prop_ro("op", [](const Case& c) { return std::string(c.op->name); })
      .def_ro("name", &Case::name)
      .def_ro("dtype", &Case::dtype)
      .def_ro("scalars", &Case::scalars)
      .def_ro("refusal", &Case::refusal)
      .def_ro("flops", &Case::flops)
      .def("sizes",
           [](const Case& c) {
             nb::dict sizes;
             for (const auto& [axis, extent] : c.sizes)
               sizes[std::string(1, axis).c_str()] = extent;
             return sizes;
           })
      .def("inputs", [](const Case& c) { return as_dict(c.in, true); })
      .def("outputs", [](const Case& c) { return as_dict(c.out, false); })
      .def("want", [](const Case& c) { return as_dict(c, c.want); })
      .def("allowed", [](const Case& c) { return as_dict(c, c.allowed); })
      .def("judge", &judge);
  nb::class_<kernels::Pose>(m, "Pose")
      .def_ro("dtype", &kernels::Pose::dtype)
      .def_ro("flops", &kernels::Pose::flops)
      .def("__call__", &kernels::Pose::operator());
  m.def("ops", &ops);
  m.def("given", &given);
  m.def("suite", &suite);
  m.def("judge_topk", &judge_topk);
}

}  // namespace dsa::python
