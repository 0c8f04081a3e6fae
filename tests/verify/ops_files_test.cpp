// Cases as files, and outputs that another program wrote.
#include "core/json.hpp"
#include "core/safetensors.hpp"
#include "tests/catch.hpp"
#include "tests/scratch.hpp"
#include "verify/kernels/files.hpp"

using Catch::Matchers::Contains;
using namespace dsa;
using namespace dsa::test;
using namespace dsa::verify;
using namespace dsa::verify::kernels;

TEST_CASE("outputs that another program wrote are judged by the same bounds", "[ops]") {
  const Scratch dir;
  OpsOptions options;
  options.op = "topk_select";
  CHECK_THAT(dump_cases(dir / "cases", options), Contains("cases written"));
  const Json index = read_json(dir / "cases" / "index.json");
  REQUIRE(index["cases"].size() > 20);

  const auto write = [&](const Case& c, const std::vector<double>& chosen, Dtype dtype) {
    std::filesystem::create_directories(dir / "mine");
    SafetensorsWriter out(dir / "mine" / ("topk_select." + c.name + ".safetensors"),
                          {{"chosen", dtype, c.out.at("chosen").shape()}});
    out.append_values(chosen);
    out.commit();
  };
  CHECK_THROWS_WITH(check_files(dir / "cases" / "none", options), Contains("is not a directory"));
  const auto poses = op_named("topk_select").cases(1);
  const Case first = poses[1](), second = poses[4]();
  write(first, first.want.at("chosen"), Dtype::i64);
  const OpsReport partial = check_files(dir / "mine", options);
  CHECK(partial.outcome == Outcome::pass);
  CHECK(partial.rows[0].cases == 1);
  CHECK(partial.rows[0].refused == static_cast<Index>(index["cases"].size()) - 1);
  CHECK_THAT(partial.rows[0].why, Contains("there is no topk_select."));

  std::vector<double> wrong = second.want.at("chosen");
  std::swap(wrong[0], wrong[1]);
  write(second, wrong, Dtype::i32);
  const OpsReport failed = check_files(dir / "mine", options);
  CHECK(failed.outcome == Outcome::fail);
  CHECK_THAT(failed.rows[0].why, Contains("not in ascending order"));
}

TEST_CASE("a dumped case holds inputs, answers, bounds and scalars", "[ops]") {
  const Scratch dir;
  OpsOptions options;
  options.op = "rmsnorm";
  options.dtype = "bf16";
  dump_cases(dir / "cases", options);
  const Json entry = read_json(dir / "cases" / "index.json")["cases"][1];
  CHECK(entry["op"] == "rmsnorm");
  CHECK(entry["scalars"]["eps"].get<double>() == 1e-6);
  CHECK(entry["outputs"]["y"]["dtype"] == "BF16");
  const auto file = SafetensorsFile::open(dir / "cases" / entry["file"].get<std::string>());
  CHECK(file.at("in.x").dtype == Dtype::f32);
  CHECK(file.at("want.y").shape == file.at("allowed.y").shape);
  CHECK(file.metadata().at("scalar.eps") == "1e-06");
}

TEST_CASE("an output in fewer bits is allowed its own rounding, and no more", "[ops]") {
  const Case c = op_named("linear").cases(1)[3 + 16]();
  REQUIRE(c.dtype == "fp32");
  const std::vector<double>& want = c.want.at("y");
  Arrays narrow;
  narrow.emplace("y", Array(Dtype::bf16, c.out.at("y").shape(), want));
  CHECK(judge_outputs(c, narrow).failure.empty());
  std::vector<double> moved = want;
  for (double& y : moved) y *= 1.01;
  narrow.at("y") = Array(Dtype::bf16, c.out.at("y").shape(), moved);
  CHECK_FALSE(judge_outputs(c, narrow).failure.empty());
  narrow.at("y") = Array(Dtype::f32, {1, 1});
  CHECK_THROWS_WITH(judge_outputs(c, narrow), Contains("output y has shape (1, 1), expected"));
}
