// The suite of kernels: does it accept what is right and notice everything that is wrong?
#include <fmt/format.h>

#include <set>

#include "core/json.hpp"
#include "core/random.hpp"
#include "core/threads.hpp"
#include "reference/ops/mla.hpp"
#include "tests/catch.hpp"
#include "tests/cuda/scalar_kernels.hpp"
#include "tests/verify/backward_attention.hpp"
#include "verify/kernels/cases/pose.hpp"
#include "verify/kernels/suite.hpp"

using Catch::Matchers::Contains;
using namespace dsa;
using namespace dsa::test;
using namespace dsa::verify;
using namespace dsa::verify::kernels;

namespace {

constexpr double small = 5e5;  // flops of a case that many wrong kernels are put to

/// The small cases of an op, posed once. References stay good.
const std::vector<Case>& small_cases(const Op& op) {
  static std::map<std::string_view, std::vector<Case>> all;
  std::vector<Case>& cases = all[op.name];
  if (cases.empty())
    for (const auto& pose : op.cases(1))
      if (Case c = pose(); c.flops <= small) cases.push_back(std::move(c));
  return cases;
}

/// Calls `visit` on every small case whose outputs have something in them.
void for_each_case(const Op& op, const std::function<void(const Case&)>& visit) {
  for (const Case& c : small_cases(op))
    if (c.refusal.empty() && !c.is_empty()) visit(c);
}

/// What a perfect kernel writes: the answers in the output's type.
Arrays ideal(const Case& c) {
  Arrays out = c.out;
  for (auto& [name, array] : out)
    if (c.want.contains(name)) array = Array(array.dtype(), array.shape(), c.want.at(name));
  return out;
}

/// Rows of the FP8 cache, whose answer is told in parts.
bool has_answer(const Case& c) { return c.op->name != "latent_e4m3"; }

bool accepts(const Case& c, const Arrays& out) { return judge_outputs(c, out).failure.empty(); }

using Corrupt = std::function<void(std::vector<double>&, Index width)>;
struct Corruption {
  const char* name;
  bool decisions;  // of a selection, or of numbers
  Corrupt apply;
};

/// House rule: every one of these has passed some well-known comparator.
const std::vector<Corruption> corruptions = {
    {"one NaN", false, [](auto& x, Index) { x[x.size() / 2] = NAN; }},
    {"sign flip", false,
     [](auto& x, Index) {
       auto largest = std::max_element(x.begin(), x.end(), [](double a, double b) {
         return (std::isfinite(a) ? std::abs(a) : 0) < (std::isfinite(b) ? std::abs(b) : 0);
       });
       *largest = -*largest;
     }},
    {"x2", false,
     [](auto& x, Index) {
       for (double& v : x)
         if (v != 0 && std::isfinite(v)) {
           v *= 2;
           return;
         }
     }},
    {"row zeroed", false, [](auto& x, Index width) { std::fill(x.end() - width, x.end(), 0.0); }},
    {"x1.001", false,
     [](auto& x, Index) {
       for (double& v : x) v *= 1.001;
     }},
    {"shifted column", false,
     [](auto& x, Index) { std::rotate(x.begin(), x.begin() + 1, x.end()); }},
    {"one key wrong", true,
     [](auto& x, Index width) {  // the last row's last key becomes one that nobody chose
       for (double s = 0;; ++s)
         if (std::find(x.end() - width, x.end(), s) == x.end()) {
           *(std::find(x.end() - width, x.end(), -1.0) - 1) = s;
           std::sort(x.end() - width, std::find(x.end() - width, x.end(), -1.0));
           return;
         }
     }},
    {"one key missing", true,
     [](auto& x, Index width) { *(std::find(x.end() - width, x.end(), -1.0) - 1) = -1; }},
    {"one key twice", true,
     [](auto& x, Index width) {
       const auto end = std::find(x.end() - width, x.end(), -1.0);
       *(end - 1) = *(end - 2);
     }},
    {"order", true, [](auto& x, Index width) {
       const auto end = std::find(x.end() - width, x.end(), -1.0);
       std::swap(*(end - 1), *(end - 2));
     }}};

bool is_decision(const Array& x) { return x.dtype() == Dtype::i32; }

bool same_bytes(const Array& a, const Array& b) {
  return std::equal(a.bytes().begin(), a.bytes().end(), b.bytes().begin(), b.bytes().end());
}

bool has_output(const Case& c, const std::string& output) {
  return c.out.contains(output) && c.out.at(output).size() > 0;
}

/// Whether some case of the dtype rejects this corruption of this output, or none is changed by it:
/// in bf16 and e4m3, what is 1.001 times as large rounds to what it was.
bool is_caught(const Op& op, const std::string& dtype, const std::string& output,
               const Corruption& corruption) {
  bool caught = false, changed = false, applied = false;
  for_each_case(op, [&](const Case& c) {
    if (caught || c.dtype != dtype || !has_output(c, output)) return;
    Arrays out = ideal(c);
    Array& x = out.at(output);
    std::vector<double> values = x.values();
    const Index width = x.shape().back();
    const auto chosen =
        std::count_if(values.end() - width, values.end(), [](double s) { return s >= 0; });
    if (is_decision(x) && chosen < 2) return;
    corruption.apply(values, width);
    applied = true;
    x = Array(x.dtype(), x.shape(), values);
    changed = changed || !same_bytes(x, ideal(c).at(output));
    caught = !accepts(c, out);
  });
  return applied && (caught || !changed);
}

Kernel scalar(const ScalarKernel& k, const std::string& bug) {
  // As of a device: thread counts mean nothing to it.
  Kernel kernel{k.op, "scalar", bug, "fp32", Ran::device, {}, {}};
  kernel.prepare = [run = k.run, bug](const Case& c, Arrays& out) -> Launch {
    return {[=, &c, &out] { run(c, out, bug); }, {}};
  };
  return kernel;
}

std::vector<ScalarKernel> all_scalar_kernels() {
  std::vector<ScalarKernel> kernels = scalar_kernels();
  for (ScalarKernel& k : backward_kernels()) kernels.push_back(std::move(k));
  return kernels;
}

}  // namespace

TEST_CASE("the answers of every case are within what is allowed", "[ops][slow]") {
  for (const Op& op : all_ops()) {
    Index n = 0;
    std::set<std::string> names, dtypes;
    for (const Case& c : small_cases(op)) {
      INFO(op.name << " " << c.name);
      CHECK(names.insert(c.name).second);
      dtypes.insert(c.dtype);
      if (c.refusal.empty() && has_answer(c)) {
        CHECK(judge_outputs(c, ideal(c)).failure.empty());
        CHECK((c.is_empty() || !accepts(c, c.out)));  // poison is not an answer
        ++n;
      }
    }
    INFO(op.name);
    CHECK((n >= 10 || op.name == "latent_e4m3"));
    CHECK(dtypes == std::set<std::string>(op.dtypes.begin(), op.dtypes.end()));
  }
}

TEST_CASE("a case is the same whoever asks, and another with another seed", "[ops]") {
  const Op& op = op_named("mla_sparse");
  const Case a = op.cases(1)[3](), b = op.cases(1)[3](), other = op.cases(2)[3]();
  CHECK(a.name == other.name);
  CHECK(a.in.at("kv").values() == b.in.at("kv").values());
  CHECK(a.in.at("kv").values() != other.in.at("kv").values());
}

TEST_CASE("every corruption of every output is caught by some case", "[ops][slow]") {
  for (const Op& op : all_ops())
    for (const std::string& dtype : op.dtypes) {
      const Case& first = small_cases(op)[1];
      if (!has_answer(first)) continue;
      for (const auto& [output, array] : first.out)
        for (const Corruption& corruption : corruptions) {
          if (corruption.decisions != is_decision(array)) continue;
          INFO(op.name << " " << dtype << " " << output << ": " << corruption.name);
          CHECK(is_caught(op, dtype, output, corruption));
        }
    }
}

TEST_CASE("a mask that leaks or grows is caught", "[ops]") {
  for_each_case(op_named("indexer_scores"), [](const Case& c) {
    Arrays out = ideal(c);
    const auto scores = out.at("scores").as<float, 2>();
    const auto hidden = std::find(scores.begin(), scores.end(), -INFINITY);
    const auto seen =
        std::find_if(scores.begin(), scores.end(), [](float s) { return s > -INFINITY; });
    INFO(c.name);
    if (hidden != scores.end()) {
      *hidden = 0;
      CHECK_FALSE(accepts(c, out));
      *hidden = -INFINITY;
    }
    if (seen != scores.end()) {
      *seen = -INFINITY;
      CHECK_FALSE(accepts(c, out));
    }
  });
}

TEST_CASE("attention's answers are those of the reference's absorbed form", "[ops]") {
  const Op& op = op_named("mla_sparse");
  for (const std::size_t i : {2u, 3u, 4u}) {
    const Case c = op.cases(1)[i]();
    const auto q = widen<3>(c.in.at("q"));
    const auto kv = widen<2>(c.in.at("kv")), picked = widen<2>(c.in.at("chosen"));
    const Index T = q.shape()[0], N = q.shape()[1], R = c.integer("R"), P = q.shape()[2] - R,
                S = kv.shape()[0];
    Tensor<double, 3> q_nope({T, N, R}), q_rope({T, N, P}), identity({N, 2 * R, R}), out({T, N, R});
    Tensor<double, 2> c_kv({S, R}), k_rope({S, P});
    Tensor<Index, 2> chosen(picked.shape());
    for (Index j = 0; j < chosen.size(); ++j)
      chosen.data()[j] = static_cast<Index>(picked.data()[j]);
    for (Index r = 0; r < R; ++r) {
      for (Index n = 0; n < N; ++n) identity(n, r, r) = identity(n, R + r, r) = 1;
      for (Index s = 0; s < S; ++s) c_kv(s, r) = kv(s, r);
      for (Index j = 0; j < T * N; ++j) q_nope.data()[j * R + r] = q.data()[j * (R + P) + r];
    }
    for (Index p = 0; p < P; ++p) {
      for (Index s = 0; s < S; ++s) k_rope(s, p) = kv(s, R + p);
      for (Index j = 0; j < T * N; ++j) q_rope.data()[j * P + p] = q.data()[j * (R + P) + R + p];
    }
    reference::mla_absorbed<double>(out, q_nope, q_rope, c_kv, k_rope, identity, chosen,
                                    c.scalar("scale"));
    INFO(c.name);
    for (Index j = 0; j < out.size(); ++j)
      CHECK(c.want.at("out")[static_cast<std::size_t>(j)] == Approx(out.data()[j]).margin(1e-13));
  }
}

TEST_CASE("right scalar kernels pass, and every wrong one is caught", "[ops][mutants][slow]") {
  for (const ScalarKernel& k : all_scalar_kernels()) {
    std::map<std::string, bool> caught;
    for (const Case& c : small_cases(op_named(k.op))) {
      if (c.dtype != "fp32") continue;
      const CaseResult right = run_case(scalar(k, ""), c);
      INFO(k.op << " " << c.name << ": " << right.failure);
      CHECK(right.failure.empty());
      for (const std::string& bug : k.bugs)
        if (!caught[bug]) caught[bug] = !run_case(scalar(k, bug), c).failure.empty();
    }
    for (const std::string& bug : k.bugs) {
      INFO(k.op << ": " << bug);
      CHECK(caught[bug]);
    }
  }
}

/// The table of docs/ops.md: run with dsa_tests '[.table]'.
TEST_CASE("which case catches which bug", "[.table]") {
  for (const ScalarKernel& k : all_scalar_kernels())
    for (const std::string& bug : k.bugs) {
      Index caught = 0, exact = 0, hard = 0;
      std::string first;
      for (const Case& c : small_cases(op_named(k.op))) {
        if (c.dtype != "fp32" || c.is_empty()) continue;
        if (run_case(scalar(k, bug), c).failure.empty()) continue;
        if (++caught == 1) first = c.name;
        exact += c.inputs == Inputs::dyadic, hard += c.inputs == Inputs::adversarial;
      }
      fmt::print("| {} | {} | {} | {} | {} | {} |\n", k.op, bug, exact, caught - exact - hard, hard,
                 first);
    }
}

TEST_CASE("a kernel must behave, not only be right", "[ops]") {
  const ScalarKernel linear = scalar_kernels()[0];
  const Case c = op_named("linear").cases(1)[3]();
  const auto failure = [&](const std::function<void(const Case&, Arrays&)>& run) {
    Kernel kernel = scalar(linear, "");
    kernel.ran = Ran::host;
    kernel.prepare = [=](const Case& asked, Arrays& out) -> Launch {
      return {[=, &asked, &out] {
                scalar_linear(asked, out, "");
                run(asked, out);
              },
              {}};
    };
    return run_case(kernel, c).failure;
  };
  CHECK(failure([](auto&, auto&) {}).empty());
  CHECK_THAT(failure([](auto&, auto& out) { out.at("y").template as<float, 2>().data[-1] = 0; }),
             Contains("wrote beside an output"));
  CHECK_THAT(failure([](auto& asked, auto&) {
               const_cast<Case&>(asked).in.at("x").bytes()[0] ^= std::byte{1};
             }),
             Contains("input") || Contains("other bits") || Contains("y:"));
  int calls = 0;
  CHECK_THAT(failure([&](auto&, auto& out) {
               float& y = out.at("y").template as<float, 2>()(0, 0);
               if (++calls > 5 && y != 0) y = std::nextafter(y, 100.0f);
             }),
             Contains("other bits in run 6 of 20"));
  CHECK_THAT(failure([&](auto&, auto& out) {
               float& y = out.at("y").template as<float, 2>()(0, 0);
               if (threads() == 3) y = std::nextafter(y, 100.0f);
             }),
             Contains("threads"));
  CHECK_THAT(failure([](auto&, auto&) { throw Error("no"); }), Contains("failed with \"no\""));
}

TEST_CASE("what is missing is a row, and nothing that ran is no pass", "[ops]") {
  OpsOptions options;
  options.op = "rope";
  const OpsReport none = check_kernels(options, {});
  CHECK(none.outcome == Outcome::inconclusive);
  REQUIRE(none.rows.size() == 2);
  CHECK(none.rows[0].why == "not implemented");
  CHECK(none.rows[0].verdict == KernelVerdict::not_run);

  const ScalarKernel rope = scalar_kernels()[5];
  Kernel reluctant = scalar(rope, "");
  reluctant.refuses = [](const Case&) { return "never"; };
  const OpsReport refused = check_kernels(options, {reluctant});
  CHECK(refused.rows[0].verdict == KernelVerdict::refused);
  CHECK(refused.rows[0].why == "never");
  CHECK(refused.outcome == Outcome::inconclusive);

  const OpsReport both =
      check_kernels(options, {scalar(rope, ""), scalar(rope, "turned backwards")});
  CHECK(both.rows[0].verdict == KernelVerdict::pass);
  CHECK(both.rows[1].verdict == KernelVerdict::fail);
  CHECK(both.outcome == Outcome::fail);
  const Json json = to_json(both);
  CHECK(json["verdict"] == "fail");
  CHECK(json["ops"][0]["worst_over_allowed"].get<double>() <= 1);
  CHECK(json["ops"][1]["ran"] == "device");
  CHECK(json["ops"][1]["failed"].get<Index>() > 0);
  CHECK_THAT(table(both, false), Contains("turned backwards"));
  CHECK_THAT(table(none, false), Contains("cpu: not implemented: rope fp32"));

  options.op = "nothing";
  CHECK_THROWS_WITH(check_kernels(options, {}), Contains("there is no op \"nothing\""));
  options.op = "rope";
  options.rung = "v9";
  CHECK_THROWS_WITH(check_kernels(options, {scalar(rope, "")}),
                    Contains("there is nothing to judge"));
}

TEST_CASE("every CPU kernel that can run here is right", "[ops][kernels][slow]") {
  OpsOptions options;
  options.backend = "cpu";
  for (const KernelResult& row : check_kernels(options).rows) {
    INFO(row.op << " " << row.backend << " " << row.rung << " " << row.dtype << ": " << row.why);
    CHECK(row.verdict != KernelVerdict::fail);
  }
}
