// tests/programs/cli_test.cpp — dsa-verify as a user meets it: exit codes, sentences, files.
#include <sys/wait.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "core/file.hpp"
#include "core/json.hpp"
#include "tests/catch.hpp"
#include "tests/paths.hpp"
#include "tests/scratch.hpp"
#include "tests/verify/judge_helpers.hpp"
#include "verify/defects/defect.hpp"

using Catch::Matchers::Contains;
using namespace dsa;
using namespace dsa::test;
namespace fs = std::filesystem;

namespace {

struct Result {
  int status = -1;
  std::string out, err;
};

std::string quoted(const std::string& text) { return "'" + text + "'"; }

/// Runs `dsa-verify ARGUMENTS` through the shell.
Result run(const Scratch& scratch, const std::string& arguments) {
  const std::string out = (scratch / "stdout").string(), err = (scratch / "stderr").string();
  const std::string binary = binary_dir() + "/dsa-verify";
  const int status = std::system(
      (quoted(binary) + " " + arguments + " </dev/null >" + quoted(out) + " 2>" + quoted(err))
          .c_str());
  Result result;
  if (WIFEXITED(status)) result.status = WEXITSTATUS(status);
  result.out = read_text(out);
  result.err = read_text(err);
  return result;
}

std::string golden(const std::string& name, const fs::path& file) {
  return "golden " + quoted((sample(name) / "checkpoint").string()) + " " + quoted(file.string()) +
         " --runs 4 ";
}

/// One line on stderr that begins with the program's name, exit code 2.
void check_bad_input(const Result& result, const std::string& names) {
  CAPTURE(result.err, result.out);
  CHECK(result.status == 2);
  CHECK(result.err.rfind("dsa-verify: ", 0) == 0);
  CHECK(std::count(result.err.begin(), result.err.end(), '\n') == 1);
  CHECK(result.out.empty());
  CHECK_THAT(result.err, Contains(names));
}

TensorFile short_golden(Index T) {
  TensorFile file = golden_column("v32", "fp64");
  file.cut(1, T);
  return file;
}

void cut_file(const fs::path& from, const fs::path& to, std::size_t bytes) {
  write_text(to, read_text(from).substr(0, bytes));
}

/// What sample v32 with a defect makes of the first T tokens of sequence 0, in double.
void write_broken(const fs::path& path, const std::string& defect, Index T) {
  verify::Variant broken{open_checkpoint(sample("v32") / "checkpoint"),
                         reference::definition<double>()};
  for (const verify::Defect& each : verify::all_defects())
    if (each.name == defect) each.variants.front().apply(broken);
  TensorFile file = short_golden(T);
  const Column& tokens = file.at("tokens");
  const reference::Pass<double> pass{broken.model, broken.ops};
  reference::Cache<double> cache;
  const auto logits =
      reference::forward(pass, plain_sequence({tokens.values.begin(), tokens.values.end()}), cache);
  file.at("logits.fp64").values.assign(logits.begin(), logits.end());
  file.write(path);
}

std::string diagnose(const fs::path& candidate) {
  return "diagnose " + quoted((sample("v32") / "checkpoint").string()) + " " +
         quoted(candidate.string()) + " --runs 4 ";
}

}  // namespace

TEST_CASE("dsa-verify exits with 0, 1, 2 and 3", "[cli]") {
  const Scratch scratch;
  const std::string fp64 = "--precision fp64";  // no search for what else would explain it
  short_golden(40).write(scratch / "right");
  short_golden(22).write(scratch / "short");
  TensorFile wrong = short_golden(40);
  wrong.at("logits.fp64")(30, 4) += 1;
  wrong.write(scratch / "wrong");
  const Result right = run(scratch, golden("v32", scratch / "right"));
  CHECK(right.status == 0);
  CHECK_THAT(right.out, Contains("PASS"));
  CHECK(right.err.empty());
  CHECK(run(scratch, golden("v32", scratch / "wrong") + fp64).status == 1);
  CHECK(run(scratch, golden("v32", scratch / "nothing here")).status == 2);
  const Result open = run(scratch, golden("v32", scratch / "short"));
  CHECK(open.status == 3);
  CHECK_THAT(open.out, Contains("no query sees more than 22 keys"));
  CHECK(run(scratch, golden("v32", scratch / "right") + fp64 + " --candidate " +
                         quoted((scratch / "wrong").string()))
            .status == 1);
}

TEST_CASE("reports are written and have the documented fields", "[cli]") {
  const Scratch scratch;
  const std::string json = (scratch / "r.json").string(), junit = (scratch / "r.xml").string(),
                    html = (scratch / "r.html").string();
  const Result result =
      run(scratch, golden("v32", sample("v32") / "trace.fp64.safetensors") + "--json " +
                       quoted(json) + " --junit " + quoted(junit) + " --html " + quoted(html));
  CHECK(result.status == 0);
  const Json report = parse_json(read_text(json), json);
  CHECK(report["verdict"] == "pass");
  CHECK(report["exit_code"] == 0);
  CHECK(report["first_departure"].is_null());
  CHECK(report["topk"] == 22);
  CHECK(report["longest_visible"] == 90);
  CHECK(report["tensors"].size() == 61);
  for (const char* key :
       {"why", "checkpoint", "golden", "candidate", "family", "sequences", "positions", "layers",
        "span", "title", "precision", "judged", "logits", "notes", "golden_judged", "receipt"})
    CHECK(report.contains(key));
  for (const char* key : {"name", "kind", "verdict", "worst_over_allowed", "headroom", "at", "got",
                          "want", "allowed", "compared", "over", "wrong_kind", "from"})
    CHECK(report["tensors"][0].contains(key));
  for (const char* key : {"max_abs", "kl_mean", "kl_max", "kl_max_at", "top1", "all", "undecided",
                          "limit", "kl", "elements", "by_row", "user", "undecided_rows"})
    CHECK(report["logits"].contains(key));
  CHECK(report["logits"]["limit"].contains("kl_max"));
  CHECK(report["logits"]["limit"].contains("from"));
  CHECK(report["receipt"]["runs"] == 4);
  CHECK_THAT(read_text(junit), Contains("<testsuites"));
  CHECK_THAT(read_text(html), Contains("</html>"));
}

TEST_CASE("a report that cannot be written is bad input, and leaves nothing", "[cli]") {
  const Scratch scratch;
  short_golden(40).write(scratch / "right");
  const std::string right = golden("v32", scratch / "right");
  const auto before = scratch.files() + 2;  // what run() captures
  const auto check_refused = [&](const char* form, const std::string& target) {
    const Result result = run(scratch, right + form + quoted(target));
    CAPTURE(form, target, result.err);
    CHECK(result.status == 2);
    CHECK(result.err.rfind("dsa-verify: ", 0) == 0);
    CHECK(std::count(result.err.begin(), result.err.end(), '\n') == 1);
    CHECK_THAT(result.err, Contains(target));
  };
  for (const char* form : {"--json ", "--junit ", "--html "}) {
    check_refused(form, (scratch / "no/such/file").string());
    scratch.full_disk_at(scratch / "report");
    check_refused(form, (scratch / "report").string());
    CHECK(!fs::exists(fs::symlink_status(scratch / "report")));
    CHECK(!fs::exists(fs::symlink_status(scratch / "report.partial")));
    CHECK(scratch.files() == before);
  }
}

// Never with the device itself: to root, a program that renames over its target replaces it.
TEST_CASE("a report into a full device is bad input, and the device stays", "[cli]") {
  const Scratch scratch;
  short_golden(40).write(scratch / "right");
  const fs::path device = scratch / "device";
  fs::create_symlink("/dev/full", device);
  const Result result =
      run(scratch, golden("v32", scratch / "right") + "--json " + quoted(device.string()));
  CHECK(result.status == 2);
  CHECK(fs::is_symlink(fs::symlink_status(device)));
  CHECK(!fs::exists(fs::symlink_status(scratch / "device.partial")));
}

TEST_CASE("bad goldens are one sentence", "[cli]") {
  const Scratch scratch;
  const fs::path good = sample("v32") / "logits.safetensors", bad = scratch / "bad";
  check_bad_input(run(scratch, golden("v32", bad)), bad.string());
  write_text(bad, "");
  check_bad_input(run(scratch, golden("v32", bad)), "is empty");
  for (const std::size_t bytes : {1, 7, 8, 100, 2000, 30000}) {
    cut_file(good, bad, bytes);
    check_bad_input(run(scratch, golden("v32", bad)), bad.string());
  }
  TensorFile file = short_golden(40);
  file.at("tokens").values[7] = 107;
  file.write(bad);
  check_bad_input(run(scratch, golden("v32", bad)), "107");
  check_bad_input(run(scratch, golden("v3", good)), "another model");
  check_bad_input(run(scratch, golden("v32", scratch.path())), scratch.path().string());
  short_golden(40).write(bad);
  check_bad_input(run(scratch, golden("v32", bad) + "--dtype bf16"), "bf16");
  file = short_golden(40);
  file.at("tokens").values[7] = file.at("tokens").values[7] == 3 ? 4 : 3;
  file.write(scratch / "other");
  check_bad_input(
      run(scratch, golden("v32", bad) + "--candidate " + quoted((scratch / "other").string())),
      "other tokens");
}

TEST_CASE("bad checkpoints are one sentence", "[cli]") {
  const Scratch scratch;
  const fs::path bad = scratch / "checkpoint";
  const std::string arguments = "golden " + quoted(bad.string()) + " " +
                                quoted((sample("fp8") / "logits.safetensors").string());
  check_bad_input(run(scratch, arguments), bad.string());
  fs::copy(sample("fp8") / "checkpoint", bad);
  const std::string shard = "model-00002-of-00002.safetensors";
  cut_file(sample("fp8") / "checkpoint" / shard, bad / shard, 5000);
  check_bad_input(run(scratch, arguments), shard);
  fs::remove(bad / shard);
  check_bad_input(run(scratch, arguments), shard);
  check_bad_input(run(scratch, "samples " + quoted((scratch / "none").string())), "none");
}

TEST_CASE("bad usage is one sentence", "[cli]") {
  const Scratch scratch;
  short_golden(40).write(scratch / "right");
  const std::string right = golden("v32", scratch / "right");
  check_bad_input(run(scratch, right + "--precision fp12"), "fp12");
  check_bad_input(run(scratch, right + "--layers 5:2"), "5:2");
  check_bad_input(run(scratch, right + "--layers 0:4"), "0:4");
  check_bad_input(run(scratch, right + "--layers x"), "x");
  check_bad_input(run(scratch, right + "--layers 1:3"), "model.layers.0");  // has no trace
  check_bad_input(run(scratch, right + "--no-such-option"), "--no-such-option");
  check_bad_input(run(scratch, right + "--no-such-option"), "see dsa-verify golden --help");
  check_bad_input(run(scratch, right + "--dtype fp12"), "fp12");
  check_bad_input(run(scratch, right + "--runs 0"), "--runs");
  check_bad_input(run(scratch, right + "--max-kl-div much"), "--max-kl-div");
  check_bad_input(run(scratch, "golden " + quoted(sample("v32").string())), "GOLDEN");
  check_bad_input(run(scratch, ""), "subcommand");
  check_bad_input(run(scratch, "judge"), "judge");
  check_bad_input(run(scratch, right + "--alpha nan"), "--alpha: expected a finite number");
  for (const char* limit : {"--max-kl-div", "--atol", "--rtol"})
    for (const char* value : {"-1", "nan", "inf"})
      check_bad_input(run(scratch, right + limit + " " + value), "expected a finite number");
  check_bad_input(run(scratch, "invariants " + quoted((sample("v2") / "checkpoint").string()) +
                                   " --command true --format bf16"),
                  "leave it out with --command");
}

TEST_CASE("help is not an error", "[cli]") {
  const Scratch scratch;
  for (const char* arguments : {"--help", "golden --help", "samples --help", "--version"}) {
    const Result result = run(scratch, arguments);
    CAPTURE(arguments);
    CHECK(result.status == 0);
    CHECK(!result.out.empty());
    CHECK(result.err.empty());
  }
}

TEST_CASE("spans of layers are judged by a trace", "[cli]") {
  const Scratch scratch;
  const fs::path trace = sample("v32") / "trace.fp64.safetensors", json = scratch / "r.json";
  for (const char* span : {"0:2", "1:3", "2:3"}) {
    const Result result = run(
        scratch, golden("v32", trace) + "--layers " + span + " --json " + quoted(json.string()));
    CAPTURE(span, result.out, result.err);
    CHECK(result.status == 0);
    const Json report = parse_json(read_text(json), "report");
    CHECK(report["tensors"].size() > 15);
    CHECK(report["logits"].is_null() == (std::string(span) == "0:2"));
    fs::rename(json, scratch / (std::string(span, 1) + ".json"));
  }
  const auto merge = [&](const std::string& second) {
    return run(scratch, "merge " + quoted((scratch / second).string()) + " " +
                            quoted((scratch / "0.json").string()) + " --json " +
                            quoted(json.string()));
  };
  const Result all = merge("2.json");
  CHECK(all.status == 0);
  CHECK_THAT(all.out, Contains("in 2 spans of layers"));
  CHECK(parse_json(read_text(json), "report")["span"] == Json({0, 3}));
  check_bad_input(merge("1.json"), "layer 1 is judged by");
}

TEST_CASE("MaxText's spelling of the user's limits", "[cli]") {
  const Scratch scratch;
  TensorFile file = short_golden(40);
  file.at("logits.fp64")(30, 4) += 1e-6;
  file.write(scratch / "off");
  const std::string off = golden("v32", scratch / "off") + "--precision fp64 ";
  CHECK(run(scratch, off).status == 1);
  for (const char* option : {"--max-kl-div ", "--max_kl_div "}) {
    CHECK(run(scratch, off + option + "0.01").status == 0);
    CHECK(run(scratch, off + option + "1e-25").status == 1);
  }
  CHECK(run(scratch, off + "--atol 1e-5").status == 0);
  CHECK(run(scratch, off + "--atol 1e-7").status == 1);
  CHECK(run(scratch, off + "--atol 1e-5 --max_kl_div 1e-25").status == 1);
}

TEST_CASE("dsa-verify invariants from the command line", "[cli]") {
  const Scratch scratch;
  const std::string ask = "invariants " + quoted((sample("v32") / "checkpoint").string()) + " ";
  const Result right = run(scratch, ask + "--json " + quoted((scratch / "json").string()));
  CHECK(right.status == 0);
  CHECK_THAT(right.out, Contains("PASS: all") && Contains("causality"));
  CHECK(Json::parse(read_text(scratch / "json"))["verdict"] == "pass");
  CHECK(run(scratch, ask + "--length 20").status == 3);
  check_bad_input(run(scratch, ask + "--command 'echo no model >&2; exit 4 #'"),
                  "ended with status 4; its last line: no model");
  check_bad_input(run(scratch, ask + "--command true --backend reference"), "--backend");
  check_bad_input(run(scratch, ask + "--backend tpu"), "choose reference");
  check_bad_input(run(scratch, "invariants " + quoted((scratch / "nothing").string())), "nothing");
}

TEST_CASE("dsa-verify diagnose from the command line", "[cli]") {
  const Scratch scratch;
  const fs::path json = scratch / "d.json", html = scratch / "d.html";
  const std::string reports =
      "--json " + quoted(json.string()) + " --html " + quoted(html.string());
  short_golden(40).write(scratch / "right");
  const Result right = run(scratch, diagnose(scratch / "right") + reports);
  CHECK(right.status == 0);
  CHECK(read_json(json)["conclusion"] == "correct");
  CHECK(read_json(json)["defects"].empty());

  write_broken(scratch / "broken", "softmax-mscale", 40);
  const Result broken = run(scratch, diagnose(scratch / "broken") + reports);
  CAPTURE(broken.out, broken.err);
  CHECK(broken.status == 1);
  CHECK_THAT(broken.out, Contains("defect: softmax-mscale") && Contains("onnxruntime/mobius"));
  const Json report = read_json(json);
  CHECK(report["conclusion"] == "defect");
  CHECK(report["defects"] == Json::array({62}));
  const Json& first = report["ranking"][0];
  CHECK(first["defect"] == 62);
  CHECK(first["variant"] == "missing");
  CHECK(first["explained"] == true);
  CHECK(first["kl_max_after"].get<double>() < 1e-20);
  CHECK(first["kl_max_before"].get<double>() > 1e-6);
  CHECK(report["receipt"]["seconds"].get<double>() > 0);
  CHECK_THAT(read_text(html), Contains("Defect 62") && Contains("</html>"));

  check_bad_input(run(scratch, diagnose(scratch / "nothing here")), "nothing here");
  check_bad_input(run(scratch, diagnose(scratch / "right") + "--precision fp5"), "fp5");
}

TEST_CASE("where selections are all alike, diagnose concludes nothing", "[cli]") {
  const Scratch scratch;
  short_golden(22).write(scratch / "short");
  const Result result = run(scratch, diagnose(scratch / "short"));
  CHECK(result.status == 3);
  CHECK_THAT(result.out, Contains("no query sees more than 22 keys"));
}

TEST_CASE("dsa-verify power from the command line", "[cli]") {
  const Scratch scratch;
  const fs::path json = scratch / "p.json", html = scratch / "p.html", set = scratch / "set/v32";
  const std::string reports =
      " --runs 4 --json " + quoted(json.string()) + " --html " + quoted(html.string());
  fs::create_directories(set);
  fs::create_directory_symlink(sample("v32") / "checkpoint", set / "checkpoint");
  short_golden(30).write(set / "short.safetensors");
  const Result one = run(scratch, "power " + quoted((set / "checkpoint").string()) + " " +
                                      quoted((set / "short.safetensors").string()) + reports);
  CAPTURE(one.out, one.err);
  CHECK(one.status == 0);
  CHECK_THAT(one.out, Contains("to see more, add: a trace") && Contains("PASS: ") &&
                          Contains("variants of known defects caught"));
  const Json alone = read_json(json);
  CHECK(alone["all"].get<Index>() > 150);
  CHECK(alone["caught"].get<Index>() > 50);
  CHECK(alone["caught"].get<Index>() < alone["all"].get<Index>());
  CHECK_THAT(read_text(html), Contains("Detection matrix") && Contains("heat4"));

  short_golden(60).write(set / "long.safetensors");
  const Result both =
      run(scratch, "power --samples " + quoted((scratch / "set").string()) + reports);
  CHECK(both.status == 0);
  CHECK_THAT(both.out, Contains("goldens that catch it") && Contains("caught by no golden"));
  const Json together = read_json(json);
  CHECK(together["goldens"].size() == 2);
  CHECK(together["all"] == alone["all"]);
  CHECK(together["caught"].get<Index>() >= alone["caught"].get<Index>());

  check_bad_input(run(scratch, "power"), "--samples");
  check_bad_input(run(scratch, "power --samples x y"), "--samples");
}

TEST_CASE("golden --explain-limit says what every limit is made of", "[cli]") {
  const Scratch scratch;
  const Result result = run(scratch, golden("v32", sample("v32") / "trace.fp64.safetensors") +
                                         "--precision hf-bf16 --explain-limit");
  CAPTURE(result.out, result.err);
  CHECK_THAT(result.out, Contains("4 runs of the reference with every rounding of hf-bf16"));
  CHECK_THAT(result.out, Contains("limit = mean over the runs x F"));
  CHECK_THAT(result.out, Contains("model.layers.2.mlp: t = ") && Contains("its row's spread"));
  CHECK_THAT(run(scratch, golden("v32", scratch / "absent") + "--explain-limit").err,
             Contains("absent"));
}
