#include "reference/ops/embed.hpp"

#include "reference/dual.hpp"

namespace dsa::reference {
namespace {

void expect_token(std::span<const Token> tokens, std::size_t t, Index vocabulary) {
  require(0 <= tokens[t] && tokens[t] < vocabulary,
          "token id " + std::to_string(tokens[t]) + " at position " + std::to_string(t) +
              " is outside the vocabulary of " + std::to_string(vocabulary));
}

}  // namespace

template <class Real>
void embed(View<Real, 2> x, std::span<const Token> tokens, const Parameter& table) {
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    expect_token(tokens, t, table.rows());
    read_rows(table, tokens[t], tokens[t] + 1, x[static_cast<Index>(t)].data);
  }
}

template <class Real>
void embed_backward(View<Real, 2> d_table, std::span<const Token> tokens, View<const Real, 2> d_x) {
  const Index T = static_cast<Index>(tokens.size()), C = d_table.shape[1];
  expect_shape("d_x", d_x, {T, C});
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    expect_token(tokens, t, d_table.shape[0]);
    for (Index c = 0; c < C; ++c) d_table(tokens[t], c) += d_x(static_cast<Index>(t), c);
  }
}

template void embed(View<double, 2>, std::span<const Token>, const Parameter&);
template void embed(View<long double, 2>, std::span<const Token>, const Parameter&);
template void embed(View<Dual, 2>, std::span<const Token>, const Parameter&);
template void embed_backward(View<double, 2>, std::span<const Token>, View<const double, 2>);
template void embed_backward(View<long double, 2>, std::span<const Token>,
                             View<const long double, 2>);

}  // namespace dsa::reference
