// dsa-bench as a user meets it: what it prints and writes, not how fast anything is.
#include "core/json.hpp"
#include "tests/programs/programs.hpp"
#include "tests/tiny_checkpoint.hpp"

using namespace dsa;
using namespace dsa::test;
using Catch::Contains;

TEST_CASE("an op is timed against the roofline of this machine", "[bench]") {
  const Scratch scratch;
  const std::string json = (scratch / "ops.json").string();
  const Outcome result =
      run("dsa-bench ops --op rmsnorm --dtype fp32 --min-time 0.001 --json " + json);
  CHECK(result.status == 0);
  CHECK_THAT(result.out, Contains("rmsnorm/fp32/") && Contains("of_roof="));
  const Json rows = read_json(json);
  CHECK(std::stod(rows.at("context").at("read bandwidth, GB/s").get<std::string>()) > 0);
  REQUIRE(!rows.at("benchmarks").empty());
  for (const Json& row : rows.at("benchmarks")) {
    CHECK(row.at("B/s").get<double>() > 0);
    CHECK(row.at("of_roof").get<double>() > 0);
  }
}

TEST_CASE("growth sums chunks up to a prefill", "[bench]") {
  const Scratch scratch;
  const std::string json = (scratch / "growth.json").string();
  const Outcome result = run("dsa-bench growth --longest 1024 --repeats 1 --json " + json);
  CHECK(result.status == 0);
  CHECK_THAT(result.out, Contains("1024") && Contains("dense attention"));
  const Json row = read_json(json).at("rows").at(0);
  for (const std::string op : {"indexer_topk", "mla_sparse", "mla_dense", "mla_expanded"}) {
    const double ms = row.at(op + "_ms").get<double>(), queries = row.at("queries").get<double>();
    CHECK(row.at(op + "_prefill_s").get<double>() == Approx(1024 / queries * ms / 1e3));
  }
}

TEST_CASE("a model is timed in one line of JSON", "[bench]") {
  const Scratch scratch;
  write_checkpoint(scratch / "model", tiny_config(), tiny_tensors(tiny_config()));
  const Outcome result =
      run("dsa-bench model " + (scratch / "model").string() + " --length 9 --decode 2 --threads 1");
  CHECK(result.status == 0);
  const Json line = parse_json(result.out, "the line");
  CHECK(line.at("length") == 9);
  CHECK(line.at("prefill_tokens_per_s").get<double>() > 0);
  CHECK(line.at("decode_s_per_token").get<double>() > 0);
  CHECK(line.at("peak_mib").get<double>() > 0);
}

TEST_CASE("what cannot be timed is refused in one sentence", "[bench]") {
  CHECK_THAT(complaint("dsa-bench model /nowhere"), Contains("/nowhere"));
  CHECK_THAT(complaint("dsa-bench ops --op nothing"), Contains("no problem of these names"));
  CHECK_THAT(complaint("dsa-bench ops --filter '('"), Contains("no regular expression"));
  CHECK_THAT(complaint("dsa-bench growth --dtype int4"), Contains("int4"));
  CHECK_THAT(complaint("dsa-bench growth --longest 1000"), Contains("--longest"));
  CHECK_THAT(complaint("dsa-bench model /nowhere --length 999999999999"), Contains("--length"));
  for (const char* seconds : {"0", "-1", "nan"})
    CHECK_THAT(complaint(std::string("dsa-bench ops --min-time ") + seconds),
               Contains("expected a finite number above 0"));
  for (const char* command : {"ops", "growth", "cuda --list"})
    CHECK_THAT(complaint(std::string("dsa-bench ") + command + " --json /nowhere/x"),
               Contains("cannot write /nowhere/x"));
  CHECK_THAT(complaint("dsa-bench nothing"), Contains("there is no command \"nothing\""));
}
