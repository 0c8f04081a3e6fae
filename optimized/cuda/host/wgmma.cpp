#include "optimized/cuda/host/wgmma.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <deque>
#include <utility>
#include <vector>

namespace dsa::cuda::host {
namespace {

constexpr int m = 64, k = 16, warps = warpgroup_size / warp_size, chunk_elements = 8;
constexpr std::int64_t swizzle_bytes = 1024, row_bytes = 128, panel_channels = 64;

/// One instruction of a warpgroup.
struct Issued {
  std::vector<Wgmma> threads;
  Time time;
};
struct Group {
  std::vector<Issued> open;
  std::deque<std::vector<Issued>> committed;  // the oldest first
};

struct State {
  std::vector<int> fences;  // by thread
  std::vector<Group> groups;
};
thread_local State state;

Group& my_group() {
  return state.groups[static_cast<std::size_t>(thread_number() / warpgroup_size)];
}
int first_thread() { return thread_number() / warpgroup_size * warpgroup_size; }

/// Fields of a descriptor (PTX ISA, "Matrix descriptor format"), in bytes.
struct Descriptor {
  std::int64_t start, leading, stride;
  explicit Descriptor(std::uint64_t bits)
      : start(field(bits, 0)), leading(field(bits, 16)), stride(field(bits, 32)) {
    if (bits >> 62 != 1) fail("gives wgmma a descriptor without the swizzle of 128 bytes");
  }
  static std::int64_t field(std::uint64_t bits, int at) {
    return static_cast<std::int64_t>(bits >> at & 0x3fff) * 16;
  }
  /// Byte of shared memory of element (i of m or n, j of k).
  std::int64_t find(int i, int j, bool transposed) const {
    const std::int64_t linear =
        transposed ? i % 64 * 2 + i / 64 * leading + j % 8 * row_bytes + j / 8 * stride
                   : i % 8 * row_bytes + i / 8 * stride + j * 2;
    const std::int64_t at = start + linear;
    return at ^ (at / row_bytes % 8) * 16;
  }
};

/// Byte of shared memory where the panels have the element.
std::int64_t place_of(const OperandPlace& p, int i, int j, bool transposed) {
  const std::int64_t row = p.row + (transposed ? j : i), channel = p.channel + (transposed ? i : j);
  const std::int64_t at = channel / panel_channels * p.panel_rows * row_bytes + row * row_bytes +
                          ((channel % panel_channels / 8) ^ row % 8) * 16 + channel % 8 * 2;
  if (row >= p.panel_rows || at >= p.bytes)
    fail("lets a wgmma read row " + std::to_string(row) + ", channel " + std::to_string(channel) +
         ", beyond panels of " + std::to_string(p.panel_rows) + " rows and " +
         std::to_string(p.bytes) + " bytes");
  return static_cast<std::int64_t>(shared_offset(p.panels, 1)) + at;
}

/// Calls f(i, j, byte) for every 16 bytes of `extent` rows (or columns) of an operand from `first`.
template <class F>
void each_chunk(std::uint64_t bits, const OperandPlace& place, bool transposed, int first,
                int extent, F f) {
  const Descriptor descriptor(bits);
  if (transposed != place.transposed)
    fail(std::string("tells a wgmma that an operand is ") + (transposed ? "MN" : "K") +
         "-major, which is " + (place.transposed ? "MN" : "K") +
         "-major: a wrong transposition bit");
  const int step_i = transposed ? chunk_elements : 1, step_j = transposed ? 1 : chunk_elements;
  for (int i = first; i < first + extent; i += step_i)
    for (int j = 0; j < k; j += step_j) {
      const std::int64_t at = descriptor.find(i, j, transposed);
      const std::int64_t expected = place_of(place, i, j, transposed);
      if (at != expected)
        fail("gives wgmma a descriptor that finds element (" + std::to_string(i) + ", " +
             std::to_string(j) + ") at byte " + std::to_string(at) +
             ", where the panels have it at byte " + std::to_string(expected) +
             ": a wrong start or stride");
      f(i, j, shared_at(static_cast<std::size_t>(at), 16));
    }
}

/// For every warp, what it reads.
template <class F>
void each_read(const Issued& issued, F f) {
  const Wgmma& call = issued.threads[0];
  for (int warp = 0; warp < warps; ++warp) {
    const Observer wgmma =
        Observer::wgmma_of(static_cast<Actor>(first_thread() + warp * warp_size));
    const auto read = [&](int, int, const std::byte* at) { f(wgmma, at); };
    each_chunk(call.b_descriptor, call.b_place, call.b_transposed, 0, call.n, read);
    if (!call.a)
      each_chunk(call.a_descriptor, call.a_place, call.a_transposed, warp * (m / warps), m / warps,
                 read);
  }
}

float widen_f16(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const float magnitude = exponent == 31  ? (fraction ? NAN : INFINITY)
                          : exponent == 0 ? std::ldexp(float(fraction), -24)
                                          : std::ldexp(float(fraction | 1024), exponent - 25);
  return bits >> 15 ? -magnitude : magnitude;
}
float widen_16(bool f16, std::uint16_t bits) {
  return f16 ? widen_f16(bits) : std::bit_cast<float>(std::uint32_t{bits} << 16);
}

/// x (k, extent) of an operand in shared memory.
std::vector<float> load(const Wgmma& call, std::uint64_t bits, const OperandPlace& place,
                        bool transposed, int extent) {
  std::vector<float> x(static_cast<std::size_t>(k * extent));
  each_chunk(bits, place, transposed, 0, extent, [&](int i, int j, const std::byte* at) {
    for (int e = 0; e < chunk_elements; ++e) {
      std::uint16_t element;
      std::memcpy(&element, at + 2 * e, sizeof element);
      const int to = transposed ? j * extent + i + e : (j + e) * extent + i;
      x[static_cast<std::size_t>(to)] = widen_16(call.f16, element);
    }
  });
  return x;
}

/// Thread t holds, with g = t % 32 / 4, c = 2 (t % 4) and w = 16 (t / 32): of a rows w+g, w+g+8,
/// w+g, w+g+8 at columns c, c, c+8, c+8, two to a register.
std::vector<float> load_registers(const Issued& issued) {
  std::vector<float> a(k * m);
  for (int t = 0; t < warpgroup_size; ++t) {
    const Wgmma& call = issued.threads[static_cast<std::size_t>(t)];
    for (int r = 0; r < 4; ++r)
      for (int half = 0; half < 2; ++half) {
        const int row = t / warp_size * 16 + t % warp_size / 4 + 8 * (r % 2);
        const int column = 2 * (t % 4) + 8 * (r / 2) + half;
        a[static_cast<std::size_t>(column * m + row)] =
            widen_16(call.f16, static_cast<std::uint16_t>(call.a[r] >> 16 * half));
      }
  }
  return a;
}

void compute(const Issued& issued) {
  const Wgmma& call = issued.threads[0];
  const int n = call.n;
  const std::vector<float> b = load(call, call.b_descriptor, call.b_place, call.b_transposed, n);
  const std::vector<float> a =
      call.a ? load_registers(issued)
             : load(call, call.a_descriptor, call.a_place, call.a_transposed, m);
  std::vector<float> row(static_cast<std::size_t>(n));
  for (int i = 0; i < m; ++i) {
    // Row i lies in the four threads of one quad: column j is number 4 (j / 8) + j % 2 of one, plus
    // 2 in the lower half of the warp's rows.
    const int quad = i / 16 * warp_size + i % 8 * 4, lower = i % 16 / 8 * 2;
    const auto element = [&](int j) -> float& {
      return issued.threads[static_cast<std::size_t>(quad + j % 8 / 2)]
          .d[j / 8 * 4 + lower + j % 2];
    };
    for (int j = 0; j < n; ++j) row[static_cast<std::size_t>(j)] = call.accumulate ? element(j) : 0;
    for (int l = 0; l < k; ++l) {
      const float factor = a[static_cast<std::size_t>(l * m + i)];
      const float* other = &b[static_cast<std::size_t>(l * n)];
      for (int j = 0; j < n; ++j) row[static_cast<std::size_t>(j)] += factor * other[j];
    }
    for (int j = 0; j < n; ++j) element(j) = row[static_cast<std::size_t>(j)];
  }
}

void expect_alike(const Wgmma& one, const Wgmma& other) {
  if (one.n != other.n || one.a_descriptor != other.a_descriptor ||
      one.b_descriptor != other.b_descriptor || one.accumulate != other.accumulate)
    fail("gives a wgmma other operands than the first thread of its warpgroup");
}

void begin_use(RegisterUse& use, int& users, int thread, int line) {
  if (use.fence == state.fences[static_cast<std::size_t>(thread)])
    fail("gives a wgmma registers that were accessed after the last wgmma_fence", thread);
  ++users;
  use.issue_line = line;
}

void issue(void* const* calls) {
  Issued issued{};
  for (int t = 0; t < warpgroup_size; ++t) {
    const Wgmma& call = *static_cast<const Wgmma*>(calls[t]);
    issued.threads.push_back(call);
    expect_alike(issued.threads[0], call);
    begin_use(*call.d_use, call.d_use->written_by, first_thread() + t, call.line);
    if (call.a) begin_use(*call.a_use, call.a_use->read_by, first_thread() + t, call.line);
  }
  each_read(issued,
            [](const Observer& wgmma, const std::byte* at) { begins_wgmma_read(wgmma, at, 16); });
  issued.time = advance();
  my_group().open.push_back(std::move(issued));
}

void complete(const Issued& issued) {
  each_read(issued, [&](const Observer& wgmma, const std::byte* at) {
    ends_wgmma_read(wgmma, at, 16, issued.time);
  });
  compute(issued);
  for (const Wgmma& call : issued.threads) {
    --call.d_use->written_by;
    if (call.a) --call.a_use->read_by;
  }
}

/// The threads bring how many groups may stay in flight.
void complete_all_but(void* const* pending) {
  Group& group = my_group();
  const auto most = static_cast<std::size_t>(*static_cast<const int*>(pending[0]));
  for (; group.committed.size() > most; group.committed.pop_front())
    for (const Issued& issued : group.committed.front()) complete(issued);
  for (int warp = 0; warp < warps; ++warp) finish_wgmma(first_thread() + warp * warp_size);
  advance();
}

}  // namespace

void RegisterUse::access(bool writes) {
  if (written_by > 0 || (writes && read_by > 0))
    fail(std::string(written_by > 0 ? "touches an accumulator" : "changes an operand") +
         " of the wgmma of line " + std::to_string(issue_line) +
         ", which is in flight: no wgmma_wait came after it");
  fence = state.fences[static_cast<std::size_t>(thread_number())];
}

void issue_wgmma(Wgmma call) { warpgroup_operation("a wgmma", call.line, &call, issue); }

void count_wgmma_fence() { ++state.fences[static_cast<std::size_t>(thread_number())]; }

void wgmma_commit(int line) {
  warpgroup_operation("wgmma_commit", line, nullptr, [](void* const*) {
    Group& group = my_group();
    group.committed.push_back(std::exchange(group.open, {}));
  });
}

void wait_for_wgmma(int pending, int line) {
  warpgroup_operation("wgmma_wait", line, &pending, complete_all_but);
}

void begin_wgmma(std::size_t threads) {
  state.fences.assign(threads, 0);
  state.groups.assign((threads + warpgroup_size - 1) / warpgroup_size, {});
}

void end_wgmma() {
  for (std::size_t i = 0; i < state.groups.size(); ++i) {
    Group& group = state.groups[i];
    if (!group.open.empty()) group.committed.push_back(std::exchange(group.open, {}));
    if (!group.committed.empty())
      fail("has ended, and so has its block, while its wgmma is in flight",
           static_cast<int>(i) * warpgroup_size);
  }
}

}  // namespace dsa::cuda::host
