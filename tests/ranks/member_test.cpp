#include "optimized/ranks/member.hpp"

#include "tests/catch.hpp"

using namespace dsa;
using namespace dsa::ranks;
using Catch::Matchers::Contains;

namespace {

Member on(const std::string& machine, std::vector<int> cores, int rank = 0) {
  return {rank, "10.0.0.1", 1, 100 + rank, "host", machine, std::move(cores)};
}

}  // namespace

TEST_CASE("ranks of a machine divide the cores that they share", "[ranks]") {
  const Member a = on("m", {0, 1, 2, 3}), b = on("m", {0, 1, 2, 3}), c = on("n", {0, 1, 2, 3});
  CHECK(threads_of(a, {a}) == 4);
  CHECK(threads_of(a, {a, b}) == 2);
  CHECK(threads_of(a, {a, c}) == 4);           // another machine's cores have the same numbers
  CHECK(threads_of(a, {a, b, a}) == 1);        // a third of four is one whole core
  CHECK(threads_of(a, {a, a, a, a, b}) == 1);  // more ranks than cores
}

TEST_CASE("ranks that are bound to cores keep them", "[ranks]") {
  const Member a = on("m", {0, 1}), b = on("m", {2, 3, 4}), c = on("m", {4, 5, 6});
  CHECK(threads_of(a, {a, b, c}) == 2);
  CHECK(threads_of(b, {a, b, c}) == 2);  // two, and half of core 4
}

TEST_CASE("a member survives its way as JSON", "[ranks]") {
  const Member a = on("m", {0, 5}, 3), b = member_of(Json::parse(to_json(a).dump()));
  CHECK(to_json(a) == to_json(b));
  CHECK(name_of(b, 4) == "rank 3 of 4 (process 103 on host)");
}

TEST_CASE("a slow rank is named, an idle one and noise are not", "[ranks]") {
  const std::vector<Member> four = {on("m", {0}, 0), on("m", {1}, 1), on("m", {2}, 2),
                                    on("m", {3}, 3)};
  CHECK_THAT(slow_rank({1, 1.1, 2, 0.9}, four),
             Contains("rank 2 of 4") && Contains("is slow: 2 s") && Contains("others is 1 s"));
  CHECK(slow_rank({1, 1.1, 1.4, 0.9}, four).empty());
  CHECK(slow_rank({0.001, 0.001, 0.03, 0.001}, four).empty());
  CHECK(slow_rank({1, 0, 0, 0}, four).empty());
  CHECK(slow_rank({1}, {four[0]}).empty());
}
