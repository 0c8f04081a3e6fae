// mla_sparse v3 over e4m3 rows: its producer and its join, made wrong in one place each, and who
// notices: the judge by its bounds, or the emulator. The multiplying warpgroups are the product's.
#define DSA_CUDA_ON_HOST
#include "optimized/cuda/ops/mla_v3_launch.cuh"
#include "optimized/cuda/ops/mla_v3_pair.cuh"
#include "optimized/cuda/ops/mla_v3_widen.cuh"
#include "tests/catch.hpp"
#include "verify/kernels/backends/cuda/binding.hpp"

using namespace dsa;
using namespace dsa::cuda::host;
using Catch::Matchers::Contains;
using verify::kernels::Arrays;
using verify::kernels::Case;
using verify::kernels::host::Binding;

namespace {

enum class Mutant {
  none,
  scale_of_another_run,
  slot_not_awaited,
  no_proxy_fence,
  bits_of_the_next_block,
  weights_of_another_part,
  largest_left_out,
};

/// The product's, but for fill() and who calls it, which are written out.
struct Producer : v3::WideningProducer<Chosen> {
  Mutant mutant;

  Producer(const v3::Memory& memory_, const MlaIn<e4m3>& in_, const Chosen& keys_, Mutant mutant_)
      : WideningProducer(memory_, in_, keys_), mutant(mutant_) {}

  template <int block, int half>
  void fill() {
    constexpr int s = v3::slot(block, half);
    if (mutant != Mutant::slot_not_awaited) memory.empty[s].wait(parity);
    if (half == 1) store_rotary(v3::key_panel(block) + v3::row_panels - 1);
    for (int i = 0; i < lane_rows; ++i) store_row<block, half>(i);
    if (block == half) write_key_bits(block);
    if (mutant != Mutant::no_proxy_fence) fence_async_proxy();
    __syncwarp();
    if (lane() == 0) memory.full[s].arrive();
  }
  template <int block>
  void fill_block(const v3::Item<Chosen>& item, int behind) {
    if (mutant == Mutant::bits_of_the_next_block) {
      const std::uintptr_t mine = row;
      go_on();
      row = mine;
    }
    fill<block, block>();
    load_latents<1 - block>();
    fill<block, 1 - block>();
    go_on();
    load_latents<1 - block>();
    load();
    next_key = key(item, behind);
  }
  void load() {
    load_scales();
    if (mutant == Mutant::scale_of_another_run)
      for (float& x : scale) x = __shfl_xor_sync(all_lanes, x, 1);
  }
  void run(const v3::Item<Chosen>& item) {
    int first = 2 * v3::block_keys * item.first_pair;
    next_key = key(item, first);
    go_on();
    load_latents<0>();
    load();
    next_key = key(item, first + v3::block_keys);
    copy_half_of_q(item);
    for (int pair = 0; pair < item.pairs; ++pair, parity ^= 1, first += 2 * v3::block_keys) {
      fill_block<0>(item, first + 2 * v3::block_keys);
      fill_block<1>(item, first + 3 * v3::block_keys);
    }
  }
};

/// One item a block.
void decode_kernel(MlaOut y, MlaIn<e4m3> in, Chosen keys, float scale, v3::Work work,
                   Mutant mutant) {
  SharedMemory shared;
  const v3::Memory memory(shared);
  if (threadIdx.x == 0) memory.init(8);
  __syncthreads();
  const int warpgroup = int(threadIdx.x) / warpgroup_size;
  if (warpgroup >= 2) {
    shrink_registers<56>();
    Producer(memory, in, keys, mutant).run(v3::Item<Chosen>(int(blockIdx.x), work, keys));
  } else {
    grow_registers<200>();
    v3::multiply<e4m3>(memory, y, keys, scale, work, warpgroup);
  }
}

/// True if the judge finds nothing wrong.
bool decode_passes(const Case& c, Mutant mutant) {
  Arrays out = c.out;
  Binding b;
  const MlaOut y{.out = b.out<float, 3>(out.at("out")), .lse = b.out<float, 2>(out.at("lse"))};
  const MlaIn<e4m3> in{
      .q = b.in<bf16, 3>(c.in.at("q")), .kv = b.pages<e4m3>(c, "kv"), .scale = c.scalar("scale")};
  launch(Stream{}, "decode", {grid_of(2), 512, v3::Memory::bytes, true}, decode_kernel, y, in,
         Chosen{b.in<std::int32_t, 2>(c.in.at("chosen"))}, float(in.scale * 1.4426950408889634),
         v3::Work{1, 2, 1}, mutant);
  b.fetch();
  for (const verify::kernels::OutputVerdict& verdict : c.op->judge(c, out))
    if (!verdict.check.ok()) return false;
  return true;
}

/// join_parts, of one query and head of 128 channels, written out.
void join_kernel(DeviceView<float, 1> out, Parts parts, Mutant mutant) {
  const Index count = parts.lse.shape[0], r = threadIdx.x;
  float largest = -INFINITY, sum = 0, x = 0;
  for (Index i = 0; i < count; ++i) largest = Maximum{}(largest, parts.lse(i, 0, 0));
  if (mutant == Mutant::largest_left_out) largest = 0;
  for (Index i = 0; i < count; ++i) {
    const float weight = std::exp(parts.lse(i, 0, 0) - largest);
    const Index part = mutant == Mutant::weights_of_another_part ? (i + 1) % count : i;
    sum += weight, x += weight * parts.out(part, 0, 0, r);
  }
  out(r) = x / sum;
}

constexpr Index R = 128;
constexpr float lse[] = {100, -INFINITY, 101.5f};

float channel(Index part, Index r) { return part == 1 ? 0 : float(part + 1) + float(r % 7) / 8; }

/// Of three parts, whose middle one has no keys: by the product, or by a mutant of it.
bool join_is_right(bool product, Mutant mutant) {
  std::vector<float> out;
  for (Index part = 0; part < 3; ++part)
    for (Index r = 0; r < R; ++r) out.push_back(channel(part, r));
  const Buffer<float> out_d(out.data(), 3 * R), lse_d(lse, 3), y_d(R), lse_y_d(1);
  const Parts parts{out_d.view<4>({3, 1, 1, R}), lse_d.view<3>({3, 1, 1})};
  const MlaOut y{y_d.view<3>({1, 1, R}), lse_y_d.view<2>({1, 1})};
  if (product)
    v3::join(Stream{}, y, parts);
  else
    launch(Stream{}, "join", {grid_of(1), unsigned(R)}, join_kernel, y_d.view<1>({R}), parts,
           mutant);
  std::vector<float> found(R);
  y_d.download(found.data());
  // Weights, their sum, products, their sum and a quotient: at most 8 roundings of numbers up to 4.
  const double later = std::exp(1.5), all = 1 + later;
  for (Index r = 0; r < R; ++r) {
    const double expected = (channel(0, r) + later * channel(2, r)) / all;
    if (!(std::abs(double(found[std::size_t(r)]) - expected) <= 8 * 4 * 0x1p-24)) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("mutants of decoding by mla v3: two by the bounds, two by the emulator", "[cuda]") {
  // Three pairs of blocks of keys; scales that are no powers of two.
  const Case c = verify::kernels::op_named("mla_sparse").cases(1).back()();
  REQUIRE(c.name == "fp8-T1-S300-N65-R512-P64-K290-gaussian-any-scale");
  CHECK(decode_passes(c, Mutant::none));
  CHECK_FALSE(decode_passes(c, Mutant::scale_of_another_run));
  CHECK_FALSE(decode_passes(c, Mutant::bits_of_the_next_block));
  CHECK_THROWS_WITH(decode_passes(c, Mutant::slot_not_awaited), Contains("of shared memory"));
  CHECK_THROWS_WITH(decode_passes(c, Mutant::no_proxy_fence), Contains("no proxy fence"));
}

TEST_CASE("ranges of keys are joined by their weights, whatever their scores", "[cuda]") {
  CHECK(join_is_right(true, Mutant::none));
  CHECK(join_is_right(false, Mutant::none));
  CHECK_FALSE(join_is_right(false, Mutant::weights_of_another_part));
  CHECK_FALSE(join_is_right(false, Mutant::largest_left_out));
}
