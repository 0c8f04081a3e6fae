// Why it is fast: a block of sums stays in registers while x, sorted so that the kernel reads it
// in order, is broadcast against a panel of w, whose rows are the lanes. A word of w is loaded
// once for 3 to 32 rows of x from the cache, once for 96 from memory; with a single row of x, w
// streams from memory and nothing else matters.
#include "optimized/cpu/kernels/linear.hpp"

#include "optimized/cpu/kernels/native.hpp"
#include "optimized/cpu/kernels/tiles.hpp"

namespace dsa::cpu::DSA_TIER {
namespace {

using std::int64_t;
using std::uint16_t;
using std::uint32_t;

constexpr int vectors = tile_columns / width, vectors_of_half = linear_half / width;

constexpr int64_t words_at_a_time = 512;  // runs of w summed before they are added to the sums

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/// Words [begin, begin + 16) of row r of x, zeros beyond its end.
struct Run {
  uint32_t words[16] = {};
  Run(const LinearPiece& p, int64_t r, int64_t begin) {
    if (p.by_column) {
      gather(p, r, begin);
      return;
    }
    const int64_t size = p.bf16 ? 2 : 4, t = p.which ? p.which[r] : r;
    const char* from = static_cast<const char*>(p.x) + t * p.x_stride * size + 4 * begin;
    const int64_t left = p.in * size - 4 * begin;
    if (left >= 64)
      std::memcpy(words, from, 64);
    else
      std::memcpy(words, from, left);
  }

  void gather(const LinearPiece& p, int64_t r, int64_t begin) {
    const int64_t channels = p.bf16 ? 2 : 1, size = 4 / channels;
    for (int64_t i = begin * channels; i < smaller((begin + 16) * channels, p.in); ++i)
      std::memcpy(reinterpret_cast<char*>(words) + (i - begin * channels) * size,
                  static_cast<const char*>(p.x) + (i * p.x_stride + r) * size,
                  static_cast<std::size_t>(size));
  }
};

/// A word of w is multiplied in `steps`, each with a word made of x; `rows` of x at a time. Words
/// are multiplied as they are: Floats or Pairs.
template <class Product>
struct Whole : Product {
  static constexpr int steps = 1, rows = tile_rows;
  static uint32_t word_of_x(uint32_t x, int) { return x; }
  static Words word_of_w(Words w, int) { return w; }
};

/// A pair of bf16, widened: x when it is sorted, w in registers.
struct Widened : Floats {
  static constexpr int steps = 2;
  static constexpr int rows = width == 16 ? tile_rows : tile_rows * 2 / 3;  // room to widen in
  static uint32_t word_of_x(uint32_t x, int step) { return step == 0 ? x << 16 : x & 0xffff0000u; }
  static Words word_of_w(Words w, int step) { return step == 0 ? w << 16 : w & 0xffff0000u; }
};

/// Where the words of a group of rows of x lie: side by side, as InRegisters sorts them.
template <int steps, int rows>
struct Sorted {
  const uint32_t* x;
  const uint32_t* at(int64_t i, int step, int r) const { return x + (i * steps + step) * rows + r; }
};

/// Row by row, as somebody else keeps them.
template <int rows>
struct InPlace {
  const uint32_t* row[rows];
  InPlace(const uint32_t* x, int64_t stride) {
    for (int r = 0; r < rows; ++r) row[r] = x + r * stride;
  }
  const uint32_t* at(int64_t i, int, int r) const { return row[r] + i; }
};

/// sums (rows, 32) += x w for `words` runs of one or two halves of a panel.
template <class Product, int rows, class Layout>
void multiply_rows(float* sums, const Layout& x, const uint32_t* w, int64_t half, int64_t words) {
  Vector acc[rows][vectors] = {};
  for (int64_t i = 0; i < words; ++i) {
    Words run[vectors];
    for (int v = 0; v < vectors; ++v)
      run[v] =
          words_at(w + v / vectors_of_half * half + i * linear_half + v % vectors_of_half * width);
    for (int step = 0; step < Product::steps; ++step)
      for (int r = 0; r < rows; ++r) {
        const Vector xr = Product::broadcast(x.at(i, step, r));
        for (int v = 0; v < vectors; ++v)
          acc[r][v] = Product::add_product(acc[r][v], xr, (Vector)Product::word_of_w(run[v], step));
      }
  }
  for (int r = 0; r < rows; ++r)
    for (int v = 0; v < vectors; ++v) {
      float* const to = sums + r * linear_panel + v * width;
      put(to, vector_at(to) + acc[r][v]);
    }
}

/// stride: of x in place; 0: x is sorted.
template <class Product, int rows = Product::rows>
void multiply_few(int64_t n, float* sums, const uint32_t* x, int64_t stride, const uint32_t* w,
                  int64_t half, int64_t words) {
  if constexpr (rows > 1)
    if (n < rows) return multiply_few<Product, rows - 1>(n, sums, x, stride, w, half, words);
  if (stride == 0)
    return multiply_rows<Product, rows>(sums, Sorted<Product::steps, rows>{x}, w, half, words);
  if constexpr (Product::steps == 1)
    multiply_rows<Product, rows>(sums, InPlace<rows>(x, stride), w, half, words);
}

/// Groups of rows of x, sorted as (word, step, row): what multiply_rows broadcasts, in order.
template <class Product>
struct InRegisters {
  static constexpr int steps = Product::steps;
  /// As few groups as the registers allow, of nearly the same size: a group of one would wait for
  /// its own sums.
  static int64_t group(int64_t rows) {
    const int64_t groups = (rows + Product::rows - 1) / Product::rows;
    return (rows + groups - 1) / groups;
  }
  static int64_t padded(int64_t n) { return n; }

  static void sort(uint32_t* to, const LinearPiece& p, int64_t first, int64_t n, int64_t words) {
    if (p.by_column && !p.bf16) return copy_columns(to, p, first, n, words);
    for (int64_t begin = 0; begin < words; begin += 16)
      for (int64_t r = 0; r < n; ++r) {
        const Run run(p, first + r, begin);
        for (int64_t i = 0; i < smaller(16, words - begin); ++i)
          for (int step = 0; step < steps; ++step)
            to[((begin + i) * steps + step) * n + r] = Product::word_of_x(run.words[i], step);
      }
  }

  /// Columns of floats lie as they are sorted.
  static void copy_columns(uint32_t* to, const LinearPiece& p, int64_t first, int64_t n,
                           int64_t words) {
    const uint32_t* const x = static_cast<const uint32_t*>(p.x) + first;
    for (int64_t i = 0; i < words; ++i)
      for (int64_t r = 0; r < n; ++r) to[i * n + r] = x[i * p.x_stride + r];
  }

  static void multiply(float* sums, const uint32_t* x, int64_t n, const uint32_t* w, int64_t half,
                       int64_t words) {
    multiply(sums, x, 0, n, w, half, words);
  }
  static void multiply(float* sums, const uint32_t* x, int64_t stride, int64_t n, const uint32_t* w,
                       int64_t half, int64_t words) {
    for (int64_t column = 0; column < linear_panel; column += tile_columns)
      multiply_few<Product>(n, sums + column, x, stride, w + column / linear_half * half, half,
                            words);
  }
};

#if defined(DSA_TILES)
/// Groups of 16 or 32 rows of x as tiles of 16 pairs; sums in tiles 0 to 3, x in 4 and 5, w in 6
/// and 7.
struct InTiles {
  static constexpr int steps = 1;
  static int64_t group(int64_t) { return 32; }
  static int64_t padded(int64_t n) { return (n + 15) / 16 * 16; }

  static void sort(uint32_t* to, const LinearPiece& p, int64_t first, int64_t n, int64_t words) {
    for (int64_t begin = 0; begin < words; begin += 16)
      for (int64_t r = 0; r < padded(n); ++r)
        if (r < n)
          std::memcpy(to + begin * padded(n) + r * 16, Run(p, first + r, begin).words, 64);
        else
          std::memset(to + begin * padded(n) + r * 16, 0, 64);
  }

  static void multiply(float* sums, const uint32_t* x, int64_t n, const uint32_t* w, int64_t half,
                       int64_t words) {
    const bool two = n > 16;
    tile_zero<0>();
    tile_zero<1>();
    tile_zero<2>();
    tile_zero<3>();
    for (int64_t i = 0; i < words; i += 16) {
      const uint32_t* tile = x + i * padded(n);
      tile_load<6>(w + i * linear_half, 64);
      tile_load<7>(w + half + i * linear_half, 64);
      tile_load<4>(tile, 64);
      tile_dot<0, 4, 6>();
      tile_dot<1, 4, 7>();
      if (!two) continue;
      tile_load<5>(tile + 256, 64);
      tile_dot<2, 5, 6>();
      tile_dot<3, 5, 7>();
    }
    add<0>(sums);
    add<1>(sums + linear_half);
    if (!two) return;
    add<2>(sums + 16 * linear_panel);
    add<3>(sums + 16 * linear_panel + linear_half);
  }

  template <int tile>
  static void add(float* sums) {
    float values[16][linear_half];
    tile_store<tile>(values[0], sizeof values[0]);
    for (int64_t r = 0; r < 16; ++r)
      for (int64_t c = 0; c < linear_half; ++c) sums[r * linear_panel + c] += values[r][c];
  }
};
#endif

/// Rows [row, row + n) of y, of one panel.
void write_rows(const LinearPiece& p, int64_t panel, int64_t row, int64_t n, const float* sums) {
  const int64_t first = panel * linear_panel, columns = smaller(linear_panel, p.out - first);
  for (int64_t r = 0; r < n; ++r) {
    const int64_t at = (row + r) * p.y_stride + first;
    float values[linear_panel];
    std::memcpy(values, sums + r * linear_panel, sizeof values);
    if (p.bias)
      for (int64_t c = 0; c < columns; ++c) values[c] += p.bias[first + c];
    if (p.add)
      for (int64_t c = 0; c < columns; ++c) values[c] += p.y[at + c];
    if (p.y) {
      std::memcpy(p.y + at, values, sizeof(float) * columns);
      continue;
    }
    uint16_t narrowed[linear_panel];
    for (int64_t c = 0; c < linear_panel; ++c) narrowed[c] = narrow(values[c]);
    std::memcpy(p.y_bf16 + at, narrowed, sizeof(uint16_t) * columns);
  }
}

template <class Method>
void multiply_piece(const LinearPiece& p) {
  const int64_t words = linear_words(p.bf16, p.in), half = words * linear_half;
  const int64_t row_words = words * Method::steps;
  const int64_t group = Method::group(p.rows);
  uint32_t* const x = static_cast<uint32_t*>(p.scratch);
  float* const sums = reinterpret_cast<float*>(x + linear_rows * row_words);
  for (int64_t r = 0; r < p.rows; r += group)
    Method::sort(x + r * row_words, p, r, smaller(group, p.rows - r), words);
  for (int64_t panel = p.first_panel; panel < p.last_panel; ++panel) {
    std::memset(sums, 0, sizeof(float) * linear_panel * Method::padded(p.rows));
    for (int64_t word = 0; word < words; word += words_at_a_time) {
      const int64_t count = smaller(words_at_a_time, words - word);
      for (int64_t r = 0; r < p.rows; r += group) {
        const int64_t n = smaller(group, p.rows - r);
        Method::multiply(sums + r * linear_panel,
                         x + r * row_words + word * Method::steps * Method::padded(n), n,
                         p.w + 2 * panel * half + word * linear_half, half, count);
        // At once, so that the stores to memory end while the next group is multiplied.
        if (word + count == words) write_rows(p, panel, r, n, sums + r * linear_panel);
      }
    }
  }
}

/// multiply_piece without a sorted copy of x: the same sums.
void multiply_in_place(const LinearPiece& p) {
  using Method = InRegisters<Whole<Floats>>;
  const int64_t words = p.in, half = words * linear_half, group = Method::group(p.rows);
  const uint32_t* const x = static_cast<const uint32_t*>(p.x);
  float* const sums = static_cast<float*>(p.scratch);
  for (int64_t panel = p.first_panel; panel < p.last_panel; ++panel) {
    std::memset(sums, 0, sizeof(float) * linear_panel * p.rows);
    for (int64_t word = 0; word < words; word += words_at_a_time) {
      const int64_t count = smaller(words_at_a_time, words - word);
      for (int64_t r = 0; r < p.rows; r += group) {
        const int64_t n = smaller(group, p.rows - r);
        Method::multiply(sums + r * linear_panel, x + r * p.x_stride + word, p.x_stride, n,
                         p.w + 2 * panel * half + word * linear_half, half, count);
        if (word + count == words) write_rows(p, panel, r, n, sums + r * linear_panel);
      }
    }
  }
}

}  // namespace

void linear_piece(const LinearPiece& p) {
  if (p.in_place) return multiply_in_place(p);
  if (!p.bf16) return multiply_piece<InRegisters<Whole<Floats>>>(p);
#if defined(DSA_TILES)
  tiles_begin();
  multiply_piece<InTiles>(p);
  tiles_end();
#elif defined(__AVX512BF16__)
  multiply_piece<InRegisters<Whole<Pairs>>>(p);
#else
  multiply_piece<InRegisters<Widened>>(p);
#endif
}

}  // namespace dsa::cpu::DSA_TIER
