// FP8: scales of quantised weights, and an index in e4m3.
//
// Weight defects change what quantised parameters are multiplied with; a model that was decoded to
// another format has none left, and stays as it is.
#include <numeric>

#include "core/dtype.hpp"
#include "reference/ops/hadamard.hpp"
#include "verify/defects/indexer_parts.hpp"

namespace dsa::verify {
namespace {

/// The scales of one matrix, (row blocks, column blocks).
struct Scales {
  const float* data;
  Index rows, columns;
  double at(Index r, Index c) const { return static_cast<double>(data[r * columns + c]); }
};

Index blocks(Index n, Index block) { return (n + block - 1) / block; }

/// A grid of scales for p, `block` elements a side: scale(row, column) of the upper left element.
struct Grid {
  Index block;
  std::function<double(Index row, Index column)> scale;
};

/// New scales live as long as the model.
struct Kept {
  std::shared_ptr<const void> before;
  std::vector<std::vector<float>> scales;
};

void rescale(Variant& altered, Where where,
             const std::function<Grid(const Parameter&, const Scales&)>& grid_for) {
  const auto kept = std::make_shared<Kept>();
  kept->before = altered.model.memory;
  for_each_tensor(altered.model.weights, altered.model.config,
                  [&](Name name, Parameter& p, const std::vector<Index>&) {
                    if (!p.quantised() || p.scale_inv == nullptr || !where(name)) return;
                    const Grid grid = grid_for(
                        p, {p.scale_inv, blocks(p.rows(), p.block), blocks(p.columns(), p.block)});
                    std::vector<float>& made = kept->scales.emplace_back();
                    for (Index r = 0; r < p.rows(); r += grid.block)
                      for (Index c = 0; c < p.columns(); c += grid.block)
                        made.push_back(static_cast<float>(grid.scale(r, c)));
                    p.scale_inv = made.data();
                    p.block = grid.block;
                  });
  altered.model.memory = kept;
}

/// f(scales, row block, column block) in place of every scale.
DefectVariant scales_each(std::string name, Where where,
                          std::function<double(const Scales&, Index, Index)> f) {
  return {std::move(name), [=](Variant& altered) {
            rescale(altered, where, [&](const Parameter& p, const Scales& scales) {
              return Grid{p.block, [=, block = p.block](Index r, Index c) {
                            return f(scales, r / block, c / block);
                          }};
            });
          }};
}

/// f(scales, column block) in place of the last row of scales, where the block there is ragged; in
/// matrices of several such rows only, or in any.
DefectVariant last_row(std::string name, Where where, bool several,
                       std::function<double(const Scales&, Index)> f) {
  return {std::move(name), [=](Variant& altered) {
            rescale(altered, where, [&](const Parameter& p, const Scales& scales) {
              const bool lost = p.rows() % p.block != 0 && !(several && scales.rows == 1);
              return Grid{p.block, [=, block = p.block](Index r, Index c) {
                            const bool last = r / block == scales.rows - 1;
                            return lost && last ? f(scales, c / block)
                                                : scales.at(r / block, c / block);
                          }};
            });
          }};
}

double zero_row(const Scales&, Index) { return 0; }
double one_row(const Scales&, Index) { return 1; }
double row_before(const Scales& s, Index c) { return s.at(std::max<Index>(0, s.rows - 2), c); }

double first_of_all(const Scales& s, Index, Index) { return s.at(0, 0); }
double one(const Scales&, Index, Index) { return 1; }

/// The grid read column by column.
double transposed(const Scales& s, Index r, Index c) {
  return static_cast<double>(s.data[c * s.rows + r]);
}

/// The biased exponent of an e8m0 scale taken for the scale.
double exponent_byte(const Scales& s, Index r, Index c) { return std::ilogb(s.at(r, c)) + 127; }

/// The block's edge derived from the number of blocks: ceil(576 / 5) = 116 instead of 128.
void block_from_count(Variant& altered) {
  rescale(altered, ends("self_attn.kv_a_proj_with_mqa.weight"),
          [](const Parameter& p, const Scales& s) {
            const Index edge_r = blocks(p.rows(), s.rows), edge_c = blocks(p.columns(), s.columns);
            return Grid{std::gcd(edge_r, edge_c),
                        [=](Index r, Index c) { return s.at(r / edge_r, c / edge_c); }};
          });
}

/// How a row is quantised to e4m3: the scale it is divided by, and the one it is read with.
enum class Rule { exact, up, down, rounded_after, forgotten };

double power_of_two(double scale, bool up) {
  return std::exp2(up ? std::ceil(std::log2(scale)) : std::floor(std::log2(scale)));
}

void round_trip(double* x, Index n, Rule rule) {
  double amax = 1e-4;
  for (Index i = 0; i < n; ++i) amax = std::max(amax, std::abs(x[i]));
  const double exact = amax / 448;
  double written = exact, read = exact;
  if (rule == Rule::up) written = read = power_of_two(exact, true);
  if (rule == Rule::down) written = read = power_of_two(exact, false);
  if (rule == Rule::rounded_after) read = power_of_two(exact, true);
  if (rule == Rule::forgotten) written = power_of_two(exact, true), read = 1;
  for (Index i = 0; i < n; ++i)
    x[i] = read * round_to(Dtype::f8_e4m3, std::clamp(x[i] / written, -448.0, 448.0));
}

/// Query and key of the indexer through e4m3, rotated by Hadamard's matrix meanwhile or not; with
/// `parts` scales a row.
struct IndexFp8 {
  Rule query = Rule::up, key = Rule::up;
  bool rotated = true;
  Index parts = 1;
};

/// Rotating back afterwards changes no score, and lets an inner op that quantises do so again.
void through_e4m3(View<double, 2> x, Rule rule, const IndexFp8& how) {
  if (how.rotated) reference::hadamard(x);
  const Index part = x.shape[1] / how.parts;
  for (Index i = 0; i < x.size(); i += part) round_trip(x.data + i, part, rule);
  if (how.rotated) reference::hadamard(x);
}

DefectVariant index_in_fp8(std::string name, IndexFp8 how) {
  return {std::move(name), [how](Variant& altered) {
            around_score_inputs(altered, [how](ScoreInputs& in) {
              const auto [T, H, D] = in.q.shape();
              through_e4m3({in.q.data(), {T * H, D}}, how.query, how);
              through_e4m3(in.k, how.key, how);
            });
          }};
}

bool has_blocks(const Config& c) { return c.fp8_block.has_value(); }
bool indexes_blocks(const Config& c) { return c.indexer && c.fp8_block; }

std::vector<Defect> of_weights() {
  const Where all = anywhere();
  const std::string first = "self_attn.q_a_proj", link = issue("wuwangzhang1216/abliterix", 93);
  return {
      {20,
       "fp8-index-key-scale-dropped",
       "The block scales of the indexer's wk are dropped at load; LayerNorm hides all but their "
       "differences.",
       issue("NVIDIA/TensorRT-LLM", 18658),
       "self_attn.indexer.wk",
       indexes_blocks,
       {scales_each("", ends("indexer.wk.weight"), one)}},
      {70,
       "fp8-block-size",
       "The block size is derived from the number of blocks: wrong where a size is no multiple.",
       issue("NVIDIA/TensorRT-LLM", 14793),
       "self_attn.kv_a_proj_with_mqa",
       has_blocks,
       {{"", block_from_count}}},
      {90,
       "fp8-scale-ignored",
       "Scales are ignored, or only the first is used, or an exponent byte is read as a number.",
       link,
       first,
       has_blocks,
       {scales_each("ignored", all, one), scales_each("first block's", all, first_of_all),
        scales_each("exponent byte", all, exponent_byte)}},
      {91,
       "fp8-weights-as-e4m3fnuz",
       "Bytes of e4m3fn are read as e4m3fnuz, whose values are half as large, or the reverse.",
       issue("sgl-project/sglang", 2667),
       first,
       has_blocks,
       {scales_each("half", all, [](const Scales& s, Index r, Index c) { return s.at(r, c) / 2; }),
        scales_each("double", all,
                    [](const Scales& s, Index r, Index c) { return s.at(r, c) * 2; })}},
      {116,
       "fp8-last-scale-row-of-kv-a",
       "The last, ragged row of kv_a_proj's block scales, that of k_rope, is lost where it is "
       "fused "
       "with q_a_proj.",
       issue("vllm-project/vllm-ascend", 15346),
       "self_attn.kv_a_proj_with_mqa",
       has_blocks,
       {last_row("1", ends("kv_a_proj_with_mqa.weight"), false, one_row),
        last_row("0", ends("kv_a_proj_with_mqa.weight"), false, zero_row)}},
      {116,
       "fp8-last-scale-row",
       "The last, ragged row of block scales is lost in every matrix that has several.",
       issue("vllm-project/vllm-ascend", 15346),
       "self_attn.indexer.wq_b",
       has_blocks,
       {last_row("1", all, true, one_row), last_row("0", all, true, zero_row),
        last_row("the row before", all, true, row_before)}},
      {220,
       "fp8-scales-transposed",
       "Plausible: the grid of block scales is read transposed.",
       "",
       "mlp.gate_proj",
       has_blocks,
       {scales_each("", all, transposed)}},
      {314,
       "fp8-scale-inverted",
       "Plausible: weights are divided by weight_scale_inv, which its name suggests.",
       "",
       first,
       has_blocks,
       {scales_each("", all, [](const Scales& s, Index r, Index c) { return 1 / s.at(r, c); })}},
  };
}

std::vector<Defect> of_index() {
  const std::string scores = "self_attn.indexer.scores";
  return {
      {15,
       "fp8-index-one-side-unrounded",
       "An FP8 index rounds the scale of its key up to a power of two, but not that of its query.",
       issue("ROCm/aiter", 3451),
       scores,
       has_power_of_two_index_head,
       {index_in_fp8("", {Rule::exact, Rule::up})}},
      {18,
       "fp8-index-unasked",
       "Query and key of the indexer go through e4m3 where the config asks for full precision.",
       issue("AMD-AGI/Primus", 930),
       scores,
       has_power_of_two_index_head,
       {index_in_fp8("power-of-two scales", {}),
        index_in_fp8("exact scales", {Rule::exact, Rule::exact}),
        index_in_fp8("scales a half row", {Rule::up, Rule::up, true, 2})}},
      {14,
       "fp8-index-without-hadamard",
       "An FP8 index is quantised without the Hadamard rotation, which only rounding can tell.",
       issue("vllm-project/vllm", 55459),
       scores,
       has_indexer,
       {index_in_fp8("power-of-two scales", {Rule::up, Rule::up, false}),
        index_in_fp8("exact scales", {Rule::exact, Rule::exact, false})}},
      {86,
       "fp8-index-scale-rounded-after",
       "An FP8 index is divided by the exact scale and multiplied by the rounded one.",
       issue("huggingface/transformers", 46763),
       scores,
       has_power_of_two_index_head,
       {index_in_fp8("", {Rule::rounded_after, Rule::rounded_after})}},
      {87,
       "fp8-index-scale-floored",
       "An FP8 index rounds its scales down to a power of two: the largest values saturate.",
       issue("sgl-project/sglang", 39193),
       scores,
       has_power_of_two_index_head,
       {index_in_fp8("", {Rule::down, Rule::down})}},
      {214,
       "fp8-index-scale-forgotten",
       "Plausible: the scale of an FP8 index's query, or key, is not multiplied back.",
       "",
       scores,
       has_power_of_two_index_head,
       {index_in_fp8("query", {Rule::forgotten, Rule::up}),
        index_in_fp8("key", {Rule::up, Rule::forgotten})}},
  };
}

}  // namespace

std::vector<Defect> fp8_defects() {
  std::vector<Defect> all = of_weights();
  const std::vector<Defect> more = of_index();
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

}  // namespace dsa::verify
