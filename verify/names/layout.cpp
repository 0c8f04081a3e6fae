#include "verify/names/layout.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>

#include "core/trace_names.hpp"
#include "verify/measure/check.hpp"

namespace dsa::verify {
namespace {

Index item_of(const OwnTensor& x) { return bits_of(x.dtype) / 8; }

void take(OwnTensor& x, std::vector<Index> shape, std::vector<std::byte> bytes) {
  x.shape = std::move(shape), x.bytes = std::move(bytes);
  x.data = x.bytes.data();
}

/// Axes a < b change places.
void swap_axes(OwnTensor& x, std::size_t a, std::size_t b) {
  std::vector<Index> shape = x.shape, stride(x.shape.size(), 1);
  for (std::size_t i = stride.size() - 1; i > 0; --i) stride[i - 1] = stride[i] * x.shape[i];
  std::swap(shape[a], shape[b]);
  std::swap(stride[a], stride[b]);
  const Index item = item_of(x), n = x.size();
  std::vector<std::byte> bytes(x.bytes.size());
  std::vector<Index> at(shape.size());
  for (Index i = 0; i < n; ++i) {
    Index from = 0;
    for (std::size_t axis = 0; axis < at.size(); ++axis) from += at[axis] * stride[axis];
    std::memcpy(bytes.data() + i * item, x.bytes.data() + from * item,
                static_cast<std::size_t>(item));
    for (std::size_t axis = at.size(); axis-- > 0;) {
      if (++at[axis] < shape[axis]) break;
      at[axis] = 0;
    }
  }
  take(x, std::move(shape), std::move(bytes));
}

void require_axes(const OwnTensor& x, const LayoutContext& context, std::size_t rank,
                  const std::string& word) {
  require(x.shape.size() >= rank,
          fmt::format("{} has shape {}, and {} (for {}) needs at least {} axes", x.name,
                      shape_text(x.shape), word, context.name, rank));
}

/// (T, width) of the first sequence.
void flatten(OwnTensor& x, const LayoutContext& context) {
  std::vector<Index> shape = x.shape;
  if (shape.size() > 2 && context.sequences > 1 && shape[0] == context.sequences &&
      shape[1] == context.tokens) {
    shape.erase(shape.begin());
    x.bytes.resize(x.bytes.size() / static_cast<std::size_t>(context.sequences));
  }
  while (shape.size() > 2 && shape[0] == 1) shape.erase(shape.begin());
  Index width = 1;
  for (std::size_t axis = 1; axis < shape.size(); ++axis) width *= shape[axis];
  take(x, {shape.empty() ? 1 : shape[0], width}, std::move(x.bytes));
}

/// Column c of every row becomes what was column source[c].
void take_columns(OwnTensor& x, const std::vector<Index>& source) {
  const Index T = x.shape[0], W = x.shape[1], item = item_of(x),
              width = static_cast<Index>(source.size());
  std::vector<std::byte> bytes(static_cast<std::size_t>(T * width * item));
  for (Index t = 0; t < T; ++t)
    for (Index c = 0; c < width; ++c)
      std::memcpy(bytes.data() + (t * width + c) * item,
                  x.bytes.data() + (t * W + source[static_cast<std::size_t>(c)]) * item,
                  static_cast<std::size_t>(item));
  take(x, {T, width}, std::move(bytes));
}

/// How the channels of a tensor fall into heads, and where the rotary ones are in the reference.
struct Heads {
  Index count, width, rope_begin;
  RopeLayout layout;
};

std::optional<Heads> heads_of(const std::string& name, const Config& c) {
  const Index N = c.num_attention_heads, B = c.qk_nope_head_dim, P = c.qk_rope_head_dim,
              R = c.kv_lora_rank;
  const auto is = [rest = within_layer(name)](std::string_view other) { return rest == other; };
  if (is(names::q_proj) || is(names::q_b_proj)) return Heads{N, B + P, B, c.rope_layout};
  if (is(names::q_rope)) return Heads{N, P, 0, c.rope_layout};
  if (is(names::kv_a_proj_with_mqa)) return Heads{1, R + P, R, c.rope_layout};
  if (is(names::k_rope)) return Heads{1, P, 0, c.rope_layout};
  if (!c.indexer) return std::nullopt;
  const Indexer& i = *c.indexer;
  const Index first = i.rope_first ? 0 : i.head_dim - P;
  if (is(names::indexer_wq_b) || is(names::indexer_q))
    return Heads{i.n_heads, i.head_dim, first, i.rope_layout};
  if (is(names::indexer_wk) || is(names::indexer_k_norm) || is(names::indexer_k))
    return Heads{1, i.head_dim, first, i.rope_layout};
  return std::nullopt;
}

/// Heads of the tensor, which has as many channels as they make.
Heads heads_for(const OwnTensor& x, const LayoutContext& context, const std::string& word) {
  const std::optional<Heads> heads = heads_of(context.name, context.config);
  require(heads.has_value(), word + " makes no sense for " + context.name +
                                 ", which has no rotary channels of its own");
  require(x.shape[1] == heads->count * heads->width,
          fmt::format("{} has {} channels a token, and {} has {}", x.name, x.shape[1], context.name,
                      heads->count * heads->width));
  return *heads;
}

/// Within every head, channel c comes from channel source(c).
void within_heads(OwnTensor& x, const Heads& heads, const std::function<Index(Index)>& source) {
  std::vector<Index> columns;
  for (Index h = 0; h < heads.count; ++h)
    for (Index c = 0; c < heads.width; ++c) columns.push_back(h * heads.width + source(c));
  take_columns(x, columns);
}

/// Pairs (i, i + P/2) become (2i, 2i + 1), or the reverse, unless the reference has them so too.
Adapter rope_in(RopeLayout theirs, const std::string& word) {
  return [=](OwnTensor& x, const LayoutContext& context) {
    flatten(x, context);
    const Heads heads = heads_for(x, context, word);
    if (heads.layout == theirs) return;
    const Index P = context.config.qk_rope_head_dim;
    within_heads(x, heads, [&](Index c) {
      const Index i = c - heads.rope_begin;
      if (i < 0 || i >= P) return c;
      return heads.rope_begin + (theirs == RopeLayout::half ? (i % 2) * (P / 2) + i / 2
                                                            : 2 * (i % (P / 2)) + i / (P / 2));
    });
  };
}

/// The rotary channels of a head lie first, or last, unless the reference has them there too.
Adapter rope_at(bool first, const std::string& word) {
  return [=](OwnTensor& x, const LayoutContext& context) {
    flatten(x, context);
    const Heads heads = heads_for(x, context, word);
    const Index P = context.config.qk_rope_head_dim, rest = heads.width - P;
    if ((heads.rope_begin == 0) == first) return;
    within_heads(x, heads, [&](Index c) {
      return first ? (c < rest ? c + P : c - rest) : (c < P ? c + rest : c - P);
    });
  };
}

void k_then_v(OwnTensor& x, const LayoutContext& context) {
  flatten(x, context);
  const Config& c = context.config;
  const Index N = c.num_attention_heads, B = c.qk_nope_head_dim, U = c.v_head_dim;
  require(within_layer(context.name) == names::kv_b_proj && x.shape[1] == N * (B + U),
          fmt::format("{} has {} channels a token; k-then-v is for kv_b_proj, which has {}", x.name,
                      x.shape[1], N * (B + U)));
  std::vector<Index> columns;
  for (Index n = 0; n < N; ++n) {
    for (Index b = 0; b < B; ++b) columns.push_back(n * B + b);
    for (Index u = 0; u < U; ++u) columns.push_back(N * B + n * U + u);
  }
  take_columns(x, columns);
}

/// A mask (T, S) becomes the subscripts (T, most) of what it keeps, -1 at the end of a row.
Adapter mask_of(bool (*keeps)(double)) {
  return [=](OwnTensor& x, const LayoutContext& context) {
    flatten(x, context);
    const Tensor<double, 2> mask = trace_values(x);
    std::vector<std::vector<std::int32_t>> rows(static_cast<std::size_t>(x.shape[0]));
    std::size_t most = 1;
    for (std::size_t t = 0; t < rows.size(); ++t) {
      for (Index s = 0; s < x.shape[1]; ++s)
        if (keeps(mask(static_cast<Index>(t), s))) rows[t].push_back(static_cast<std::int32_t>(s));
      most = std::max(most, rows[t].size());
    }
    std::vector<std::byte> bytes;
    for (auto& row : rows) {
      row.resize(most, -1);
      const auto part = std::as_bytes(std::span(row));
      bytes.insert(bytes.end(), part.begin(), part.end());
    }
    x.dtype = Dtype::i32;
    take(x, {x.shape[0], static_cast<Index>(most)}, std::move(bytes));
  };
}

/// Subscripts beyond the tokens, cells of a cache that hold nothing, become -1.
void known_keys(OwnTensor& x, const LayoutContext& context) {
  flatten(x, context);
  const Tensor<double, 2> ids = trace_values(x);
  std::vector<std::int32_t> known;
  for (const double id : ids)
    known.push_back(
        id >= 0 && id < static_cast<double>(context.tokens) ? static_cast<std::int32_t>(id) : -1);
  const auto bytes = std::as_bytes(std::span(known));
  x.dtype = Dtype::i32;
  take(x, x.shape, {bytes.begin(), bytes.end()});
}

/// A number, or a size by its name in config.json; "tokens": S.
using Extent = std::function<Index(const LayoutContext&)>;

Extent extent_named(const std::string& text) {
  if (!text.empty() && text.size() < 10 &&
      text.find_first_not_of("0123456789") == std::string::npos)
    return [n = static_cast<Index>(std::stoll(text))](const LayoutContext&) { return n; };
  static const std::map<std::string, Extent> named = {
      {"tokens", [](const LayoutContext& t) { return t.tokens; }},
      {"hidden_size", [](const LayoutContext& t) { return t.config.hidden_size; }},
      {"kv_lora_rank", [](const LayoutContext& t) { return t.config.kv_lora_rank; }},
      {"q_lora_rank", [](const LayoutContext& t) { return t.config.q_lora_rank.value_or(0); }},
  };
  const auto found = named.find(text);
  require(found != named.end(), "\"" + text +
                                    "\" is no extent; give a number, tokens, hidden_size, "
                                    "kv_lora_rank or q_lora_rank");
  return found->second;
}

/// The first n columns, or those after them.
Adapter part(const Extent& extent, bool first) {
  return [=](OwnTensor& x, const LayoutContext& context) {
    flatten(x, context);
    const Index n = extent(context), W = x.shape[1];
    require(
        n <= W,
        fmt::format("{} has {} channels a token, fewer than the {} that its name map takes for {}",
                    x.name, W, n, context.name));
    std::vector<Index> columns;
    for (Index c = first ? 0 : n; c < (first ? n : W); ++c) columns.push_back(c);
    take_columns(x, columns);
  };
}

/// Axes counted from the front, or from the back.
Adapter swapped(std::size_t rank, bool from_back, const std::string& word) {
  return [=](OwnTensor& x, const LayoutContext& context) {
    require_axes(x, context, rank, word);
    const std::size_t a = from_back ? x.shape.size() - rank : 0;
    swap_axes(x, a, a + 1);
  };
}

}  // namespace

Adapter adapter_named(const std::string& word) {
  static const std::map<std::string, Adapter> plain = {
      {"transposed", swapped(2, true, "transposed")},
      {"heads-first", swapped(3, true, "heads-first")},
      {"sequence-first", swapped(3, false, "sequence-first")},
      {"rope-half", rope_in(RopeLayout::half, "rope-half")},
      {"rope-interleaved", rope_in(RopeLayout::interleaved, "rope-interleaved")},
      {"rope-first", rope_at(true, "rope-first")},
      {"rope-last", rope_at(false, "rope-last")},
      {"k-then-v", k_then_v},
      {"known-keys", known_keys},
      {"additive-mask", mask_of([](double x) { return !is_masked(x); })},
      {"boolean-mask", mask_of([](double x) { return x != 0; })},
  };
  if (const auto found = plain.find(word); found != plain.end()) return found->second;
  for (const bool first : {true, false}) {
    const std::string begin = first ? "first(" : "after(";
    if (word.starts_with(begin) && word.ends_with(")"))
      return part(extent_named(word.substr(begin.size(), word.size() - begin.size() - 1)), first);
  }
  std::string names;
  for (const auto& [name, adapter] : plain) names += name + ", ";
  throw Error("there is no layout adapter \"" + word + "\"; there are " + names +
              "first(n) and after(n)");
}

Trace::Entry laid_out(const StoredTensor& stored, const std::vector<Adapter>& adapters,
                      const LayoutContext& context) {
  require(is_decodable(stored.dtype) && bits_of(stored.dtype) % 8 == 0,
          fmt::format("tensor {} is stored as {}, expected F64, F32, BF16, F16 or integers",
                      stored.name, name_of(stored.dtype)));
  const auto x = std::make_shared<OwnTensor>();
  static_cast<StoredTensor&>(*x) = stored;
  x->bytes.assign(stored.data, stored.data + stored.bytes());
  x->data = x->bytes.data();
  for (const Adapter& adapt : adapters) adapt(*x, context);
  flatten(*x, context);
  x->name = context.name;
  return {*x, x};
}

}  // namespace dsa::verify
