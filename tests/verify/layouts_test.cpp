// Other people's layouts: bytes at the offsets that their sources state, and the way back.
#include "verify/kernels/peers/layouts.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>

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

namespace {

constexpr double inf = std::numeric_limits<double>::infinity();

/// Byte j of row s is a number that tells both.
Array marked_rows(Index S, Index width) {
  Array rows(Dtype::u8, {S, width});
  for (Index i = 0; i < S * width; ++i)
    rows.bytes()[static_cast<std::size_t>(i)] =
        static_cast<std::byte>((i / width * 31 + i % width) % 251);
  return rows;
}

bool same_bytes(const Array& a, const Array& b) {
  return a.shape() == b.shape() &&
         std::memcmp(a.bytes().data(), b.bytes().data(), a.bytes().size()) == 0;
}

/// One case of an op, by its place: posing all of them takes long.
Case case_at(const std::string& op, std::size_t i, const std::string& name) {
  Case c = op_named(op).cases(1).at(i)();
  REQUIRE(c.name == name);
  return c;
}

float float_at(const Array& x, Index byte) {
  float value = 0;
  std::memcpy(&value, x.bytes().data() + byte, sizeof value);
  return value;
}

}  // namespace

TEST_CASE("FlashMLA's cache: rows of 656 bytes, pages of 64 rows", "[layouts]") {
  const Array rows = marked_rows(150, 656);
  const std::vector<Index> blocks = {2, 0, 1};
  const Array cache = flashmla_cache(rows, blocks);
  CHECK(cache.shape() == std::vector<Index>{3, 64, 1, 656});
  const auto byte_of = [&](Index s, Index j) { return static_cast<std::byte>((s * 31 + j) % 251); };
  // Row 70 is row 6 of page 1, which lies at block 0; row 149 is row 21 of page 2, at block 1.
  CHECK(cache.bytes()[6 * 656 + 528] == byte_of(70, 528));
  CHECK(cache.bytes()[64 * 656 + 21 * 656] == byte_of(149, 0));
  CHECK(cache.bytes()[2 * 64 * 656] == byte_of(0, 0));
  CHECK(cache.bytes()[64 * 656 + 22 * 656] == std::byte{0});
  CHECK(same_bytes(flashmla_rows(cache, blocks, 150), rows));
  CHECK_THROWS_WITH(flashmla_cache(rows, {0, 1}), Contains("2 blocks, expected 3"));
}

TEST_CASE("DeepGEMM's cache: the scales of a page behind its keys", "[layouts]") {
  const Array rows = marked_rows(70, 132);
  const std::vector<Index> blocks = {1, 0};
  const Array cache = deepgemm_cache(rows, blocks);
  CHECK(cache.shape() == std::vector<Index>{2, 64, 1, 132});
  const auto byte_of = [&](Index s, Index j) { return static_cast<std::byte>((s * 31 + j) % 251); };
  constexpr std::size_t page = 64 * 132;
  CHECK(cache.bytes()[page + 3 * 128 + 5] == byte_of(3, 5));             // key 3, channel 5
  CHECK(cache.bytes()[page + 64 * 128 + 4 * 3 + 1] == byte_of(3, 129));  // its scale
  CHECK(cache.bytes()[5 * 128] == byte_of(69, 0));
  CHECK(cache.bytes()[8192 + 4 * 5] == byte_of(69, 128));
  CHECK(same_bytes(deepgemm_rows(cache, blocks, 70), rows));
}

TEST_CASE("indices point into blocks, and -1 points nowhere", "[layouts]") {
  const Array chosen(Dtype::i32, {2, 3}, std::vector<double>{0, 70, -1, -1, 149, 64});
  const std::vector<Index> blocks = {2, 0, 1};
  const Array indices = flashmla_indices(chosen, blocks, 4);
  CHECK(indices.values() == std::vector<double>{128, 6, -1, -1, -1, 85, 0, -1});
  CHECK(flashmla_chosen(indices, blocks, 3).values() == chosen.values());
  CHECK(flashmla_indices(chosen, {}, 128).shape() == std::vector<Index>{2, 128});
  CHECK(flashmla_indices(chosen, {}, 3).values() == chosen.values());
  CHECK(blocks_of(150) == std::vector<Index>{2, 0, 1});
  CHECK(blocks_of(4 * 64 + 1) == std::vector<Index>{4, 0, 3, 1, 2});
}

TEST_CASE("lse: FlashMLA's is natural and +inf where empty, TileLang's in base 2", "[layouts]") {
  CHECK(lse_of(inf, flashmla_lse) == -inf);
  CHECK(lse_of(1.5, flashmla_lse) == 1.5);
  CHECK(lse_of(3, tilelang_lse) == Approx(std::log(8)));
  CHECK(lse_of(-inf, tilelang_lse) == -inf);
  for (const LseConvention& convention : {flashmla_lse, tilelang_lse})
    CHECK(std::isnan(lse_of(std::nan(""), convention)));
  for (const LseConvention& convention : {flashmla_lse, tilelang_lse})
    for (const double ours : {-inf, -2.0, 7.25})
      CHECK(lse_of(lse_as(ours, convention), convention) == Approx(ours));
}

TEST_CASE("a case in FlashMLA's layout has V3.2's shapes, whatever its own", "[layouts]") {
  const PeerLayout& flashmla = peer_layout_named("flashmla");
  const Case c = case_at("mla_sparse", 62, "fp8-T3-S40-N5-R130-P10-K17-gaussian");
  const Arrays in = flashmla.inputs(c);
  CHECK(in.at("q").shape() == std::vector<Index>{3, 1, 64, 576});
  CHECK(in.at("k_cache").shape() == std::vector<Index>{1, 64, 1, 656});
  CHECK(in.at("indices").shape() == std::vector<Index>{3, 1, 64});
  // Row 7 of 130 + 10 channels: 2 scales behind its 130 e4m3, then its bf16.
  const Array& rows = c.in.at("kv");
  const Array& cache = in.at("k_cache");
  REQUIRE(rows.shape()[1] == 130 + 8 + 20);
  CHECK(cache.bytes()[7 * 656 + 129] == rows.bytes()[7 * 158 + 129]);
  CHECK(cache.bytes()[7 * 656 + 130] == std::byte{0});
  CHECK(float_at(cache, 7 * 656 + 512) == float_at(rows, 7 * 158 + 130));
  CHECK(float_at(cache, 7 * 656 + 516) == float_at(rows, 7 * 158 + 134));
  CHECK(float_at(cache, 7 * 656 + 524) == 1.0f);
  CHECK(cache.bytes()[7 * 656 + 528 + 19] == rows.bytes()[7 * 158 + 138 + 19]);
  CHECK(cache.bytes()[7 * 656 + 528 + 20] == std::byte{0});
  const Case wide = case_at("mla_sparse", 40, "bf16-T2-S400-N128-R512-P64-K256-gaussian");
  CHECK(flashmla.inputs(wide).at("kv").shape() == std::vector<Index>{400, 1, 576});
  CHECK(flashmla.inputs(wide).at("indices").shape() == std::vector<Index>{2, 1, 256});
  CHECK_THAT(flashmla.refuses(case_at("mla_sparse", 9, "fp32-T1-S1-N1-R1-P1-K1-gaussian")),
             Contains("no fp32"));
}

TEST_CASE("a case in TileLang's layout lets its queries see all keys", "[layouts]") {
  const PeerLayout& tilelang = peer_layout_named("tilelang");
  const Case c = case_at("mla_sparse", 44, "bf16-T9-S60-N5-R48-P16-K33-adversarial-holes");
  const Arrays in = tilelang.inputs(c);
  CHECK(in.at("q").shape() == std::vector<Index>{1, 9, 64, 576});
  CHECK(in.at("kv").shape() == std::vector<Index>{1, 60, 1, 576});
  CHECK(in.at("indices").shape() == std::vector<Index>{1, 9, 1, 128});
  CHECK(in.at("q_start_index_s").values() == std::vector<double>{60});
  const std::vector<double> indices = in.at("indices").values(), ours = c.in.at("chosen").values();
  for (std::size_t t = 0; t < 9; ++t)
    for (std::size_t i = 0; i < 128; ++i) {
      const double s = i < 33 ? ours[t * 33 + i] : -1;
      CHECK(indices[t * 128 + i] == (s < 0 ? 69 : s));  // behind the last query's position, 68
    }
  const Case fp8 = case_at("mla_sparse", 62, "fp8-T3-S40-N5-R130-P10-K17-gaussian");
  CHECK_THAT(tilelang.refuses(fp8), Contains("bf16"));
  const Case one = case_at("mla_sparse", 26, "bf16-T1-S1-N1-R1-P1-K1-dyadic");
  CHECK(tilelang.inputs(one).at("q_start_index_s").values() == std::vector<double>{2});
}

TEST_CASE("a case in DeepGEMM's layout has its heads and channels", "[layouts]") {
  const PeerLayout& deepgemm = peer_layout_named("deepgemm");
  const Case c = case_at("indexer_scores", 96, "fp8-T17-S130-H33-D96-gaussian");
  const Arrays in = deepgemm.inputs(c);
  CHECK(in.at("q").shape() == std::vector<Index>{17, 64, 128});
  CHECK(in.at("weights").shape() == std::vector<Index>{17, 64});
  CHECK(in.at("kv_cache").shape() == std::vector<Index>{3, 64, 1, 132});
  CHECK(in.at("block_table").shape() == std::vector<Index>{17, 3});
  const Array &rows = c.in.at("k"), &q = c.in.at("q");
  CHECK(in.at("q").bytes()[(2 * 64 + 32) * 128 + 95] == q.bytes()[(2 * 33 + 32) * 96 + 95]);
  CHECK(in.at("q").bytes()[(2 * 64 + 33) * 128] == std::byte{0});
  CHECK(float_at(in.at("weights"), 4 * (2 * 64 + 32)) == float_at(c.in.at("w"), 4 * (2 * 33 + 32)));
  CHECK(float_at(in.at("weights"), 4 * (2 * 64 + 33)) == 0.0f);
  CHECK(float_at(in.at("k_scale"), 4 * 129) == float_at(rows, 129 * 100 + 96));
  // Key 129 is row 1 of page 2, which lies at block 1.
  constexpr Index page = 64 * 132;
  CHECK(in.at("kv_cache").bytes()[page + 128 + 95] == rows.bytes()[129 * 100 + 95]);
  CHECK(float_at(in.at("kv_cache"), page + 64 * 128 + 4) == float_at(rows, 129 * 100 + 96));
  CHECK_THAT(deepgemm.refuses(case_at("indexer_scores", 101, "fp8-T12-S300-H128-D128-gaussian")),
             Contains("64 index heads"));
}

TEST_CASE("pages that are not full, and a scale for every key", "[layouts]") {
  const auto poses = op_named("indexer_scores").cases(1);
  std::set<Index> lengths;
  for (std::size_t i = poses.size() - 4; i < poses.size(); ++i) {
    const Case c = poses[i]();
    INFO(c.name);
    REQUIRE_THAT(c.name, Contains("gaussian-ragged-page"));
    const std::vector<double> ends = c.in.at("end").values();
    for (const double end : ends) lengths.insert(static_cast<Index>(end) % 64);
    const std::vector<double> scales =
        peer_layout_named("deepgemm").inputs(c).at("k_scale").values();
    CHECK(std::set<double>(scales.begin(), scales.end()).size() == scales.size());
  }
  for (const Index length : {1, 2, 3, 63}) CHECK(lengths.contains(length));
}

TEST_CASE("what a kernel answers in its layout is judged as ours", "[layouts]") {
  const PeerLayout& flashmla = peer_layout_named("flashmla");
  const Case c = case_at("mla_sparse", 44, "bf16-T9-S60-N5-R48-P16-K33-adversarial-holes");
  const std::vector<double>&out = c.want.at("out"), &lse = c.want.at("lse");
  REQUIRE(std::count(lse.begin(), lse.end(), -inf) == 2 * 5);  // two queries chose nothing
  std::vector<double> their_out(9 * 64 * 512), their_lse(9 * 64);
  for (std::size_t t = 0; t < 9; ++t)
    for (std::size_t n = 0; n < 5; ++n) {
      their_lse[t * 64 + n] = lse_as(lse[t * 5 + n], flashmla_lse);
      for (std::size_t i = 0; i < 48; ++i)
        their_out[(t * 64 + n) * 512 + i] = out[(t * 5 + n) * 48 + i];
    }
  const auto failure = [&](const std::vector<double>& l) {
    const Arrays theirs = {{"out", Array(Dtype::bf16, {9, 64, 512}, their_out)},
                           {"lse", Array(Dtype::f32, {9, 64}, l)}};
    return judge_outputs(c, flashmla.ours(c, theirs)).failure;
  };
  CHECK(failure(their_lse).empty());
  std::vector<double> base_two = their_lse;
  for (double& x : base_two) x /= std::log(2);
  CHECK_THAT(failure(base_two), Contains("lse"));
  CHECK_THROWS_WITH(flashmla.ours(c, {{"out", Array(Dtype::bf16, {9, 5, 48})}}),
                    Contains("has shape (9, 5, 48), expected (9, 64, 512)"));
}

TEST_CASE("TileLang's 0/0 is forgiven where a query chose nothing, and nowhere else", "[layouts]") {
  const PeerLayout& tilelang = peer_layout_named("tilelang");
  const Case c = case_at("mla_sparse", 44, "bf16-T9-S60-N5-R48-P16-K33-adversarial-holes");
  std::vector<double> out(9 * 64 * 512), lse(9 * 64);
  for (std::size_t t = 0; t < 9; ++t)
    for (std::size_t n = 0; n < 5; ++n) {
      const double ours = c.want.at("lse")[t * 5 + n];
      lse[t * 64 + n] = lse_as(ours, tilelang_lse);
      for (std::size_t i = 0; i < 48; ++i)
        out[(t * 64 + n) * 512 + i] =
            ours == -inf ? std::nan("") : c.want.at("out")[(t * 5 + n) * 48 + i];
    }
  const auto failure = [&] {
    const Arrays theirs = {{"out", Array(Dtype::bf16, {1, 9, 64, 512}, out)},
                           {"lse", Array(Dtype::f32, {1, 9, 64}, lse)}};
    return judge_outputs(c, tilelang.ours(c, theirs)).failure;
  };
  REQUIRE(c.want.at("lse")[1 * 5] == -inf);  // query 1 chose nothing
  REQUIRE(c.want.at("lse")[0] != -inf);
  CHECK(failure().empty());
  out[64 * 512] = 1;
  CHECK_THAT(failure(), Contains("out"));
  out[64 * 512] = std::nan(""), out[0] = std::nan("");
  CHECK_THAT(failure(), Contains("got nan"));
}

TEST_CASE("cases are dumped in a layout, and judged in it", "[layouts]") {
  const Scratch dir;
  OpsOptions options;
  options.op = "indexer_scores";
  options.dtype = "fp8";
  const PeerLayout& deepgemm = peer_layout_named("deepgemm");
  dump_cases(dir / "cases", options, &deepgemm);
  const Json index = read_json(dir / "cases" / "index.json");
  CHECK(index["layout"] == "deepgemm");
  const Case c = case_at("indexer_scores", 96, "fp8-T17-S130-H33-D96-gaussian");
  const std::string name = "indexer_scores." + c.name + ".safetensors";
  CHECK(SafetensorsFile::open(dir / "cases" / name).at("in.kv_cache").shape ==
        std::vector<Index>{3, 64, 1, 132});
  std::vector<double> logits = c.want.at("scores");
  for (double& x : logits)
    if (x == -inf) x = 1e9;  // what no query sees, DeepGEMM leaves as it was
  std::filesystem::create_directories(dir / "mine");
  SafetensorsWriter out(dir / "mine" / name, {{"logits", Dtype::f32, {17, 130}}});
  out.append_values(logits);
  out.commit();
  const OpsReport report = check_files(dir / "mine", options, &deepgemm);
  CHECK(report.outcome == Outcome::pass);
  CHECK(report.rows[0].rung == "deepgemm");
  CHECK(report.rows[0].cases == 1);
  CHECK_THROWS_WITH(peer_layout_named("cutlass"), Contains("flashmla, tilelang and deepgemm"));
}
