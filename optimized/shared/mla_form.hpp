// optimized/shared/mla_form.hpp — the two forms of MLA over every visible key.
//
//   absorbed  heads meet the latent rows as they are: W_UK moves to the query and W_UV behind the
//             sum (mla_dense.hpp)
//   expanded  keys and values of every head are made from the latent rows (mla_expanded.hpp)
//
// They are algebraically equal and round differently. Sparse attention always has the absorbed
// form: two queries hardly ever choose the same keys.
#pragma once

#include <string_view>

#include "core/config.hpp"

namespace dsa {

enum class MlaForm { automatic, absorbed, expanded };

std::string_view name_of(MlaForm);  // "automatic", "absorbed", "expanded"

/// Error: lists the names.
MlaForm mla_form_named(std::string_view);

/// Whether T new tokens that end a sequence of S attend with fewer operations in expanded form.
/// Operations of one head (the number of heads cancels):
///   absorbed  2(R+P) + 2R  a pair of query and key,  2R(B+U)  a query, to absorb and to project
///   expanded  2(B+P) + 2U  a pair,                   2R(B+U)  a key, to expand
/// For V3.2's shape: from 171 tokens of a long sequence on, and whenever T is S.
bool expanded_is_cheaper(const Config&, Index T, Index S);

}  // namespace dsa
