// v2: a block takes one query, 16 heads for every four of its warps, and a part of the query's
// keys, 32 at a time. Its warps multiply q with the keys (eight keys a warp), turn the scores into
// probabilities (four rows a warp, a lane a key), and add probabilities times latents, 16 channels
// in every 64 a warp, to sums that stay in registers. Probabilities are rounded to bf16; their sum
// is not.
#include "optimized/cuda/device/launch.cuh"
#include "optimized/cuda/device/mla_tile.cuh"
#include "optimized/cuda/ops/mla_parts.cuh"

namespace dsa::cuda::DSA_PLACE::v2 {

constexpr Index most_channels = 512;  // R: what the registers hold the sums of
constexpr Index group_heads = 16, group_warps = 4;
constexpr Index most_groups = 2;  // of four there are too few registers: the sums spill
constexpr Index score_stride = keys_per_step + 4;

template <class T>
struct BlockShape {
  LatentLayout<T> layout;
  Index groups;  // of 16 heads

  Index threads() const { return groups * group_warps * warp_size; }
  Index shared_bytes() const {
    const Index heads = groups * group_heads;
    return heads * layout.row_bytes() + layout.shared_bytes() +
           heads * layout.runs() * tile_row_bytes(2 * keys_per_step) +
           shared_room<float>(heads * score_stride) + shared_room<float>(heads);
  }
};

/// A block takes all heads, up to 32, or as many as fit. No groups: nothing fits.
template <class T>
BlockShape<T> block_shape(Index N, Index R, Index P) {
  Index groups = most_groups;
  while (groups > 1 && (groups / 2) * group_heads >= N) groups /= 2;
  BlockShape<T> shape{{R, P}, groups};
  while (shape.groups > 0 && shape.shared_bytes() > shared_memory_limit()) shape.groups /= 2;
  return shape;
}

template <class T, class Keys>
struct Block {
  LatentTile<T> tile;
  Tile q, p;  // (heads, columns), (runs heads, keys)
  Shared<float> scores, alpha;
  Index heads;
  float largest[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY}, total[4] = {};
  float sums[most_channels / 64][2][4] = {};

  __device__ Block(SharedMemory& memory, LatentLayout<T> layout, Pages<const T> kv)
      : tile(memory, layout, kv), heads(Index(blockDim.x) / warp_size / group_warps * group_heads) {
    q = take_tile(memory, heads, layout.row_bytes());
    p = take_tile(memory, heads * layout.runs(), tile_row_bytes(2 * keys_per_step));
    scores = memory.take<float>(heads * score_stride);
    alpha = memory.take<float>(heads);
  }
  __device__ int warp() const { return threadIdx.x / warp_size; }
  __device__ int lane() const { return threadIdx.x % warp_size; }
  __device__ Index group() const { return warp() / group_warps; }
  __device__ Index member() const { return warp() % group_warps; }

  /// Heads [first, first + heads) of the query; columns as in the tile of the keys.
  __device__ void load_query(DeviceView<const bf16, 3> query, Index t, Index first) {
    const LatentLayout<T>& at = tile.layout;
    for (Index head = warp(); head < heads; head += int(blockDim.x) / warp_size)
      for (Index column = lane(); column < at.row_bytes() / 2; column += warp_size) {
        const Index rotary = column - at.rope();
        const Index c = column < at.R ? column : rotary >= 0 && rotary < at.P ? at.R + rotary : -1;
        const bool valid = c >= 0 && first + head < query.shape[1];
        LatentTile<T>::store(q, head, column, valid ? query(t, first + head, c) : bf16{});
      }
  }

  /// scores[head, key] = q . key: of a group's 32 keys, each of its warps takes eight.
  __device__ void multiply_keys(int stage) {
    const Tile keys = tile.columns();
    const Index row = tile.first_row(stage) + 8 * member();
    const Index key = 8 * member() + 2 * (lane() % 4);
    const Index run_steps = LatentLayout<T>::scaled ? fp8_run / 16 : tile.layout.steps();
    float dots[4] = {};
    for (Index begin = 0; begin < tile.layout.steps(); begin += run_steps) {
      float run[4] = {};
      for (Index step = begin; step < smaller(begin + run_steps, tile.layout.steps()); ++step) {
        std::uint32_t b[4];  // the second half is not used where a step is left over
        load_matrices(b, keys.chunk(row + lane() % 8, 2 * step + lane() / 8 % 2), false);
        const RowFragment<bf16> a = load_rows<bf16>(q, group() * group_heads, step);
        mma_bf16(run, a.r[0], {b[0], b[1]});
      }
      const Index r = begin / run_steps;
      const bool scaled = LatentLayout<T>::scaled && r < tile.layout.runs();  // the last is rotary
      for (int i = 0; i < 4; ++i) dots[i] += run[i] * (scaled ? tile.scale(key + i % 2, r) : 1);
    }
    for (int i = 0; i < 4; ++i) {
      const Index head = group() * group_heads + lane() / 4 + 8 * (i / 2);
      scores[head * score_stride + key + i % 2] = dots[i];
    }
  }

  /// Probabilities relative to the largest score so far, and by how much the sums must shrink.
  __device__ void softmax(int stage, float scale) {
    const float no_key = tile.no_key[stage * keys_per_step + lane()];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const Index head = 4 * warp() + i;
      const float score = scores[head * score_stride + lane()] * scale + no_key;
      const float now = Maximum{}(largest[i], across_warp(score, Maximum{}));
      const float shrink = now == -INFINITY ? 1 : expf(largest[i] - now);
      const float probability = score == -INFINITY ? 0 : expf(score - now);
      total[i] = total[i] * shrink + across_warp(probability, Sum{});
      largest[i] = now;
      for (Index run = 0; run < tile.layout.runs(); ++run)
        LatentTile<T>::store(p, run * heads + head, lane(),
                             narrow<bf16>(probability * tile.scale(lane(), run)));
      if (lane() == 0) alpha[head] = shrink;
    }
  }

  /// sums = alpha sums + p latents: of every 64 channels, each of a group's warps takes 16.
  __device__ void multiply_latents(int stage) {
    const Tile keys = tile.columns();
    const Index head = group() * group_heads + lane() / 4;
    const float shrink[2] = {alpha[head], alpha[head + 8]};
#pragma unroll
    for (int j = 0; j < most_channels / 64; ++j) {
      const Index channel = 64 * j + 16 * member();
      if (channel >= tile.layout.R) break;
      const Index run = LatentLayout<T>::scaled ? channel / fp8_run : 0;
      for (int n = 0; n < 2; ++n)
        for (int i = 0; i < 4; ++i) sums[j][n][i] *= shrink[i / 2];
      for (Index step = 0; step < keys_per_step / 16; ++step) {
        const RowFragment<bf16> a = load_rows<bf16>(p, run * heads + group() * group_heads, step);
        std::uint32_t b[4];
        load_matrices(
            b,
            keys.chunk(tile.first_row(stage) + 16 * step + lane() % 16, channel / 8 + lane() / 16),
            true);
        mma_bf16(sums[j][0], a.r[0], {b[0], b[1]});
        mma_bf16(sums[j][1], a.r[0], {b[2], b[3]});
      }
    }
  }

  __device__ void write(Parts parts, Index split, Index t, Index first) {
    const Index N = parts.lse.shape[2], R = tile.layout.R;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const Index head = 4 * warp() + i;
      if (lane() != 0) continue;
      alpha[head] = total[i] == 0 ? 0 : 1 / total[i];
      if (first + head < N)
        parts.lse(split, t, first + head) =
            largest[i] == -INFINITY ? -INFINITY : largest[i] + logf(total[i]);
    }
    __syncthreads();
#pragma unroll
    for (int j = 0; j < most_channels / 64; ++j)
#pragma unroll
      for (int n = 0; n < 2; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const Index head = group() * group_heads + lane() / 4 + 8 * (i / 2);
          const Index r = 64 * j + 16 * member() + 8 * n + 2 * (lane() % 4) + i % 2;
          if (r < R && first + head < N)
            parts.out(split, t, first + head, r) = sums[j][n][i] * alpha[head];
        }
  }
};

template <class T, class Keys>
__global__ void __launch_bounds__(most_groups* group_warps* warp_size)
    mla_kernel(Parts parts, DeviceView<const bf16, 3> q, Pages<const T> kv, Keys keys, float scale,
               LatentLayout<T> layout) {
  const Index splits = parts.lse.shape[0], t = blockIdx.x, split = blockIdx.y % splits;
  const Index count = keys.count(t);
  const Index steps = (count + keys_per_step - 1) / keys_per_step;
  const Index begin = steps * split / splits * keys_per_step;
  const Index end = smaller(count, steps * (split + 1) / splits * keys_per_step);
  SharedMemory memory;
  Block<T, Keys> block(memory, layout, kv);
  const Index first = blockIdx.y / splits * block.heads;
  block.load_query(q, t, first);
  if (begin < end) block.tile.load(0, keys, t, begin, end);
  copy_async_commit();
  int stage = 0;
  for (Index i = begin; i < end; i += keys_per_step, stage = 1 - stage) {
    if (i + keys_per_step < end) block.tile.load(1 - stage, keys, t, i + keys_per_step, end);
    copy_async_commit();
    copy_async_wait<1>();
    __syncthreads();
    if (layout.scaled) {
      block.tile.widen_stage(stage);
      __syncthreads();
    }
    block.multiply_keys(stage);
    __syncthreads();
    block.softmax(stage, scale);
    __syncthreads();
    block.multiply_latents(stage);
    __syncthreads();  // before the stage is filled again
  }
  block.write(parts, split, t, first);
}

__global__ void __launch_bounds__(join_threads) join_kernel(MlaOut y, Parts parts) {
  join_parts(y, parts, blockIdx.x, blockIdx.y);
}

template <class T>
std::string mla_refuses(Index N, Index R, Index P) {
  const LatentLayout<T> layout{R, P};
  if (R > most_channels) return "mla v2 takes R up to 512, got " + std::to_string(R);
  if (layout.source_bytes() % 4 != 0)
    return "mla v2 takes rows of a multiple of 4 bytes, got " +
           std::to_string(layout.source_bytes());
  if (block_shape<T>(N, R, P).groups == 0)
    return "mla v2 does not fit into " + std::to_string(shared_memory_limit()) +
           " bytes of shared memory";
  return "";
}

template <class Row, class Keys>
void mla(Stream stream, MlaOut y, const MlaIn<Row>& in, Keys keys, Index splits,
         DeviceView<float, 1> workspace) {
  const Index T = y.out.shape[0], N = y.out.shape[1], R = y.out.shape[2], P = in.q.shape[2] - R;
  const std::string refusal = mla_refuses<Row>(N, R, P);
  require(refusal.empty(), refusal);
  const BlockShape<Row> shape = block_shape<Row>(N, R, P);
  const Index head_blocks = ceil_divide(N, shape.groups * group_heads);
  const Parts parts = parts_of(y, splits, workspace, "mla v2");
  launch(stream, "mla v2",
         {grid_of(T, head_blocks * splits), static_cast<unsigned>(shape.threads()),
          shape.shared_bytes()},
         mla_kernel<Row, Keys>, parts, in.q, in.kv, keys, static_cast<float>(in.scale),
         shape.layout);
  if (splits > 1)
    launch(stream, "mla v2, join", {grid_of(T, N), join_threads, join_shared_bytes(splits)},
           join_kernel, y, parts);
}

#define DSA_INSTANTIATE(Row, Keys) \
  template void mla(Stream, MlaOut, const MlaIn<Row>&, Keys, Index, DeviceView<float, 1>);
DSA_INSTANTIATE(bf16, Chosen)
DSA_INSTANTIATE(e4m3, Chosen)
DSA_INSTANTIATE(bf16, AllVisible)
DSA_INSTANTIATE(e4m3, AllVisible)
template std::string mla_refuses<bf16>(Index, Index, Index);
template std::string mla_refuses<e4m3>(Index, Index, Index);

}  // namespace dsa::cuda::DSA_PLACE::v2
