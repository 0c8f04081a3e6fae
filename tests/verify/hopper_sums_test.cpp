// Sums of Hopper's FP8 tensor cores: the bound holds and is not idle, and kernels that sum so are
// told from kernels that are wrong.
#include <fmt/format.h>

#include <cstring>

#include "core/json.hpp"
#include "core/random.hpp"
#include "core/safetensors.hpp"
#include "tests/catch.hpp"
#include "tests/cuda/scalar_kernels.hpp"
#include "tests/programs/programs.hpp"
#include "verify/kernels/cases/hopper_fp8.hpp"
#include "verify/kernels/files.hpp"

using Catch::Matchers::Contains;
using namespace dsa;
using namespace dsa::test;
using namespace dsa::verify;
using namespace dsa::verify::kernels;

namespace {

/// |what the model of Hopper's sums makes of a . b - the exact sum|.
double error_on_hopper(const std::vector<double>& a, const std::vector<double>& b) {
  const std::string none;
  Sum sum(none, Sums::hopper_fp8);
  double exact = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    sum.add(static_cast<float>(a[i]), static_cast<float>(b[i]));
    exact += a[i] * b[i];
  }
  return std::abs(sum.total() - exact);
}

double allowed_on_hopper(const std::vector<double>& a, const std::vector<double>& b) {
  return hopper_fp8_error(a.data(), b.data(), static_cast<Index>(a.size()));
}

const std::vector<std::string> ops = {"linear", "indexer_scores", "indexer_topk"};

const ScalarKernel& kernel_of(const std::string& op) {
  static const std::vector<ScalarKernel> all = scalar_kernels();
  return *std::find_if(all.begin(), all.end(), [&](const auto& k) { return k.op == op; });
}

/// What scalar kernels get wrong and e4m3 can show, tf32 apart, which holds every e4m3 number.
std::vector<std::string> fp8_bugs(const std::string& op) {
  std::vector<std::string> bugs = {"bf16 accumulation", "fp16 accumulation", "scale in bf16",
                                   "last step dropped", "last channel dropped"};
  for (const std::string& bug : kernel_of(op).bugs)
    if (bug != "tf32 inputs" && bug != "bf16 accumulation" && bug != "NaN let through" &&
        !(bug == "last tile dropped" && op == "linear"))  // its rows are runs of 128
      bugs.push_back(bug);
  for (const char* bug : {"scales of the first block", "weight scale of row 0"})
    if (op == "linear") bugs.push_back(bug);
  if (op != "linear") bugs.push_back("key scale ignored");
  return bugs;
}

/// The cases of e4m3 that a scalar kernel computes in a moment, posed once.
const std::vector<Case>& fp8_cases(const std::string& op) {
  static std::map<std::string, std::vector<Case>> all;
  std::vector<Case>& cases = all[op];
  if (cases.empty())
    for (const auto& pose : op_named(op).cases(1))
      if (Case c = pose(); c.dtype == "fp8" && c.flops <= 2e7 && c.refusal.empty() && !c.is_empty())
        cases.push_back(std::move(c));
  return cases;
}

Arrays computed(const Case& c, const std::string& bug, Sums sums) {
  Arrays out = c.out;
  kernel_of(std::string(c.op->name)).run(in_floats(c, sums), out, bug);
  return out;
}

/// Whether a kernel with `bug` and these sums computes the case as it is allowed, and no more.
bool passes(const Case& c, const std::string& bug, Sums sums, Sums judged_by) {
  Case judged = c;
  allow_sums(judged, judged_by);
  try {
    const Arrays out = computed(c, bug, sums);
    return judge_outputs(judged, out).failure.empty() && out.begin()->second.guards_intact();
  } catch (const Error&) {  // it read NaN where it should not look
    return false;
  }
}

}  // namespace

TEST_CASE("what Hopper's sums lose, by hand", "[sums]") {
  // 2^8 and 2^-6: the last place kept is 2^(8 - 13).
  CHECK(error_on_hopper({256, 0x1p-6}, {1, 1}) == 0x1p-6);
  CHECK(allowed_on_hopper({256, 0x1p-6}, {1, 1}) == 2 * 0x1p-5);  // one addend, and the result
  CHECK(allowed_on_hopper({256, 0x1p-5}, {1, 1}) == 0);
  // The exponent of a subnormal is that of the smallest normal number: 2^-9 * 256 counts as 4.
  CHECK(error_on_hopper({0x1p-9, 0x1p-6}, {256, 0x1p-6}) == 0x1p-12);
  CHECK(allowed_on_hopper({0x1p-9, 0x1p-6}, {256, 0x1p-6}) >= 0x1p-12);
  CHECK(allowed_on_hopper({256, 0x1p-6}, {0x1p-9, 0x1p-6}) >= 0x1p-12);
  // What one block leaves is an addend of the next: 33 channels of which the last decides.
  std::vector<double> a(33, 0), b(33, 1);
  a[0] = 0x1p-6, a[32] = 256;
  CHECK(error_on_hopper(a, b) == 0x1p-6);
  CHECK(allowed_on_hopper(a, b) >= 0x1p-6);
  // The worst there is: 31 addends just below the last place, lost whole.
  std::vector<double> x(32, 0.234375), y(32, 0.125);
  x[0] = 256, y[0] = 1;
  CHECK(error_on_hopper(x, y) == 31 * 0.029296875);
  CHECK(allowed_on_hopper(x, y) >= error_on_hopper(x, y));
  CHECK(allowed_on_hopper(x, y) < 1.2 * error_on_hopper(x, y));
}

TEST_CASE("the bound of Hopper's sums holds for numbers of any size", "[sums]") {
  for (std::uint64_t trial = 0; trial < 20000; ++trial) {
    const auto n = static_cast<Index>(1 + random_bits(7, trial) % 160);
    std::vector<double> a, b;
    const int spread = static_cast<int>(random_bits(8, trial) % 12);
    for (Index i = 0; i < 2 * n; ++i) {
      const auto draw = static_cast<std::uint64_t>(i);
      const double scale = std::exp2(std::floor(spread * (uniform(trial, draw) - 0.6)));
      (i < n ? a : b).push_back(round_to(Dtype::f8_e4m3, scale * gaussian(trial + 1, draw)));
    }
    REQUIRE(error_on_hopper(a, b) <= allowed_on_hopper(a, b));
  }
}

TEST_CASE("right kernels with Hopper's sums fail by those of fp32 only", "[sums]") {
  for (const std::string& op : ops) {
    Index departs = 0;
    for (const Case& c : fp8_cases(op)) {
      INFO(op << " " << c.name);
      CHECK(passes(c, "", Sums::hopper_fp8, Sums::hopper_fp8));
      CHECK(passes(c, "", Sums::fp32, Sums::hopper_fp8));
      CHECK(passes(c, "", Sums::fp32, Sums::fp32));
      const bool exact = passes(c, "", Sums::hopper_fp8, Sums::fp32);
      CHECK((exact || c.inputs != Inputs::dyadic));
      departs += !exact;
    }
    INFO(op);
    if (op != "indexer_topk") CHECK(departs > 0);  // it chooses among few keys, and right
  }
}

TEST_CASE("wrong kernels are caught by Hopper's sums, too", "[sums][mutants][slow]") {
  for (const std::string& op : ops)
    for (const std::string& bug : fp8_bugs(op)) {
      INFO(op << ": " << bug);
      CHECK(std::any_of(fp8_cases(op).begin(), fp8_cases(op).end(), [&](const Case& c) {
        return !passes(c, bug, Sums::hopper_fp8, Sums::hopper_fp8);
      }));
    }
}

/// The second table of docs/ops.md: run with dsa_tests '[.table]'. The wrong kernels sum in fp32,
/// so that nothing but the bounds differs.
TEST_CASE("which bugs of e4m3 kernels each bound catches", "[.table]") {
  for (const std::string& op : ops)
    for (const std::string& bug : fp8_bugs(op)) {
      std::map<std::pair<Sums, Inputs>, Index> caught;
      for (const Case& c : fp8_cases(op))
        for (const Sums judged_by : {Sums::fp32, Sums::hopper_fp8})
          caught[{judged_by, c.inputs}] += !passes(c, bug, Sums::fp32, judged_by);
      const auto counts = [&](Sums sums) {
        return fmt::format("{} | {} | {}", caught[{sums, Inputs::dyadic}],
                           caught[{sums, Inputs::gaussian}], caught[{sums, Inputs::adversarial}]);
      };
      fmt::print("| {} | {} | {} | {} |\n", op, bug, counts(Sums::fp32), counts(Sums::hopper_fp8));
    }
}

TEST_CASE("files of a kernel with Hopper's sums fail with advice, and pass by --sums", "[sums]") {
  const Scratch dir;
  const auto write = [&](const std::string& to, const std::string& bug) {
    std::filesystem::create_directories(dir / to);
    for (const Case& c : fp8_cases("linear")) {
      const Arrays out = computed(c, bug, Sums::hopper_fp8);
      SafetensorsWriter file(dir / to / ("linear." + c.name + ".safetensors"),
                             {{"y", Dtype::f32, out.at("y").shape()}});
      file.append(out.at("y").bytes());
      file.commit();
    }
  };
  const auto judged = [&](const std::string& from, const std::string& sums) {
    const std::string json = (dir / "report.json").string();
    const auto result = run("dsa-verify ops --op linear --dtype fp8 --against " +
                            (dir / from).string() + " --json " + json + sums);
    return std::pair(result, read_json(json));
  };
  write("right", "");
  const auto [by_fp32, report] = judged("right", "");
  CHECK(by_fp32.status == 1);
  CHECK_THAT(by_fp32.out, Contains("lies within the sums of Hopper's FP8 tensor cores (14 bits)"));
  CHECK(report["sums"] == "fp32");
  CHECK(report["ops"][0]["verdict"] == "fail");
  CHECK_THAT(report["ops"][0]["advice"].get<std::string>(), Contains("--sums hopper-fp8"));

  const auto [by_hopper, passed] = judged("right", " --sums hopper-fp8");
  CHECK(by_hopper.status == 0);
  CHECK_THAT(by_hopper.out, Contains("by the sums of Hopper's"));
  CHECK(passed["sums"] == "hopper-fp8");
  CHECK(passed["ops"][0]["advice"].is_null());

  write("wrong", "last step dropped");
  CHECK(judged("wrong", "").second["ops"][0]["advice"].is_null());
  CHECK(judged("wrong", " --sums hopper-fp8").first.status == 1);
  CHECK_THAT(complaint("dsa-verify ops --sums hopper-fp8"), Contains("give one of them"));
}

TEST_CASE("a dump says by which sums it allows", "[sums]") {
  const Scratch dir;
  OpsOptions options;
  options.op = "linear";
  options.dtype = "fp8";
  const auto allowed = [&](Sums sums) {
    const std::filesystem::path to = dir / std::string(name_of(sums));
    options.sums = sums;
    dump_cases(to, options);
    CHECK(read_json(to / "index.json")["sums"] == name_of(sums));
    const auto file = SafetensorsFile::open(to / "linear.fp8-T3-C128-F5-gaussian.safetensors");
    double first = 0;
    std::memcpy(&first, file.at("allowed.y").data, sizeof first);
    return first;
  };
  CHECK(allowed(Sums::hopper_fp8) > 10 * allowed(Sums::fp32));
}
