// One definition of every type, over all files of all programs.
#include "tests/definitions.hpp"

#include <string>
#include <vector>

#include "tests/catch.hpp"

using namespace dsa::test;
using Strings = std::vector<std::string>;

TEST_CASE("every type is defined once", "[layering]") {
  const std::vector<Source> files = cpp_sources();
  std::size_t types = 0;
  for (const Source& file : files) types += defined_types(file.text).size();
  CHECK(types > 300);  // 2 of 3 sources define one
  for (const std::string& found : second_definitions(files)) {
    INFO(found << "; give one of them another name or an anonymous namespace");
    CHECK(found.empty());
  }
}

TEST_CASE("types are found under their qualified names", "[layering]") {
  CHECK(defined_types("struct A {};") == Strings{"A"});
  CHECK(defined_types(
            "namespace a::b { class C final : public D<int> { enum class E : char { x }; }; }") ==
        Strings{"a::b::C", "a::b::C::E"});
  CHECK(defined_types("template <class T, typename U> struct A { T t; };") == Strings{"A"});
  CHECK(defined_types("template <> struct A<std::pair<int, B>> { int t; };") ==
        Strings{"A<std::pair<int,B>>"});
  CHECK(defined_types("namespace a { struct A { struct B; }; struct A::B {}; }") ==
        Strings{"a::A", "a::A::B"});
  CHECK(defined_types("struct [[nodiscard]] A { union B { int i; } b; };") == Strings{"A", "A::B"});
  CHECK(defined_types("template <class T> struct alignas(4) A { T t; };") == Strings{"A"});
  CHECK(defined_types("namespace a { struct A {}; }\nstruct B {};") == Strings{"a::A", "B"});
  CHECK(defined_types("namespace a { int f() { return 1; } struct A {}; }") == Strings{"a::A"});
}

TEST_CASE("names that no other file can see are left out", "[layering]") {
  CHECK(defined_types("namespace { struct A { struct B {}; }; }").empty());
  CHECK(defined_types("namespace a { namespace { struct A {}; } }").empty());
  CHECK(defined_types("int f() { struct A {}; return 0; }").empty());
  CHECK(defined_types("struct A; class B* b; struct C f(struct D d); enum E : int;").empty());
  CHECK(
      defined_types("// struct A {};\n/* struct B {}; */\n#define C struct C {} \\\n struct D {}\n")
          .empty());
  CHECK(defined_types("auto a = \"struct A {\"; auto b = R\"x(struct B {\")x\"; char c = '{';")
            .empty());
  CHECK(defined_types("template <class T> void f(T t) { use(t); }").empty());
  CHECK(defined_types("namespace a = b; int x = 1'000; ").empty());
}

TEST_CASE("a second definition is refused wherever it lies", "[layering]") {
  const Source a{"a.hpp", "namespace n { struct Comparison { int x; }; }"};
  const Source b{"b.cpp", "namespace n {\nclass Comparison { double y; };\n}"};
  CHECK(second_definitions({a, b}) == Strings{"n::Comparison is defined in a.hpp and in b.cpp"});
  CHECK(second_definitions({a}).empty());
  CHECK(second_definitions({a, {"b.cpp", "namespace n { namespace { class Comparison {}; } }"}})
            .empty());
  CHECK(second_definitions({a, {"b.cpp", "namespace m { class Comparison {}; }"}}).empty());
  CHECK(second_definitions({a, {"b.cpp", "namespace n { class Comparison; }"}}).empty());
  CHECK(second_definitions({{"a.hpp", "namespace n { enum class E { x }; }"},
                            {"b.hpp", "namespace n { struct E {}; }"}})
            .size() == 1);
}
