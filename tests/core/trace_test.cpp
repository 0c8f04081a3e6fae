#include "core/trace.hpp"

#include "core/recording.hpp"
#include "tests/catch.hpp"

using namespace dsa;
using Catch::Matchers::Contains;

TEST_CASE("a trace is a matrix with one row a token", "[core]") {
  const auto shape_of = [](std::vector<Index> shape) {
    const std::vector<std::byte> bytes(1000);
    return trace_values({"t", Dtype::u8, std::move(shape), bytes.data()}).shape();
  };
  CHECK(shape_of({1, 5, 7}) == Shape<2>{5, 7});
  CHECK(shape_of({1, 1, 5, 7}) == Shape<2>{5, 7});
  CHECK(shape_of({1, 5, 2, 7}) == Shape<2>{5, 14});
  CHECK(shape_of({5, 7}) == Shape<2>{5, 7});
  CHECK(shape_of({1, 1, 7}) == Shape<2>{1, 7});
  CHECK(shape_of({1, 7}) == Shape<2>{1, 7});
  CHECK(shape_of({5}) == Shape<2>{5, 1});
  CHECK(shape_of({}) == Shape<2>{1, 1});
  CHECK(shape_of({5, 0}) == Shape<2>{5, 0});
  CHECK_THROWS_WITH(trace_values({"t", Dtype::c64, {0}, nullptr}),
                    Contains("trace t is stored as C64"));
}

TEST_CASE("a trace holds what was put, by name, and decodes it when it is asked", "[core]") {
  Trace trace;
  Tensor<double, 2> x({2, 3}, 0.5);
  trace.put("a", x.view());
  trace.put("b", std::move(x));
  const std::vector<float> stored = {1, 2, 3, 4};
  Trace::Entry entry;
  entry.name = "c", entry.dtype = Dtype::f32, entry.shape = {1, 2, 2};
  entry.data = reinterpret_cast<const std::byte*>(stored.data());
  trace.put(entry);
  const Trace copy = trace;
  CHECK(copy.at("a").values()(1, 2) == 0.5);
  CHECK(copy.at("b").dtype == Dtype::f64);
  CHECK(copy.at("c").values()(1, 0) == 3);
  CHECK(copy.find("d") == nullptr);
  CHECK_THROWS_WITH(copy.at("d"), "the trace has no tensor d");
  CHECK_THROWS_WITH(trace.put(entry), "the trace already holds c");
  trace.erase_if([](const std::string& name) { return name == "a"; });
  CHECK(!trace.contains("a"));
  CHECK(trace.at("c").values()(0, 1) == 2);
  CHECK(copy.entries().size() == 3);
}
